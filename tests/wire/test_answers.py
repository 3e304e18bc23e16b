"""Answers of each provider kind: streamed pieces, tool calls, usage, thinking, refusals."""

import asyncio

import pytest
from pydantic_ai.messages import ModelRequest, ThinkingPart, ToolCallPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters

from core.config.providers import ProviderKind
from services.llm.providers.builder import ModelBuilder
from tests.support.fake_llm.providers import MODELS, NETWORKED_KINDS, provider_at
from tests.support.fake_llm.server import (
    LLMServer,
    answer,
    content_filter,
    content_filter_rejected,
    gate,
    hang,
    no_done_marker,
    refusal,
    stall,
    tool_call,
)
from tests.support.fake_llm.wire import INPUT_TOKENS, OUTPUT_TOKENS
from tests.support.routed_requests import TIME_TOOL, ask, piece_of

EACH_KIND = pytest.mark.parametrize("kind", NETWORKED_KINDS)
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


@EACH_KIND
@STREAMED
async def test_answer_with_text_usage_and_finish_reason(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, *, streamed: bool
) -> None:
    """Text, token counts and the finish reason arrive in both modes."""
    server.script(answer("Hello there, audience"))
    response = await ask(builder.models[provider_at(server, kind), MODELS[kind]], streamed=streamed)
    assert response.text == "Hello there, audience"
    assert (response.usage.input_tokens, response.usage.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert response.finish_reason == "stop"


@EACH_KIND
async def test_pieces_arrive_before_the_answer_is_complete(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind
) -> None:
    """A stream is passed on piece by piece: the first two are there while the server holds back the third."""
    released = asyncio.Event()
    server.script(gate(released, after_pieces=2, then=answer(pieces=["One", ", two", ", three"])))
    model = builder.models[provider_at(server, kind), MODELS[kind]]
    pieces: list[str] = []
    async with model.request_stream(
        [ModelRequest([UserPromptPart("Count")])], None, ModelRequestParameters()
    ) as stream:
        async for event in stream:
            if piece := piece_of(event):
                pieces.append(piece)
            if pieces == ["One", ", two"]:
                released.set()
    assert pieces == ["One", ", two", ", three"]


@EACH_KIND
@STREAMED
async def test_tool_call(server: LLMServer, builder: ModelBuilder, kind: ProviderKind, *, streamed: bool) -> None:
    """A tool call arrives whole, also when its arguments were streamed in parts."""
    server.script(tool_call("current_time", {"zone": "Europe/Berlin"}))
    model = builder.models[provider_at(server, kind), MODELS[kind]]
    response = await ask(model, streamed=streamed, tools=(TIME_TOOL,))
    (part,) = response.parts
    assert isinstance(part, ToolCallPart)
    assert (part.tool_name, part.args_as_dict()) == ("current_time", {"zone": "Europe/Berlin"})
    # Google has no reason of its own for it
    assert response.finish_reason == ("stop" if kind is ProviderKind.GOOGLE else "tool_call")


@EACH_KIND
@STREAMED
async def test_thinking_is_separate_from_text(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, *, streamed: bool
) -> None:
    """Reasoning arrives apart from the answer."""
    server.script(answer("Four", thinking="Two and two"))
    response = await ask(builder.models[provider_at(server, kind), MODELS[kind]], streamed=streamed)
    assert [part.content for part in response.parts if isinstance(part, ThinkingPart)] == ["Two and two"]
    assert response.text == "Four"


@EACH_KIND
async def test_stream_with_finish_reason_needs_no_end_marker(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind
) -> None:
    """Some servers never send the marker; the answer is complete all the same."""
    server.script(no_done_marker())
    response = await ask(builder.models[provider_at(server, kind), MODELS[kind]], streamed=True)
    assert (response.text, response.finish_reason) == ("A whole answer", "stop")


# (kind, how it refuses): Mistral's API never does, and Groq has no field for a model's refusal
REFUSALS = [
    *((kind, refusal()) for kind in NETWORKED_KINDS if kind not in {ProviderKind.GROQ, ProviderKind.MISTRAL}),
    *((kind, content_filter()) for kind in NETWORKED_KINDS if kind is not ProviderKind.MISTRAL),
]


@STREAMED
@pytest.mark.parametrize(("kind", "behaviour"), REFUSALS)
async def test_refusal_is_a_finish_reason(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, behaviour: object, *, streamed: bool
) -> None:
    """A refusal is no error of the library's: it shows in the finish reason."""
    server.script(behaviour)
    response = await ask(builder.models[provider_at(server, kind), MODELS[kind]], streamed=streamed)
    assert response.finish_reason == "content_filter"


@STREAMED
@pytest.mark.parametrize("kind", [ProviderKind.AZURE_OPENAI, ProviderKind.GOOGLE])
async def test_prompt_filter_is_a_finish_reason(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, *, streamed: bool
) -> None:
    """Azure refuses a prompt with a 400, Google with a 200 without an answer: both are told from a fault."""
    server.script(content_filter_rejected())
    provider = provider_at(server, kind)
    response = await ask(builder.models[provider, provider.default_model], streamed=streamed)
    assert (response.finish_reason, response.parts) == ("content_filter", [])


@EACH_KIND
@pytest.mark.parametrize("behaviour", [hang(), stall(1)], ids=["before the first byte", "in mid-stream"])
async def test_cancelled_request_closes_its_connection(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, behaviour: object
) -> None:
    """A cancelled request closes its connection, since the provider would continue to bill it."""
    server.script(behaviour)
    asking = asyncio.create_task(ask(builder.models[provider_at(server, kind), MODELS[kind]], streamed=True))
    request = await server.arrival(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(request.abandoned.wait(), 5)
