"""WebServer: bearer token, body limit, failing handlers, malformed requests, bind errors."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web
from pydantic import SecretStr

from bot.composition import web_server as composition
from bot.web.server import BODY_LIMIT, HttpRoute, WebServer
from core.config.settings import RESERVED_PATHS
from core.errors import StartupError
from tests.support.console_harness import running_console
from tests.support.web_client import WebClient

pytestmark = pytest.mark.integration

BEARER_TOKEN = "a-long-random-word"


async def _hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _size(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


async def _broken(_request: web.Request) -> web.Response:
    raise ValueError("the reason is private")


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"more" * 1000)
        await asyncio.sleep(0)


ROUTES = (
    HttpRoute("GET", "/endless", _endless, is_guarded=False),
    HttpRoute("GET", "/open", _hello, is_guarded=False),
    HttpRoute("GET", "/guarded", _hello),
    HttpRoute("POST", "/hook", _size, is_guarded=False),
    HttpRoute("POST", "/command", _size),
    HttpRoute("GET", "/broken", _broken, is_guarded=False),
)


async def test_cancelled_start_leaves_no_open_port(monkeypatch: pytest.MonkeyPatch) -> None:
    server, is_listening = WebServer(host="127.0.0.1", port=0, token=None, routes=ROUTES), asyncio.Event()
    start = web.TCPSite.start

    async def start_and_wait(site: web.TCPSite) -> None:
        await start(site)
        is_listening.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(web.TCPSite, "start", start_and_wait)
    starting = asyncio.create_task(server.start())
    await is_listening.wait()
    port = server._runner.addresses[0][1]
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@asynccontextmanager
async def running_server(token: str | None = BEARER_TOKEN) -> AsyncIterator[WebClient]:
    server = WebServer(host="127.0.0.1", port=0, token=SecretStr(token) if token else None, routes=ROUTES)
    await server.start()
    try:
        yield WebClient(server.port)
    finally:
        await server.close()


@pytest.mark.parametrize(
    ("token", "method", "path", "shown", "status"),
    [
        (BEARER_TOKEN, "GET", "/open", None, 200),
        (BEARER_TOKEN, "HEAD", "/open", None, 200),
        (BEARER_TOKEN, "GET", "/guarded", None, 401),
        (BEARER_TOKEN, "HEAD", "/guarded", None, 401),
        (BEARER_TOKEN, "GET", "/guarded", BEARER_TOKEN, 200),
        (BEARER_TOKEN, "GET", "/guarded", "a-long-random-wort", 401),
        (BEARER_TOKEN, "GET", "/%67uarded", None, 401),  # the same path, percent-encoded
        (BEARER_TOKEN, "GET", "/open/../guarded", None, 401),  # which the client resolves
        (BEARER_TOKEN, "GET", "/open/", None, 401),  # not the same path
        (BEARER_TOKEN, "POST", "/hook", None, 200),  # open: checks its caller itself
        (BEARER_TOKEN, "POST", "/command", None, 401),
        (BEARER_TOKEN, "POST", "/command", BEARER_TOKEN, 200),
        (BEARER_TOKEN, "POST", "/open", None, 401),  # another method is not open
        (BEARER_TOKEN, "GET", "/nowhere", None, 401),
        (BEARER_TOKEN, "GET", "/nowhere", BEARER_TOKEN, 404),
        (None, "GET", "/open", None, 200),
        (None, "GET", "/guarded", BEARER_TOKEN, 403),
        (None, "POST", "/hook", None, 200),
    ],
)
async def test_guarded_routes_require_the_token(
    token: str | None, method: str, path: str, shown: str | None, status: int
) -> None:
    async with running_server(token) as client:
        page = await client.get(path, token=shown, method=method)
    assert page.status == status
    assert "Server" not in page.headers


@pytest.mark.parametrize(
    "shown", [f"Basic {BEARER_TOKEN}", BEARER_TOKEN, f"Bearer x {BEARER_TOKEN}", "Bearer \xff", "Bearer", ""]
)
async def test_other_authorization_schemes_are_rejected(shown: str) -> None:
    """The token without `Bearer`, behind another scheme, or in bytes that are no text is rejected."""
    async with running_server() as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
        request = f"GET /guarded HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {shown}\r\n\r\n"
        writer.write(request.encode("latin-1"))
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 401")


async def test_a_body_over_the_limit_is_rejected() -> None:
    async with running_server() as client:
        assert (await client.get("/hook", method="POST", data=b"x" * (BODY_LIMIT - 1))).text == str(BODY_LIMIT - 1)
        assert (await client.get("/hook", method="POST", data=b"x" * (BODY_LIMIT + 1))).status == 413


async def test_a_failing_handler_is_logged_and_hidden_from_the_client() -> None:
    with structlog.testing.capture_logs() as logs:
        async with running_server() as client:
            page = await client.get("/broken?word=a-secret")
    assert page.status == 500
    assert "the reason is private" not in page.text
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
async def test_a_malformed_request_is_not_quoted_in_the_log(request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "bot.web.protocol")
    with structlog.testing.capture_logs() as logs:
        async with running_server() as client:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
            writer.write(request_)
            assert (await reader.read()).startswith(b"HTTP/1.0 400")
            writer.close()
    assert [entry["event"] for entry in logs].count("web.bad_request") == 1
    assert "A-SECRET" not in json.dumps(logs, default=str) + caplog.text


async def test_a_client_that_hangs_up_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with structlog.testing.capture_logs() as logs:
        async with running_server() as client:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
            writer.write(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await reader.read(100)
            writer.transport.abort()
            async with asyncio.timeout(10):
                while "web.client_gone" not in [entry["event"] for entry in logs]:
                    await asyncio.sleep(0.01)
    assert not caplog.records


@pytest.mark.parametrize(
    ("host", "begins"),
    [
        ("203.0.113.7", "WEB_HOST: 203.0.113.7 cannot be listened on"),  # another machine's (RFC 5737)
        ("no-such-host.invalid", "WEB_HOST: no-such-host.invalid cannot be listened on"),
    ],
)
async def test_a_host_that_cannot_be_bound_is_reported_in_one_line(host: str, begins: str) -> None:
    server = WebServer(host=host, port=8080, token=None, routes=ROUTES)
    with pytest.raises(StartupError) as error:
        await server.start()
    assert str(error.value).startswith(begins)
    assert "\n" not in str(error.value)


async def test_routes_that_accept_post_are_in_reserved_sections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings refuse a webhook there."""
    routes: list[HttpRoute] = []

    def create(**arguments: Any) -> WebServer:
        routes.extend(arguments["routes"])
        return WebServer(**arguments)

    monkeypatch.setattr(composition, "WebServer", create)
    capabilities = dict.fromkeys(("EMBEDDING_PROVIDERS", "VOICE_PROVIDERS"), '{"alpha": ["m"]}')
    async with running_console(tmp_path, **capabilities):
        paths = {route.path for route in routes if route.method in {"POST", "*"}}
    assert {"/v1/embeddings", "/battleground/vote", "/console/sign-in"} <= paths
    assert [path for path in sorted(paths) if not path.startswith(RESERVED_PATHS)] == []
