"""Text that arrives together is handed on together where its consumer lets it be held, and nothing else is held."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from services.llm.providers.wire.chat_chunks import ChatChunks
from services.llm.providers.wire.event_stream import EventStream, Pacing, pace_responses
from services.llm.providers.wire.received_bytes import gather_text
from services.llm.providers.wire.transport import Transport

WINDOW_S = 30.0
"""Longer than a test may take: text that is not handed on before is held."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(text: str | None = None, **fields: object) -> bytes:
    """Returns the data of a chunk of a chat completion."""
    finish_reason = fields.pop("finish_reason", None)
    delta = {"content": text, **fields.pop("delta", {})}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return json.dumps(frame | fields).encode()


def merged(events: Sequence[bytes], window_s: float = 0.3) -> list[bytes]:
    return list(ChatChunks().merge(events, joins=window_s > 0))


def texts(events: Sequence[bytes]) -> list[str | None]:
    return [json.loads(event)["choices"][0]["delta"].get("content") for event in events]


def test_neighbours_with_text_only_become_one() -> None:
    pieces = ["Well", ",", ' "quoted" ', "back\\slash", "\n", "ё", "🎉", "."]
    events = merged([chunk(piece) for piece in pieces])
    assert texts(events) == ["Well", "".join(pieces[1:])]
    assert json.loads(events[1]) | {"choices": []} == json.loads(chunk()) | {"choices": []}


def test_surrogate_pair_over_two_chunks_becomes_whole() -> None:
    first, second = chunk("\ud83c"), chunk("\udf89")
    assert texts(merged([chunk("a"), first, second])) == ["a", "🎉"]


def test_nothing_is_merged_where_no_text_may_be_held() -> None:
    events = [chunk(piece) for piece in "abc"]
    assert merged(events, 0.0) == events


def test_text_at_hand_is_merged_where_none_is_held_but_arrivals_are_merged() -> None:
    events = [chunk(piece) for piece in "abc"]
    assert texts(list(ChatChunks().merge(events, joins=Pacing(merges_arrivals=True).merges))) == ["a", "bc"]


