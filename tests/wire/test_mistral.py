"""Peculiarities of Mistral: content of several types, flat errors, a stream that is closed at its end marker."""

import asyncio

import pytest
from pydantic_ai.messages import ThinkingPart

from core.config.providers import ProviderKind, ProviderSettings
from services.llm.providers.builder import ModelBuilder
from services.llm.routing.faults.outcomes import classify
from services.llm.routing.faults.refusal_words import Fault
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import Exchange, LLMServer
from tests.support.routed_requests import ask

STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


@pytest.fixture
def mistral(server: LLMServer) -> ProviderSettings:
    """The provider."""
    return provider_at(server, ProviderKind.MISTRAL)


@STREAMED
async def test_content_may_be_a_list_of_pieces(
    server: LLMServer, builder: ModelBuilder, mistral: ProviderSettings, *, streamed: bool
) -> None:
    """Reasoning models answer so: thinking and text side by side."""

    async def do(exchange: Exchange) -> None:
        content = [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Two and two"}]},
            {"type": "text", "text": "Four"},
        ]
        if not streamed:
            body = exchange.wire.plain("")
            body["choices"][0]["message"]["content"] = content
            await exchange.body(body)
            return
        await exchange.start_stream()
        await exchange.chunk(exchange.wire._chunk({"content": content}))
        await exchange.chunk(exchange.wire.finish("stop", usage=True) + exchange.wire.done())
        await exchange.end()

    server.script(llm.Act(do))
    response = await ask(builder.models[mistral, mistral.default_model], streamed=streamed)
    assert [part.content for part in response.parts if isinstance(part, ThinkingPart)] == ["Two and two"]
    assert response.text == "Four"


@STREAMED
async def test_model_length_limit_is_a_length_finish(
    server: LLMServer, builder: ModelBuilder, mistral: ProviderSettings, *, streamed: bool
) -> None:
    """`model_length` is Mistral's word for an answer that its model could not make longer."""
    server.script(llm.answer("Four", finish="model_length"))
    response = await ask(builder.models[mistral, mistral.default_model], streamed=streamed)
    assert (response.text, response.finish_reason) == ("Four", "length")


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (
            400,
            {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "param": None, "code": "1500"},
            Fault.MODEL_GONE,
        ),
        (401, {"detail": "Unauthorized"}, Fault.MISCONFIGURED),
        (422, {"detail": [{"type": "missing", "loc": ["body", "messages"], "msg": "Field required"}]}, Fault.UNCLEAR),
        (
            503,
            {"object": "error", "message": "Service tier capacity exceeded for this model.", "code": "3505"},
            Fault.HICCUP,
        ),
    ],
)
@STREAMED
async def test_outcome_of_the_providers_error(
    server: LLMServer,
    builder: ModelBuilder,
    mistral: ProviderSettings,
    status: int,
    body: dict[str, object],
    fault: Fault,
    *,
    streamed: bool,
) -> None:
    """Its errors have no envelope, and an unknown model is a 400."""
    server.script(llm.status(status, body))
    with pytest.raises(RuntimeError) as caught:
        await ask(builder.models[mistral, mistral.default_model], streamed=streamed)
    assert classify(caught.value, 300).fault is fault


async def test_stream_is_closed_after_its_end_marker(
    server: LLMServer, builder: ModelBuilder, mistral: ProviderSettings
) -> None:
    """Its end is read for the sake of the connection, and not for long."""

    async def do(exchange: Exchange) -> None:
        await exchange.start_stream()
        await exchange.chunk(exchange.wire.text("Four"))
        await exchange.chunk(exchange.wire.finish("stop", usage=True) + exchange.wire.done())
        await exchange.hang()

    server.script(llm.Act(do))
    async with asyncio.timeout(2):
        response = await ask(builder.models[mistral, mistral.default_model], streamed=True)
    assert (response.text, response.finish_reason) == ("Four", "stop")
    await asyncio.wait_for(server.requests[0].abandoned.wait(), 2)


async def test_request_has_one_user_agent(builder: ModelBuilder, server: LLMServer) -> None:
    """The SDK's; the client's own beside it is rejected by some gateways."""
    heads: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        provider = provider_at(server, ProviderKind.MISTRAL, base_url=url)
        with pytest.raises(RuntimeError):
            await ask(builder.models[provider, provider.default_model], streamed=True)
    assert heads[0].lower().count(b"\r\nuser-agent:") == 1
