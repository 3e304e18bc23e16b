"""WebServer over raw sockets: slow heads, slow bodies, clients that do not read, spellings of paths, methods."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from pydantic import SecretStr

from bot.web.server import HttpRoute, WebServer, WebTiming

pytestmark = pytest.mark.integration

TOKEN = "a-long-random-word"
FAST = WebTiming(head_s=0.3, body_s=0.3, response_s=0.3, linger_s=0.1)
LARGE = 32 * 1024 * 1024


async def _hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _size(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


async def _large(_request: web.Request) -> web.Response:
    return web.Response(body=b"x" * LARGE)


ROUTES = (
    HttpRoute("GET", "/healthz", _hello, is_guarded=False),
    HttpRoute("POST", "/healthz", _size),
    HttpRoute("POST", "/hook", _size, is_guarded=False),
    HttpRoute("GET", "/hook", _hello),
    HttpRoute("GET", "/large", _large, is_guarded=False),
    HttpRoute("GET", "/llm/status", _hello),
)


@asynccontextmanager
async def running(timing: WebTiming = FAST) -> AsyncIterator[int]:
    server = WebServer(host="127.0.0.1", port=0, token=SecretStr(TOKEN), routes=ROUTES, timing=timing)
    await server.start()
    try:
        yield server.port
    finally:
        await server.close()


async def exchange(port: int, request: bytes) -> bytes:
    """Sends bytes and returns everything until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


async def drip(port: int, head: bytes, unit: bytes) -> tuple[float, bytes]:
    """Sends a beginning, then a unit each 50 ms; returns the seconds until the server ended that, and its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    writer.write(head)
    answer = asyncio.create_task(read_all(reader))
    while not answer.done() and time.monotonic() - began < 5:
        writer.write(unit)
        await asyncio.sleep(0.05)
    ended = time.monotonic() - began
    writer.close()
    return ended, await answer


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Returns what arrives before the connection is closed or reset."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(65_536):
            received += part
    return bytes(received)


@pytest.mark.parametrize(
    ("head", "unit", "status"),
    [
        (b"", b"", b""),  # nothing at all
        (b"GET /healthz HTTP/1.1\r\n", b"X: y\r\n", b""),
        (b"GET /", b"a", b""),
        (b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"x", b"HTTP/1.1 408"),
        (b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc", b"", b"HTTP/1.1 408"),
        (b"POST /hook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", b"HTTP/1.1 408"),
        # The head of a second request of the connection.
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n", b"X: y\r\n", b"HTTP/1.1 200"),
        # Guarded: refused at once, the rest of the body is not waited for.
        (b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"x", b"HTTP/1.1 401"),
    ],
    ids=["silent", "headers", "path", "body", "half a body", "chunks", "second request", "guarded"],
)
async def test_a_slow_request_ends_at_its_deadline(head: bytes, unit: bytes, status: bytes) -> None:
    async with running() as port:
        seconds, answer = await drip(port, head, unit)
        assert seconds < 3
        # A reset, which answers what is still being sent, may overtake a response.
        assert answer.startswith(status) or (unit and not answer)
        # Others are served meanwhile and afterwards.
        assert (await exchange(port, b"GET /healthz HTTP/1.0\r\n\r\n")).endswith(b"hello")


async def test_a_body_in_time_is_read() -> None:
    """Its parts may take longer than one deadline apart from the head."""
    async with running(WebTiming(body_s=2.0)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /hook HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\n")
        for unit in (b"ab", b"cd"):
            await asyncio.sleep(0.2)
            writer.write(unit)
        assert (await reader.read()).endswith(b"\r\n\r\n4")
        writer.close()


async def test_a_client_that_does_not_read_is_disconnected() -> None:
    async with running() as port:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)  # noqa: FBT003 - its only parameter
            await loop.sock_connect(client, ("127.0.0.1", port))
            await loop.sock_sendall(client, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(1)
            received = 0
            async with asyncio.timeout(10):
                try:
                    while part := await loop.sock_recv(client, 1 << 20):
                        received += len(part)
                except ConnectionError:
                    pass
        assert received < LARGE


async def test_a_client_that_reads_gets_a_large_response() -> None:
    async with running(WebTiming(response_s=10)) as port:
        answer = await exchange(port, b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert len(answer) > LARGE


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET /healthz", 200),
        ("HEAD /healthz", 200),
        ("POST /hook", 200),
        # The same path by another method is another route.
        ("POST /healthz", 401),
        ("GET /hook", 401),
        ("HEAD /hook", 401),
        # Methods that no route has.
        ("PUT /healthz", 401),
        ("OPTIONS /healthz", 401),
        ("TRACE /healthz", 401),
        ("BREW /healthz", 401),
        ("DELETE /hook", 401),
        # Other spellings are other paths, or lead to the same guarded route.
        ("GET //healthz", 401),
        ("GET /healthz/", 401),
        ("GET /healthz%2f", 401),
        ("GET /HEALTHZ", 401),
        ("GET /healthz/../llm/status", 401),
        ("GET /healthz/%2e%2e/llm/status", 401),
        ("GET /%2e/llm/status", 401),
        ("GET /./llm/status", 401),
        ("GET /llm%2fstatus", 401),
        ("GET /llm/%73tatus", 401),
        ("GET /llm/status;/healthz", 401),
        ("GET /llm/status?/healthz", 401),
        ("GET /llm/status#/healthz", 401),
        ("GET http://x/llm/status", 401),
        ("GET http://healthz/llm/status", 401),
        ("GET \\llm\\status", 401),
        ("OPTIONS *", 401),
    ],
)
async def test_openness_is_by_method_and_path(request_: str, status: int) -> None:
    async with running(WebTiming()) as port:
        answer = await exchange(port, f"{request_} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    # A target that is no path may be refused as malformed.
    expected = {status} if status == 200 else {status, 400}
    assert int(answer.split(b" ", 2)[1]) in expected
    assert answer.endswith(b"hello") is (request_ == "GET /healthz")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS"])
async def test_an_unknown_method_with_the_token_is_a_405(method: str) -> None:
    async with running(WebTiming()) as port:
        head = f"{method} /llm/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        assert (await exchange(port, head.encode())).startswith(b"HTTP/1.1 405")