@pytest.mark.parametrize(
    "between",
    [
        chunk("x", finish_reason="stop"),  # a finish reason in the middle
        chunk("x", id="d"),  # another answer
        chunk(None, delta={"reasoning_content": "hm"}),  # thinking
        chunk("x", usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
        chunk(
            None,
            delta={
                "tool_calls": [
                    {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ]
            },
        ),
        b"[DONE]",
    ],
)
def test_other_events_stay_between_the_texts(between: bytes) -> None:
    events = merged([chunk("a"), chunk("b"), chunk("c"), between, chunk("d"), chunk("e")])
    position = 2
    assert texts(events[:position]) == ["a", "bc"]
    assert events[position] == between or json.loads(events[position]) == json.loads(between)
    assert "".join(text or "" for text in texts(events[position + 1 :])) == "de"


def test_chunks_with_a_finish_reason_each_are_not_merged() -> None:
    """Their places between the texts say that none of them ends the stream."""
    events = [chunk(piece, finish_reason="stop") for piece in "abc"]
    assert merged(events) == events


def test_equal_pieces_of_thinking_are_not_merged() -> None:
    """Servers send an empty text beside them."""
    events = [chunk("", delta={"reasoning_content": "ha"})] * 3
    assert merged(events) == events


def test_padding_of_openai_keeps_no_texts_apart() -> None:
    events = [chunk(piece, obfuscation="x" * (number + 1)) for number, piece in enumerate("abcd")]
    assert texts(merged(events)) == ["a", "bcd"]


def test_event_stream_merges_what_one_piece_holds() -> None:
    stream = EventStream(ChatChunks(), pacing=Pacing(0.3))
    piece = b"".join(b"data: %b\n\n" % chunk(text) for text in "abc")
    assert stream.feed(piece).count(b"data: ") == 2
    assert stream.feed(piece).count(b"data: ") == 1
    assert stream.feed(piece + b"data: [DONE]\n\n").count(b"data: ") == 2
    assert stream.is_ended


def framed(event: bytes) -> bytes:
    """Returns an event as a chunk of HTTP."""
    data = b"data: %b\n\n" % event
    return b"%x\r\n%b\r\n" % (len(data), data)


class Server:
    """A server whose events the test sends one by one, and the pieces that its client has got."""

    def __init__(self, head: bytes = HEAD) -> None:
        self.pieces: list[bytes] = []
        self._head = head
        self.pacing = Pacing()
        self.error: Exception | None = None
        self._writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, *events: bytes) -> None:
        """Sends events and gives the client time to read them."""
        await self.write(b"".join(map(framed, events)))

    async def write(self, data: bytes) -> None:
        """Sends bytes and gives the client time to read them."""
        assert self._writer is not None
        self._writer.write(data)
        await asyncio.sleep(0.05)

    async def end(self, last: bytes = b"0\r\n\r\n") -> None:
        """Ends the body, or cuts the connection."""
        assert self._writer is not None
        if not self._writer.is_closing():
            self._writer.write(last)
            self._writer.close()
        await asyncio.sleep(0.05)

    @property
    def read(self) -> list[str]:
        """The texts of the events so far, by piece."""
        events = [[event[6:] for event in piece.split(b"\n\n")[:-1] if b"[DONE]" not in event] for piece in self.pieces]
        return ["".join(text or "" for text in texts(some)) for some in events]

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._head)
        self._writer = writer
        self._writers.put_nowait(writer)

    async def consume(self, url: str) -> None:
        """Reads a stream as the SDKs do."""
        transport = Transport(tls=ssl.create_default_context(), keepalive_s=30, connect_timeout_s=5, trust_env=False)
        async with httpx2.AsyncClient(transport=transport, timeout=30) as client:
            with pace_responses() as self.pacing:
                async with client.stream("GET", f"{url}/chat/completions") as response:
                    try:
                        async for piece in response.aiter_bytes():
                            self.pieces.append(piece)
                    except httpx2.TransportError as error:
                        self.error = error

    async def opened(self) -> None:
        await self._writers.get()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A stream whose first output has been read, so that its rest may be held."""
    server = Server()
    async with _serving(server) as url:
        reading = asyncio.create_task(server.consume(url))
        await server.opened()
        await server.send(chunk("a"))
        server.pacing.window_s = WINDOW_S
        await server.send(chunk("b"))
        yield server
        reading.cancel()
        await asyncio.wait([reading])


@asynccontextmanager
async def _serving(server: Server) -> AsyncIterator[str]:
    listening = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        await server.end(b"")


pytestmark = pytest.mark.integration


async def test_first_output_is_handed_on_at_once_and_the_rest_held(server: Server) -> None:
    await server.send(chunk("c"))
    await server.send(chunk("d"))
    assert server.read in (["a"], ["a", "b"]), "b was on its way when the window began"


async def test_text_is_handed_on_together_when_the_window_ends(server: Server) -> None:
    await server.send(chunk("c"))
    await server.end()
    server.pieces.clear()
    other = Server()
    async with _serving(other) as url:
        reading = asyncio.create_task(other.consume(url))
        await other.opened()
        await other.send(chunk("a"), chunk("b"))
        other.pacing.window_s = 0.2
        for text in "cdef":
            await other.send(chunk(text))
        await asyncio.sleep(0.3)
        assert "".join(other.read) == "abcdef"
        assert len(other.pieces) <= 4
        assert 0.01 < other.pacing.held_s < 0.2, "since f has arrived"
        await other.send(chunk("g"))
        assert "".join(other.read) == "abcdefg", "its window was over"
        assert other.pacing.held_s < 0.01
        reading.cancel()
        await asyncio.wait([reading])


@pytest.mark.parametrize(
    "event",
    [
        chunk("", finish_reason="stop"),
        chunk("", usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
        chunk("", delta={"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": ""}}]}),
        b'{"error": {"message": "overloaded"}, "choices": [{"delta": {}}]}',
        b"[DONE]",
    ],
)
async def test_nothing_but_text_is_held(server: Server, event: bytes) -> None:
    await server.send(chunk("c"), event)
    assert "".join(server.read) == "abc"


async def test_end_is_not_held(server: Server) -> None:
    await server.send(chunk("c"))
    await server.end()
    assert "".join(server.read) == "abc"


async def test_text_before_a_cut_is_handed_on_and_the_cut_is_not_held(server: Server) -> None:
    await server.send(chunk("c"))
    await server.end(b"")
    assert "".join(server.read) == "abc"
    assert isinstance(server.error, httpx2.RemoteProtocolError)
    assert server.error is not None


@pytest.mark.parametrize("at", [3, 200])
async def test_other_event_in_two_halves_is_not_held(server: Server, at: int) -> None:
    event = framed(chunk("", finish_reason="stop"))
    at = min(at, event.index(b'"stop"'))
    await server.send(chunk("c"))
    await server.write(event[:at])
    await server.write(event[at:])
    assert "".join(server.read) == "abc"


@pytest.mark.parametrize("split", [b"0", b"0\r\n"])
async def test_end_in_two_halves_is_not_held(server: Server, split: bytes) -> None:
    await server.send(chunk("c"))
    await server.write(split)
    await server.end(b"0\r\n\r\n".removeprefix(split))
    assert "".join(server.read) == "abc"
    assert server.error is None


@pytest.mark.parametrize("surplus", [0, 1])
async def test_body_without_chunks_ends_at_its_length_or_with_its_connection(surplus: int) -> None:
    """The last event has no finish reason."""
    events = [b"data: %b\n\n" % chunk(text) for text in "abcd"]
    length = sum(map(len, events)) + surplus
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % length)
    async with _serving(server) as url:
        reading = asyncio.create_task(server.consume(url))
        await server.opened()
        await server.write(events[0])
        server.pacing.window_s = WINDOW_S
        for event in events[1:]:
            await server.write(event)
        if surplus:
            assert "".join(server.read) in {"a", "ab"}
            await server.end(b"")
        await asyncio.wait_for(reading, 5)
    assert "".join(server.read) == "abcd"
    assert isinstance(server.error, httpx2.RemoteProtocolError) is bool(surplus)


async def gather(response: aiohttp.ClientResponse, until: float) -> tuple[bytes, float]:
    """Returns the pieces at hand and those that arrive until an instant."""
    return await gather_text(response, response.content.read_nowait(), until)


async def test_pieces_are_there_after_a_read_that_was_cancelled() -> None:
    server = Server()
    async with _serving(server) as url, aiohttp.ClientSession() as session, session.get(url) as response:
        await server.send(b"a")
        assert (await gather(response, 0))[0] == b"data: a\n\n"
        reading = asyncio.create_task(gather(response, asyncio.get_running_loop().time() + WINDOW_S))
        await asyncio.sleep(0)
        await server.send(b"b")
        reading.cancel()
        await asyncio.wait([reading])
        await server.send(b"c")
        arrived = await response.content.readany()
        assert arrived == b"data: b\n\ndata: c\n\n"
        await server.end()
        assert await gather(response, 0) == (b"", 0.0)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """The context of a server with a self-signed certificate."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")]),
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@asynccontextmanager
async def _serving_over_tls(tls: ssl.SSLContext, *, is_kept: bool) -> AsyncIterator[str]:
    """Serves a body that ends with its connection, which the client closes if it is kept."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 4000)
        if is_kept:
            await reader.read()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls) as listening:
        yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def test_end_of_a_connection_over_tls_is_seen_whenever_it_comes(tls: ssl.SSLContext) -> None:
    """Its loss is told to the protocol that was there when it was closed, a turn of the loop later."""
    async with _serving_over_tls(tls, is_kept=False) as url, aiohttp.ClientSession() as session:

        async def length(turns: int) -> int:
            async with session.get(url, ssl=False) as response:
                received = len(await response.content.readany())
                for _ in range(turns):
                    await asyncio.sleep(0)
                while not response.content.at_eof():
                    piece, _ = await gather(response, asyncio.get_running_loop().time() + 0.01)
                    received += len(piece or await response.content.readany())
            return received

        async with asyncio.timeout(5):
            assert [await length(turns) for turns in range(20)] == [4000] * 20


def test_read_over_tls_is_cancelled_after_its_connection_was_closed(tls: ssl.SSLContext) -> None:
    """With asyncio's own loop, whose TLS takes no protocol then."""

    async def cancel() -> None:
        async with _serving_over_tls(tls, is_kept=True) as url, aiohttp.ClientSession() as session:
            response = await session.get(url, ssl=False)
            await response.content.readany()
            reading = asyncio.create_task(gather(response, asyncio.get_running_loop().time() + WINDOW_S))
            await asyncio.sleep(0)
            assert response.connection is not None
            transport = response.connection.transport
            assert transport is not None
            transport.close()
            transport.close()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            response.close()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(cancel())
