"""The server by itself: who is let in, how much may be sent, what a handler's failure shows."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
from aiohttp import web
from pydantic import SecretStr

from bot.web.server import BODY_LIMIT, Route, WebServer
from core.errors import StartupError
from tests.support.web_client import WebClient

WORD = "a-long-random-word"


async def _hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _size(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


async def _broken(_request: web.Request) -> web.Response:
    raise ValueError("the reason is nobody's business")


ROUTES = (
    Route("GET", "/open", _hello, guarded=False),
    Route("GET", "/guarded", _hello),
    Route("POST", "/hook", _size, guarded=False),
    Route("POST", "/command", _size),
    Route("GET", "/broken", _broken, guarded=False),
)


@asynccontextmanager
async def served(token: str | None = WORD) -> AsyncIterator[WebClient]:
    side = WebServer(host="127.0.0.1", port=0, token=SecretStr(token) if token else None, routes=ROUTES)
    await side.start()
    try:
        yield WebClient(side.port)
    finally:
        await side.close()


@pytest.mark.parametrize(
    ("token", "method", "path", "shown", "status"),
    [
        (WORD, "GET", "/open", None, 200),
        (WORD, "HEAD", "/open", None, 200),
        (WORD, "GET", "/guarded", None, 401),
        (WORD, "HEAD", "/guarded", None, 401),
        (WORD, "GET", "/guarded", WORD, 200),
        (WORD, "GET", "/guarded", "a-long-random-wort", 401),
        (WORD, "GET", "/%67uarded", None, 401),  # the same path in another writing
        (WORD, "GET", "/open/../guarded", None, 401),  # which the client resolves
        (WORD, "GET", "/open/", None, 401),  # not the same path
        (WORD, "POST", "/hook", None, 200),  # keeps its own door
        (WORD, "POST", "/command", None, 401),
        (WORD, "POST", "/command", WORD, 200),
        (WORD, "POST", "/open", None, 401),  # another method is not open
        (WORD, "GET", "/nowhere", None, 401),
        (WORD, "GET", "/nowhere", WORD, 404),
        (None, "GET", "/open", None, 200),
        (None, "GET", "/guarded", WORD, 403),
        (None, "POST", "/hook", None, 200),
    ],
)
async def test_who_is_let_in(token: str | None, method: str, path: str, shown: str | None, status: int) -> None:
    async with served(token) as client:
        page = await client.get(path, token=shown, method=method)
    assert page.status == status
    assert "Server" not in page.headers


@pytest.mark.parametrize("shown", [f"Basic {WORD}", WORD, f"Bearer x {WORD}", "Bearer \xff", "Bearer", ""])
async def test_another_scheme_is_none(shown: str) -> None:
    """The token alone, or behind another word, does not open anything, nor do bytes that are no text."""
    async with served() as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
        request = f"GET /guarded HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {shown}\r\n\r\n"
        writer.write(request.encode("latin-1"))
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 401")


async def test_a_body_is_bounded() -> None:
    async with served() as client:
        assert (await client.get("/hook", method="POST", data=b"x" * (BODY_LIMIT - 1))).text == str(BODY_LIMIT - 1)
        assert (await client.get("/hook", method="POST", data=b"x" * (BODY_LIMIT + 1))).status == 413


async def test_a_handler_that_fails_is_told_to_the_operator_alone() -> None:
    with structlog.testing.capture_logs() as logs:
        async with served() as client:
            page = await client.get("/broken?word=a-secret")
    assert page.status == 500
    assert "nobody's business" not in page.text
    (event,) = [entry for entry in logs if entry["event"] == "web.failed"]
    assert event["exc_info"]
    assert "a-secret" not in json.dumps(event, default=str)


@pytest.mark.parametrize(
    "request_",
    [
        b"A-SECRET\r\n\r\n",
        b"GET /open HTTP/1.1\r\nHost: x\r\nAuthorization A-SECRET\r\n\r\n",
        b"GET /open?A-SECRET" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["no request", "no header", "too long"],
)
async def test_what_is_no_request_is_not_quoted_in_the_log(request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "bot.web.protocol")
    with structlog.testing.capture_logs() as logs:
        async with served() as client:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
            writer.write(request_)
            assert (await reader.read()).startswith(b"HTTP/1.0 400")
            writer.close()
    assert [entry["event"] for entry in logs].count("web.unreadable") == 1
    assert "A-SECRET" not in json.dumps(logs, default=str) + caplog.text


@pytest.mark.parametrize(
    ("host", "begins"),
    [
        ("203.0.113.7", "WEB_HOST: 203.0.113.7 cannot be listened on"),  # another machine's (RFC 5737)
        ("no-such-host.invalid", "WEB_HOST: no-such-host.invalid cannot be listened on"),
    ],
)
async def test_a_host_that_is_not_ours_is_one_line(host: str, begins: str) -> None:
    side = WebServer(host=host, port=8080, token=None, routes=ROUTES)
    with pytest.raises(StartupError) as error:
        await side.start()
    assert str(error.value).startswith(begins)
    assert "\n" not in str(error.value)
