"""Bounds of an answer: endless streams and bodies end, and cost no more than what is read of them."""

import json
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from pydantic_ai.direct import model_request_stream

from core.errors import AnswerInterrupted
from core.redis.client import open_redis
from services.llm.models.stream_reader import MAX_TEXT
from services.llm.providers.wire.transport import MAX_BODY_BYTES
from services.llm.request import RequestSpec
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import Act, Exchange, LLMServer
from tests.support.fake_llm.wire import Wire
from tests.support.llm_harness import HELLO, LLMHarness, answered_by, bench, provider, said

pytestmark = pytest.mark.integration

PIECE = 10_000
ENDLESS = 100_000_000
"""Bytes after which a server gives up waiting for its client to hang up."""
IN_FLIGHT = 16 << 20
"""Bytes that sockets and buffers may hold beyond what the client reads."""
Encode = Callable[[Wire, int], bytes]
SEVERAL_FORMS = pytest.mark.parametrize("streamed", [False, True], ids=["collected", "streamed"])


@dataclass
class Flood:
    """A stream that begins with `text` and goes on without end; counts the bytes that its client accepted."""

    encode: Encode
    text: str = ""
    sent = 0

    async def play(self, exchange: Exchange) -> None:
        await exchange.start_stream()
        await exchange.chunk(exchange.wire.opening())
        if self.text:
            await exchange.chunk(exchange.wire.text(self.text))
        number = 0
        while self.sent < ENDLESS:
            piece = self.encode(exchange.wire, number)
            await exchange.chunk(piece)
            self.sent += len(piece)
            number += 1
        await exchange.chunk(exchange.wire.finish("stop", usage=True) + exchange.wire.done())
        await exchange.end()


def text(wire: Wire, _number: int) -> bytes:
    return wire.text("x" * PIECE)


def thinking(wire: Wire, _number: int) -> bytes:
    return wire.thinking("x" * PIECE)


def endless_line(_wire: Wire, number: int) -> bytes:
    return b"x" * PIECE if number else b'data: {"choices": [{"index": 0, "delta": {"content": "'


def long_delta(wire: Wire, _number: int) -> bytes:
    return wire.text("x" * 10_000_000)


def comments(_wire: Wire, _number: int) -> bytes:
    return b": still here\n\n" * 1000


def tool_arguments(_wire: Wire, number: int) -> bytes:
    function = {"arguments": "x" * PIECE} if number else {"name": "greet", "arguments": '{"name": "'}
    call = {"index": 0, "function": function} | ({} if number else {"id": "t1", "type": "function"})
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'tool_calls': [call]}}]})}\n\n".encode()


def many_tool_calls(_wire: Wire, number: int) -> bytes:
    call = {"index": number, "id": f"t{number}", "function": {"name": "greet", "arguments": json.dumps("x" * PIECE)}}
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'tool_calls': [call]}}]})}\n\n".encode()


def long_tool_name(_wire: Wire, number: int) -> bytes:
    call = {"index": 0, "id": "t1", "function": {"name": "x" * PIECE, "arguments": ""}}
    del number
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'tool_calls': [call]}}]})}\n\n".encode()


SHOWN: dict[str, Encode] = {"endless line": endless_line, "one long delta": long_delta, "comments": comments}
HIDDEN: dict[str, Encode] = {
    **SHOWN,
    "thinking": thinking,
    "tool arguments": tool_arguments,
    "many tool calls": many_tool_calls,
    "a long tool name": long_tool_name,
}


@pytest.fixture
async def servers() -> AsyncIterator[tuple[LLMServer, LLMServer]]:
    async with LLMServer() as first, LLMServer() as second:
        second.default = llm.answer("from the other")
        yield first, second


@pytest.fixture
async def replica(servers: tuple[LLMServer, LLMServer]) -> AsyncIterator[LLMHarness]:
    patience = {"timeout_s": 30.0, "first_token_timeout_s": 30.0, "stall_timeout_s": 30.0}
    providers = [
        provider(name, server.url, **patience) for name, server in zip(("first", "second"), servers, strict=True)
    ]
    async with open_redis(None) as redis, bench(redis, providers) as replica:
        yield replica


