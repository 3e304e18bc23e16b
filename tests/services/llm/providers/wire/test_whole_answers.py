"""Whole JSON bodies where a stream was asked for: answers, errors and lists of chunks, as servers of each kind send."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic_ai.exceptions import ModelAPIError

from core.config.providers import ProviderKind as Kind
from services.llm.providers.builder import ModelBuilder
from services.llm.routing.faults.outcomes import classify
from services.llm.routing.faults.refusal_words import Fault
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import Act, Exchange, LLMServer
from tests.support.routed_requests import TIME_TOOL, ask

pytestmark = pytest.mark.integration

MESSAGE: Mapping[str, Any] = {
    "id": "m1", "type": "message", "role": "assistant", "model": "c", "stop_reason": "end_turn",
    "content": [{"type": "thinking", "thinking": "Hm", "signature": "s"}, {"type": "text", "text": "Four"}],
    "usage": {"input_tokens": 5, "output_tokens": 7},
}  # fmt: skip
CALL = {"type": "tool_use", "id": "t1", "name": "current_time", "input": {"time_zone": "UTC"}}
USAGE = {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12}


def google(text: str, reason: str | None) -> dict[str, Any]:
    """Returns a chunk of Google's."""
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": reason, "index": 0}
    return {"candidates": [candidate], "usageMetadata": USAGE}


def completion() -> dict[str, Any]:
    """Returns a completion of OpenAI's protocol."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Four"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


OVERLOADED = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
ANSWERS: list[tuple[Kind, Any]] = [
    (Kind.ANTHROPIC, MESSAGE),
    (Kind.ANTHROPIC, {**MESSAGE, "content": "Four", "stop_reason": "stop"}),
    (Kind.GOOGLE, google("Four", "STOP")),
    (Kind.GOOGLE, [google("Fo", None), google("ur", "STOP")]),
    *((kind, completion()) for kind in (Kind.MISTRAL, Kind.GROQ, Kind.OPENROUTER, Kind.OPENAI_COMPATIBLE)),
]
ERRORS: list[tuple[Kind, Any]] = [
    (Kind.ANTHROPIC, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    (Kind.ANTHROPIC, {"error": {"message": "overloaded", "code": 503}}),
    (Kind.ANTHROPIC, {"detail": "overloaded"}),
    (Kind.GOOGLE, OVERLOADED),
    (Kind.GOOGLE, [OVERLOADED]),
]


def send(body: object, indent: int | None) -> Act:
    """Answers with a whole JSON body."""

    async def do(exchange: Exchange) -> None:
        await exchange.body(json.dumps(body, indent=indent).encode(), 200, "application/json")

    return Act(do)


@pytest.mark.parametrize(("kind", "body"), ANSWERS)
async def test_whole_answer_is_read_as_a_stream(
    server: LLMServer, builder: ModelBuilder, kind: Kind, body: object
) -> None:
    provider = provider_at(server, kind)
    for indent in (None, 1):
        server.script(send(body, indent))
        response = await ask(builder.models[provider, provider.default_model], streamed=True)
        assert (response.text, response.finish_reason) == ("Four", "stop")
        assert response.usage.total_tokens == 12


async def test_whole_answer_of_anthropic_calls_its_tools(server: LLMServer, builder: ModelBuilder) -> None:
    server.script(send({**MESSAGE, "content": [CALL], "stop_reason": "tool_use"}, None))
    provider = provider_at(server, Kind.ANTHROPIC)
    response = await ask(builder.models[provider, provider.default_model], streamed=True, tools=(TIME_TOOL,))
    assert [call.args_as_dict() for call in response.tool_calls] == [{"time_zone": "UTC"}]


@pytest.mark.parametrize(("kind", "body"), ERRORS)
async def test_error_in_place_of_a_stream_is_the_servers(
    server: LLMServer, builder: ModelBuilder, kind: Kind, body: object
) -> None:
    server.script(send(body, None))
    provider = provider_at(server, kind)
    with pytest.raises(ModelAPIError) as caught:
        await ask(builder.models[provider, provider.default_model], streamed=True)
    assert classify(caught.value, 300).fault in {Fault.DOWN, Fault.UNREADABLE}
