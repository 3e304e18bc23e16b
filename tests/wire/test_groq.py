"""Peculiarities of Groq: its SDK over the shared connections, refused tool calls, limits per minute."""

import gzip
import json

import pytest
from pydantic_ai.messages import ToolCallPart

from core.config.providers import ProviderKind, ProviderSettings
from services.llm.providers.builder import ModelBuilder
from services.llm.routing.faults.outcomes import classify
from services.llm.routing.faults.refusal_words import Fault
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import Exchange, LLMServer
from tests.support.routed_requests import TIME_TOOL, ask

STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


@pytest.fixture
def groq(server: LLMServer) -> ProviderSettings:
    """The provider."""
    return provider_at(server, ProviderKind.GROQ)


def tool_use_failed() -> llm.Behaviour:
    """Groq found that the arguments of a tool call do not fit its schema."""
    error = {
        "message": "Tool call validation failed: parameters for tool current_time did not match schema",
        "type": "invalid_request_error",
        "code": "tool_use_failed",
        "failed_generation": json.dumps({"name": "current_time", "arguments": {"place": "Berlin"}}),
    }

    async def do(exchange: Exchange) -> None:
        if not exchange.request.streamed:
            await exchange.body({"error": error}, 400)
            return
        await exchange.start_stream()
        await exchange.chunk(exchange.wire.opening())
        await exchange.chunk(b"event: error\ndata: " + json.dumps({"error": error}).encode() + b"\n\n")
        await exchange.end()

    return llm.Act(do)


@STREAMED
async def test_refused_tool_call_has_a_finish_reason(
    server: LLMServer, builder: ModelBuilder, groq: ProviderSettings, *, streamed: bool
) -> None:
    """The agent returns the error to the model; it is neither a cut nor a fault of the provider."""
    server.script(tool_use_failed())
    response = await ask(builder.models[groq, groq.default_model], streamed=streamed, tools=(TIME_TOOL,))
    (call,) = response.parts
    assert isinstance(call, ToolCallPart)
    assert (call.tool_name, call.args_as_dict()) == ("current_time", {"place": "Berlin"})
    assert response.finish_reason == ("tool_call" if streamed else "error")


@pytest.mark.parametrize(
    ("status", "error", "fault"),
    [
        # more than the account may send in a minute: a shorter request would pass, this one never will
        (
            413,
            {
                "message": "Request too large for model `llama-3.1-8b-instant` in organization `org_1` service tier "
                "`on_demand` on tokens per minute (TPM): Limit 6000, Requested 12328",
                "type": "tokens",
                "code": "rate_limit_exceeded",
            },
            Fault.CONTEXT_WINDOW,
        ),
        (413, {"message": "Request Entity Too Large", "type": "invalid_request_error"}, Fault.UNCLEAR),
        (
            400,
            {"message": "The model `x` has been decommissioned", "code": "model_decommissioned"},
            Fault.MODEL_GONE,
        ),
        (400, {"message": "Organization has been restricted.", "code": "organization_restricted"}, Fault.MISCONFIGURED),
        (403, {"message": "blocked at the organization level", "type": "permissions_error"}, Fault.MISCONFIGURED),
        (498, {"message": "Flex tier capacity exceeded", "code": "capacity_exceeded"}, Fault.DOWN),
    ],
)
async def test_outcome_of_the_providers_error(
    server: LLMServer, builder: ModelBuilder, groq: ProviderSettings, status: int, error: dict[str, str], fault: Fault
) -> None:
    """Code or message classify an error whose status is ambiguous."""
    server.script(llm.status(status, {"error": error}))
    with pytest.raises(RuntimeError) as caught:
        await ask(builder.models[groq, groq.default_model])
    assert classify(caught.value, 300).fault is fault


async def test_compressed_answer(server: LLMServer, builder: ModelBuilder, groq: ProviderSettings) -> None:
    """Bytes go from one HTTP library to the other as they came, and are unpacked once."""

    async def do(exchange: Exchange) -> None:
        packed = gzip.compress(json.dumps(exchange.wire.plain("Hello")).encode())
        await exchange.body(packed, headers={"content-encoding": "gzip"})

    server.script(llm.Act(do))
    assert (await ask(builder.models[groq, groq.default_model])).text == "Hello"


async def test_requests_use_the_providers_client(
    server: LLMServer, builder: ModelBuilder, groq: ProviderSettings
) -> None:
    """So its proxy, its certificate authorities, its pool and its closing are those of every other kind."""
    seen: list[str] = []

    async def look(request: object) -> None:
        seen.append(str(request.url))

    builder.http_client(groq).event_hooks["request"].append(look)
    await ask(builder.models[groq, groq.default_model], streamed=True)
    assert seen == [f"{server.root}/openai/v1/chat/completions"]


async def test_redirect_is_followed(server: LLMServer, builder: ModelBuilder, groq: ProviderSettings) -> None:
    """By the client that sends, with the body."""
    elsewhere = f"{server.root}/openai/v1/chat/completions"
    server.script(llm.status(307, b"", {"location": elsewhere}), llm.answer("Here"))
    assert (await ask(builder.models[groq, groq.default_model])).text == "Here"
    assert server.requests[1].json == server.requests[0].json