@SEVERAL_FORMS
async def test_endless_text_is_kept_and_marked_as_cut(
    replica: LLMHarness, servers: tuple[LLMServer, LLMServer], *, streamed: bool
) -> None:
    flood = servers[0].default = Flood(text)
    response = await replica.ask(streamed=streamed)
    assert response.finish_reason == "length"
    assert MAX_TEXT <= len(said(response)) <= MAX_TEXT + PIECE
    assert flood.sent < MAX_BODY_BYTES + IN_FLIGHT
    assert servers[1].requests == []


@SEVERAL_FORMS
@pytest.mark.parametrize("encode", [*SHOWN.values(), thinking], ids=[*SHOWN, "thinking"])
async def test_text_before_a_bound_is_kept_and_marked_as_cut(
    replica: LLMHarness, servers: tuple[LLMServer, LLMServer], encode: Encode, *, streamed: bool
) -> None:
    flood = servers[0].default = Flood(encode, "Hello")
    response = await replica.ask(streamed=streamed)
    assert (said(response), response.finish_reason) == ("Hello", "length")
    assert flood.sent < MAX_BODY_BYTES + IN_FLIGHT
    assert servers[1].requests == []


@SEVERAL_FORMS
@pytest.mark.parametrize("encode", HIDDEN.values(), ids=HIDDEN)
async def test_answer_beyond_a_bound_without_text_makes_way(
    replica: LLMHarness, servers: tuple[LLMServer, LLMServer], encode: Encode, *, streamed: bool
) -> None:
    flood = servers[0].default = Flood(encode)
    response = await replica.ask(streamed=streamed)
    assert (said(response), answered_by(response)) == ("from the other", "second")
    assert flood.sent < MAX_BODY_BYTES + IN_FLIGHT


async def test_endless_tool_call_after_text_is_an_interruption(
    replica: LLMHarness, servers: tuple[LLMServer, LLMServer]
) -> None:
    """Half a tool call cannot be run: the text stays, and the answer can be retried."""
    servers[0].default = Flood(tool_arguments, "Hello")
    model = replica.factory.create_routed_model(RequestSpec("test"))
    async with model_request_stream(model, HELLO) as stream:
        with pytest.raises(AnswerInterrupted):
            async for _ in stream:
                pass
    assert said(stream.get()) == "Hello"
    assert servers[1].requests == []


@pytest.mark.parametrize("begins_with_text", [False, True])
@SEVERAL_FORMS
async def test_200_mb_behind_gzip_end_at_the_bound(
    replica: LLMHarness, servers: tuple[LLMServer, LLMServer], *, streamed: bool, begins_with_text: bool
) -> None:
    """Of 200 kB on the wire, generated as they are read."""

    async def do(exchange: Exchange) -> None:
        await exchange.head(content_type="text/event-stream", headers={"content-encoding": "gzip"})
        packer = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)
        text = exchange.wire.text("Hello") if begins_with_text else b": hello\n\n"
        await exchange.chunk(packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH))
        # After a full flush a block refers to nothing before it, so that one is sent again and again.
        megabyte = packer.compress(b": still here\n\n" * 70_000) + packer.flush(zlib.Z_FULL_FLUSH)
        for _ in range(200):
            await exchange.chunk(megabyte)
        await exchange.end()

    servers[0].default = Act(do)
    response = await replica.ask(streamed=streamed)
    expected = ("Hello", "length") if begins_with_text else ("from the other", "stop")
    assert (said(response), response.finish_reason) == expected


@SEVERAL_FORMS
@pytest.mark.parametrize("status", [200, 400, 429, 500], ids=str)
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "text/html"])
async def test_body_of_100_mb_makes_way(
    replica: LLMHarness, servers: tuple[LLMServer, LLMServer], status: int, content_type: str, *, streamed: bool
) -> None:
    """Error bodies, plain answers and pages."""
    sent = 0

    async def do(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.head(status, content_type)
        await exchange.chunk(b'{"error": {"message": "')
        while sent < ENDLESS:
            await exchange.chunk(b"x" * PIECE)
            sent += PIECE
        await exchange.end()

    servers[0].default = Act(do)
    response = await replica.ask(streamed=streamed)
    assert answered_by(response) == "second"
    assert sent < MAX_BODY_BYTES + IN_FLIGHT
