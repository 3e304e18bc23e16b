"""The lean clients send and parse the same as the SDK's own."""

import base64
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Mapping
from types import FrameType
from typing import Any, cast

import httpx2
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from services.llm.providers.openai import LeanOpenAI
from tests.support.fake_llm.server import LLMServer, answer, tool_call
from tests.support.routed_requests import TIME_TOOL

pytestmark = pytest.mark.integration

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
)
CONVERSATION: list[ModelMessage] = [
    ModelRequest(
        parts=[
            SystemPromptPart("Be brief."),
            UserPromptPart(["What is this?", BinaryContent(PIXEL, media_type="image/png")]),
        ]
    ),
    ModelResponse(
        parts=[ThinkingPart("A pixel."), TextPart("One pixel."), ToolCallPart("clock", {"zone": "UTC"}, "c1")]
    ),
    ModelRequest(parts=[ToolReturnPart("clock", {"now": "12:00"}, "c1")]),
    ModelResponse(parts=[ToolCallPart("clock", "{}", "c2")]),
    ModelRequest(parts=[ToolReturnPart("clock", "zone is missing", "c2", outcome="retried")]),
    ModelResponse(parts=[TextPart("It is noon.")]),
    ModelRequest.user_text_prompt("Naïve “quotes” and 🙂?"),
]


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    async with LLMServer() as server:
        server.default = answer("one two three")
        yield server


@pytest.fixture
async def clients(server: LLMServer) -> AsyncIterator[tuple[AsyncOpenAI, LeanOpenAI]]:
    """The SDK's own client and ours, which know the same."""
    async with httpx2.AsyncClient() as http:
        yield (
            AsyncOpenAI(api_key="k", base_url=server.url, http_client=http, max_retries=0),
            LeanOpenAI(api_key="k", base_url=server.url, http_client=http, max_retries=0),
        )


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_lean_client_sends_the_same_request_as_the_sdk(
    server: LLMServer, clients: tuple[AsyncOpenAI, LeanOpenAI], *, streamed: bool
) -> None:
    """All message types, a tool, settings and extra fields of the body arrive the same, in the same order."""
    parameters = ModelRequestParameters(function_tools=[TIME_TOOL])
    for client in clients:
        model = OpenAIChatModel("m", provider=OpenAIProvider(openai_client=client))
        settings: Any = {"temperature": 0.5, "extra_body": {"seasoning": {"salt": 1}}}
        if streamed:
            async with model.request_stream(CONVERSATION, settings, parameters) as stream:
                async for _ in stream:
                    pass
        else:
            await model.request(CONVERSATION, settings, parameters)
    usual, lean = (request.json for request in server.requests)
    assert lean == usual
    assert list(lean) == list(usual)
    assert len(lean["messages"]) > len(CONVERSATION)
    assert lean["seasoning"] == {"salt": 1}


async def calls_of(module: str, work: Awaitable[object]) -> int:
    """Number of calls into a module of the SDK."""
    count = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_globals.get("__name__") == module

    sys.setprofile(note)
    try:
        await work
    finally:
        sys.setprofile(None)
    return count


async def test_lean_client_does_not_transform_messages(clients: tuple[AsyncOpenAI, LeanOpenAI]) -> None:
    """However many there are, the SDK has no more to do; its own way takes some calls for each."""

    async def effort(client: AsyncOpenAI, messages: int) -> int:
        question: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello?"}] * messages
        return await calls_of("openai._utils._transform", client.chat.completions.create(model="m", messages=question))

    usual, lean = clients
    await effort(usual, 1)  # cached properties
    assert await effort(lean, 40) == await effort(lean, 2)
    assert await effort(usual, 40) > await effort(usual, 2) + 38 * 10


class Held(dict[str, Any]):
    """JSON that can be referred to weakly."""


async def test_lean_stream_does_not_hold_messages_and_tools(clients: tuple[AsyncOpenAI, LeanOpenAI]) -> None:
    """A long history would be held in the SDK's form until the end of the answer. The caller's lists stay."""
    _, lean = clients
    question: Any = Held(role="user", content="Hello?")
    tool: Any = Held(type="function", function={"name": "clock"})
    messages: list[Any] = [question]
    stream = await lean.chat.completions.create(model="m", messages=messages, tools=[tool], stream=True)
    assert messages == [question]
    held = [weakref.ref(question), weakref.ref(tool)]
    del messages, question, tool
    assert [each() for each in held] == [None, None]
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]) == "one two three"


