"""Servers of one's own that speak the OpenAI wire, each in its own way, as `openai_compatible` providers."""

from collections.abc import Callable

import pytest
from pydantic_ai.exceptions import ModelServerError
from pydantic_ai.messages import ThinkingPart

from services.llm.providers.builder import ModelBuilder
from services.llm.routing.faults.outcomes import classify
from services.llm.routing.faults.refusal_words import Fault
from tests.support.fake_llm import local_servers as local
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import Behaviour, LLMServer, status
from tests.support.fake_llm.wire import INPUT_TOKENS, OUTPUT_TOKENS
from tests.support.routed_requests import ask

STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])

# (server, its thinking, whether it counts tokens of plain answers, of streams)
SERVERS: list[tuple[Callable[[], Behaviour], list[str], bool, bool]] = [
    (local.vllm, ["Two and two"], True, True),
    (local.lm_studio, [], True, False),
    (local.llama_cpp, [], False, False),
    (local.litellm_proxy, [], True, True),
]


@STREAMED
@pytest.mark.parametrize(
    ("server_of", "thinking", "plain", "stream"), SERVERS, ids=[row[0].__name__ for row in SERVERS]
)
async def test_an_answer(
    server: LLMServer,
    builder: ModelBuilder,
    server_of: Callable[[], Behaviour],
    thinking: list[str],
    *,
    plain: bool,
    stream: bool,
    streamed: bool,
) -> None:
    """Text, thinking apart from it, the finish reason, and the tokens where the server counts them."""
    server.script(server_of())
    response = await ask(builder.models[provider_at(server, api_key=None), "m"], streamed=streamed)
    assert (response.text, response.finish_reason) == ("Four", "stop")
    assert [part.content for part in response.parts if isinstance(part, ThinkingPart)] == thinking
    counted = stream if streamed else plain
    usage = (response.usage.input_tokens, response.usage.output_tokens)
    assert usage == ((INPUT_TOKENS, OUTPUT_TOKENS) if counted else (0, 0))


async def test_usage_of_a_stream_is_asked_for(server: LLMServer, builder: ModelBuilder) -> None:
    """Without that, vLLM and LiteLLM count nothing."""
    server.script(local.vllm())
    await ask(builder.models[provider_at(server), "m"], streamed=True)
    assert server.requests[0].json["stream_options"] == {"include_usage": True}


async def test_one_system_message(server: LLMServer, builder: ModelBuilder) -> None:
    """Chat templates of local models take one, at the start."""
    assert (
        builder.models[provider_at(server), "m"].profile.get("openai_chat_supports_multiple_system_messages") is False
    )


async def test_error_of_a_proxys_upstream_in_mid_stream(server: LLMServer, builder: ModelBuilder) -> None:
    """LiteLLM writes the status as a text."""
    server.script(local.litellm_error_in_stream())
    with pytest.raises(ModelServerError) as caught:
        await ask(builder.models[provider_at(server), "m"], streamed=True)
    assert (caught.value.status_code, caught.value.in_stream) == (500, True)


FAULTS = {
    "vLLM: too long": Fault.CONTEXT_WINDOW,
    "vLLM before 0.16: too long": Fault.CONTEXT_WINDOW,
    "vLLM: no such model": Fault.MODEL_GONE,
    "LM Studio: too long": Fault.CONTEXT_WINDOW,
    "llama.cpp: too long": Fault.CONTEXT_WINDOW,
    "llama.cpp: still loading": Fault.LOADING,
    "LiteLLM: too long": Fault.CONTEXT_WINDOW,
    "LiteLLM: refused": Fault.REFUSED,
    "LiteLLM: budget used up": Fault.MISCONFIGURED,
}


@STREAMED
@pytest.mark.parametrize("name", local.ERRORS)
async def test_outcome_of_the_providers_error(
    server: LLMServer, builder: ModelBuilder, name: str, *, streamed: bool
) -> None:
    """Each server words it differently."""
    code, body = local.ERRORS[name]
    server.script(status(code, body))
    with pytest.raises(RuntimeError) as caught:
        await ask(builder.models[provider_at(server), "m"], streamed=streamed)
    assert classify(caught.value, 300).fault is FAULTS[name]
