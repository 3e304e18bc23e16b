"""The transport under the SDKs' clients: httpx2's errors over aiohttp's connections, and nothing in the way of many."""

import asyncio
import gzip
import json
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import httpx2
import pytest

from services.llm.providers.wire.event_stream import PIECE_BYTES
from services.llm.providers.wire.transport import Transport
from tests.support.fake_llm.server import black_hole_url, refusing_url

pytestmark = pytest.mark.integration

Serve = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
BROKEN: list[tuple[str, bytes, type[Exception]]] = [
    ("no answer at all", b"", httpx2.RemoteProtocolError),
    ("no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", httpx2.RemoteProtocolError),
    ("half of the body", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", httpx2.RemoteProtocolError),
    ("a chunk and no end", HEAD + b"4\r\nhalf\r\n", httpx2.RemoteProtocolError),
    ("a chunk of no size", HEAD + b"zz\r\nhalf\r\n", httpx2.RemoteProtocolError),
]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """The address of a server that answers the head of a request so."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(await reader.readuntil(b"\r\n\r\n"), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=1024)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def client(*, trust_env: bool = False, timeout_s: float = 5) -> AsyncIterator[httpx2.AsyncClient]:
    """A client over the transport."""
    transport = Transport(tls=ssl.create_default_context(), keepalive_s=30, connect_timeout_s=5, trust_env=trust_env)
    async with httpx2.AsyncClient(transport=transport, timeout=timeout_s) as opened:
        yield opened


def saying(answer: bytes) -> Serve:
    """A server that says this and closes the connection."""

    async def serve(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return serve


async def test_request_that_arrives_after_the_end_opens_no_session() -> None:
    """Nothing would close it. The client has let the request pass before it was closed."""
    transport = Transport(tls=ssl.create_default_context(), keepalive_s=30, connect_timeout_s=5, trust_env=False)
    await transport.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await transport.handle_async_request(httpx2.Request("GET", "http://127.0.0.1:1"))
    assert transport._session is None


@pytest.mark.parametrize(("answer", "kind"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
async def test_transport_raises_the_errors_of_httpx2(answer: bytes, kind: type[Exception]) -> None:
    """It decides whether the same provider is asked once more."""
    async with serving(saying(answer)) as url, client() as asking:
        with pytest.raises(kind):
            await asking.get(url)


async def test_refused_connection_is_not_a_timeout() -> None:
    """A port without a listener; the reason is among the causes."""
    async with client() as asking:
        with refusing_url() as url, pytest.raises(httpx2.ConnectError) as caught:
            await asking.get(url)
        assert caught.value.__cause__ is not None
        assert isinstance(caught.value.__cause__.__cause__, ConnectionRefusedError)


async def test_connect_timeout_is_separate() -> None:
    """A host that is gone is found out before the time for an answer is over."""
    async with client() as asking, black_hole_url() as url:
        with pytest.raises(httpx2.ConnectTimeout):
            await asking.get(url, timeout=httpx2.Timeout(60, connect=0.1))


async def test_silent_server_is_a_read_timeout() -> None:
    """Connected, and then nothing."""
    silent = asyncio.Event()

    async def serve(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        await silent.wait()

    async with serving(serve) as url, client(timeout_s=0.1) as asking:
        with pytest.raises(httpx2.ReadTimeout):
            await asking.get(url)
        silent.set()


async def test_data_before_a_lost_connection_is_delivered() -> None:
    """An error that a provider writes before it hangs up tells more than that it hung up."""
    async with (
        serving(saying(HEAD + b"5\r\nHello\r\n")) as url,
        client() as asking,
        asking.stream("GET", url) as response,
    ):
        pieces = response.aiter_bytes()
        assert await anext(pieces) == b"Hello"
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(pieces)


async def test_concurrent_requests_do_not_wait_for_connections() -> None:
    """Waiting for a connection would count against the provider's deadline."""
    many = 1200
    arrived = 0
    all_there = asyncio.Event()

    async def serve(_head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == many:
            all_there.set()
        await all_there.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(serve) as url, client(timeout_s=30) as asking:
        responses = await asyncio.gather(*(asking.get(url) for _ in range(many)))
    assert {response.status_code for response in responses} == {204}


async def test_compressed_body_is_decompressed_once() -> None:
    """The client decompresses the raw body."""
    body = gzip.compress(b"Hello", mtime=0)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    async with serving(saying(head.encode() + body)) as url, client() as asking:
        assert (await asking.get(url)).text == "Hello"


def _bare_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("deflate", zlib.compress(b"Hello")),
        ("deflate", _bare_deflate(b"Hello")),
        ("identity, GZIP", gzip.compress(b"Hello", mtime=0)),
        ("gzip", b"Hello"),
        ("none", b"Hello"),
        ("utf-8", b"Hello"),
        # A proxy that decompresses keeps the head of any coding.
        ("deflate", b'{"says": "Hello"}'),
        ("br", b'{"says": "Hello"}'),
        ("zstd", b'[{"says": "Hello"}]'),
        ("br", b"data: Hello\n\n"),
    ],
)
async def test_body_is_read_whatever_its_head_says_about_compression(coding: str, body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with serving(saying(head.encode() + body)) as url, client() as asking:
        assert "Hello" in (await asking.get(url)).text


ANSWER = b'{"id": "c", "choices": [{"message": {"role": "assistant", "content": "Hello"}}]}'
EVENT = b'data: {"choices": [{"delta": {"content": "Hello"}}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize(
    "pieces",
    [
        (b"\n", b"\n", b"  \n", ANSWER),
        (b"\xef\xbb\xbf", ANSWER),
        (b"\n", EVENT),
        (b"da", EVENT[2:]),
        (b"e", b"vent: message\n", EVENT),
        (b"\xef", b"\xbb\xbf" + EVENT),
    ],
)
async def test_kind_of_a_body_is_found_however_it_is_split(pieces: Sequence[bytes], *, is_streamed: bool) -> None:
    """Servers send blank lines while they think, and declare no content type."""

    async def serve(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(serve) as url, client() as asking:
        body = {"stream": is_streamed}
        answer = (await asking.post(f"{url}/v1/chat/completions", json=body)).content
    if answer.startswith(b"data: "):
        data = answer.removeprefix(b"data: ").split(b"\n\n")[0]
        assert json.loads(data)["choices"][0]["delta"]["content"] == "Hello"
    else:
        assert not is_streamed
        assert json.loads(answer)["choices"][0]["message"]["content"] == "Hello"
        assert json.loads(answer)["object"] == "chat.completion", "it is repaired"


async def test_body_of_a_coding_that_is_not_known_is_refused() -> None:
    head = "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 9\r\n\r\n"
    async with serving(saying(head.encode() + b"\x0b\x02\x80Hello\x03")) as url, client() as asking:
        with pytest.raises(httpx2.DecodingError, match="not asked for: br"):
            await asking.get(url)


async def test_credentials_in_the_url_become_a_header() -> None:
    """A server behind basic auth: the client makes the header, and its SDK has another one for the key."""
    heads: list[bytes] = []

    async def serve(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(serve) as url, client() as asking:
        await asking.get(url.replace("//", "//ann:secret@"), headers={"Authorization": "Bearer key"})
    assert heads[0].lower().count(b"authorization: ") == 1
    assert b"authorization: Basic YW5uOnNlY3JldA==\r\n" in heads[0]


async def test_request_without_a_body_sends_no_body_headers() -> None:
    """Some servers evaluate the headers of an absent body."""
    heads: list[bytes] = []

    async def serve(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head.lower())
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(serve) as url, client() as asking:
        await asking.get(url)
    assert b"content-" not in heads[0]


@asynccontextmanager
async def naming_requests() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server, and the first lines of the requests that it got."""
    asked: list[bytes] = []

    async def serve(head: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(head.split(b"\r\n", 1)[0])
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(serve) as url:
        yield url, asked


async def test_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is used for remote providers only; its URL may lack the scheme."""
    async with naming_requests() as (proxy, asked):
        monkeypatch.setenv("http_proxy", proxy.removeprefix("http://"))
        async with client(trust_env=True) as asking:
            await asking.get("http://llm.example/v1/models")
        async with client(trust_env=False) as asking:
            await asking.get(proxy)
    assert asked == [b"GET http://llm.example/v1/models HTTP/1.1", b"GET / HTTP/1.1"]


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "127.0.0.0/8", "a.example, 127.0.0.1", "*"])
async def test_no_proxy_hosts_are_reached_directly(monkeypatch: pytest.MonkeyPatch, no_proxy: str) -> None:
    """In the forms that operators know from httpx2 and curl."""
    async with naming_requests() as (proxy, by_proxy), naming_requests() as (url, asked):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", no_proxy)
        async with client(trust_env=True) as asking:
            await asking.get(url)
    assert (by_proxy, asked) == ([], [b"GET / HTTP/1.1"])