CHUNK: dict[str, Any] = {
    "id": "c1",
    "object": "chat.completion.chunk",
    "created": 1_800_000_000,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "Hi"}, "logprobs": None, "finish_reason": None}],
}


def choice(**changes: object) -> dict[str, Any]:
    return {**CHUNK, "choices": [{**CHUNK["choices"][0], **changes}]}


USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "clock", "arguments": '{"zone"'}}
SOUND = {
    "text": CHUNK,
    "role": choice(delta={"role": "assistant", "content": ""}),
    "the end": choice(delta={}, finish_reason="stop"),
    "usage": {**CHUNK, "choices": [], "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 1}}},
    "a tool call": choice(delta={"tool_calls": [CALL]}),
    "another service's": {**choice(delta={"content": "x", "reasoning": "why"}), "provider": "P", "x_groq": {"id": 1}},
    "log probabilities": choice(logprobs={"content": [{"token": "H", "logprob": -1, "top_logprobs": []}]}),
}
ODD = {
    "a finish reason of its own": choice(finish_reason="insufficient_system_resource"),
    "a number as text": {**CHUNK, "created": "1800000000"},
    "a float for a number": {**CHUNK, "created": 1.8e9},
    "no envelope": {"choices": CHUNK["choices"]},
    "another object": {**CHUNK, "object": "chat.completion"},
    "a service tier of its own": {**CHUNK, "service_tier": "turbo"},
}


def pieces(value: object) -> object:
    """The observable state of an SDK object: types, fields set, extra fields."""
    if isinstance(value, list):
        return [pieces(item) for item in cast("list[object]", value)]
    fields = getattr(type(value), "model_fields", None)
    if fields is None:
        return type(value), value
    model: Any = value
    shown = {name: pieces(getattr(value, name)) for name in fields}
    return type(value), shown, model.model_fields_set & set(fields), model.model_extra


def read(client: AsyncOpenAI, data: Mapping[str, Any], cast_to: type[Any] = ChatCompletionChunk) -> object:
    return client._process_response_data(data=data, cast_to=cast_to, response=httpx2.Response(200))


@pytest.mark.parametrize("chunk", [*SOUND.values(), *ODD.values()], ids=[*SOUND, *ODD])
async def test_lean_client_parses_chunks_like_the_sdk(
    clients: tuple[AsyncOpenAI, LeanOpenAI], chunk: dict[str, Any]
) -> None:
    """Data that fits the types, and data that does not."""
    usual, lean = (read(client, chunk) for client in clients)
    assert pieces(lean) == pieces(usual)


async def test_lean_client_leaves_whole_answers_to_the_sdk(clients: tuple[AsyncOpenAI, LeanOpenAI]) -> None:
    """Only pieces of a stream come by the hundred."""
    body = {**CHUNK, "object": "chat.completion", "choices": [{"index": 0, "finish_reason": "odd", "message": None}]}
    usual, lean = (read(client, body, ChatCompletion) for client in clients)
    assert pieces(lean) == pieces(usual)


@pytest.mark.parametrize("chunk", SOUND.values(), ids=SOUND)
async def test_lean_client_validates_chunks_with_pydantic(
    clients: tuple[AsyncOpenAI, LeanOpenAI], chunk: dict[str, Any]
) -> None:
    """The SDK's way takes Python code for each field of each object."""

    async def reading(client: AsyncOpenAI) -> None:
        read(client, chunk)

    usual, lean = clients
    assert await calls_of("openai._models", reading(lean)) == 0
    assert await calls_of("openai._models", reading(usual)) > 0


async def test_lean_client_streams_an_answer(server: LLMServer, clients: tuple[AsyncOpenAI, LeanOpenAI]) -> None:
    """The SDK reads the pieces of a stream by the method that is replaced."""
    _, lean = clients
    model = OpenAIChatModel("m", provider=OpenAIProvider(openai_client=lean))
    server.script(tool_call("clock", {}))
    seen: list[type[object]] = []
    original = lean._process_response_data

    def noted(**arguments: Any) -> Any:
        seen.append(arguments["cast_to"])
        return original(**arguments)

    lean._process_response_data = noted
    async with model.request_stream(CONVERSATION, None, ModelRequestParameters()) as stream:
        async for _ in stream:
            pass
    assert stream.get().tool_calls[0].tool_name == "clock"
    assert set(seen) == {ChatCompletionChunk}