async def test_long_and_non_ascii_headers_are_accepted() -> None:
    """Gateways copy headers from behind them, and some say in their own language why they refuse."""
    head = b"HTTP/1.1 403 Acc\xe8s refus\xe9\r\nX-Long: " + b"x" * 30_000 + b"\r\nContent-Length: 0\r\n\r\n"
    async with serving(saying(head)) as url, client() as asking:
        response = await asking.get(url)
    assert (response.status_code, len(response.headers["x-long"])) == (403, 30_000)


async def test_garbage_in_the_middle_of_a_body() -> None:
    """The reader is told nothing of it, and then that the connection is closed."""
    heard = asyncio.Event()

    async def serve(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"5\r\nHello\r\n")
        await heard.wait()
        writer.write(b"no size of a chunk\r\n")

    async with serving(serve) as url, client(timeout_s=1) as asking, asking.stream("GET", url) as response:
        pieces = response.aiter_bytes()
        assert await anext(pieces) == b"Hello"
        heard.set()
        await asyncio.sleep(0.1)
        with pytest.raises(httpx2.TransportError):
            await anext(pieces)


async def test_non_http_proxy_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not gone past."""
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")
    async with client(trust_env=True) as asking:
        with pytest.raises(httpx2.ProxyError, match="only proxies that speak HTTP"):
            await asking.get("http://llm.example/")


async def test_unread_response_closes_its_connection() -> None:
    """Closing an unread answer closes its connection, so that the provider stops generating."""
    gone = asyncio.Event()

    async def serve(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"5\r\nHello\r\n")
        try:
            while True:
                writer.write(b"1\r\n.\r\n")
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            gone.set()

    async with serving(serve) as url, client() as asking:
        async with asking.stream("GET", url) as response:
            assert await anext(response.aiter_bytes())
        async with asyncio.timeout(5):
            await gone.wait()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", b'{"choices": [{"delta": {"role": "x"}}]}\n' * 1500),
        ("/v1/messages", json.dumps({"content": [{"type": "text", "text": ""}] * 400}).encode()),
        ("/models/m:streamGenerateContent", json.dumps([{"candidates": []}] * 2500).encode()),
    ],
)
async def test_whole_answer_of_many_parts_leaves_others_their_turn(path: str, body: bytes) -> None:
    """A megabyte of small parts takes seconds to read."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with serving(saying(head.encode() + body)) as url, client() as asking:
        others = asyncio.create_task(take_turns())
        async with asking.stream("POST", url + path, json={"stream": True}) as response:
            seen = [(len(piece), turns) async for piece in response.aiter_raw()]
        others.cancel()
    assert len(seen) >= 3
    assert max(length for length, _ in seen) < 2 * PIECE_BYTES
    assert len({turn for _, turn in seen}) == len(seen)
