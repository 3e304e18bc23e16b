"""McpServers with servers that misbehave: too much, nothing, nonsense, schemas that would end each turn."""

import asyncio
import gzip
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from core.clock import Backoff, SystemClock
from core.config.tool_servers import ToolServer
from services.mcp.servers import McpLimits, McpServers
from services.mcp.transports import TransportLimits
from tests.support import raw_mcp_server
from tests.support.clock import until

pytestmark = pytest.mark.integration
SCRIPT = Path(raw_mcp_server.__file__)
MIB = 2**20
LIMITS = McpLimits(
    call_s=30, backoff=Backoff(0.05, 0.2), transport=TransportLimits(message_bytes=MIB, burst_bytes=2 * MIB, exit_s=0.2)
)
MOST_SENT = 64 * MIB
"""Bytes in flight when the reader has stopped, at most: its bound and the buffers of pipes or of both sockets."""


def raw_server(file: Path, listing: str = "") -> ToolServer:
    """A server that is started by a command."""
    return ToolServer("raw", sys.executable, (str(SCRIPT), str(file), listing))


@asynccontextmanager
async def connected(server: ToolServer, limits: McpLimits = LIMITS) -> AsyncGenerator[McpServers]:
    """Connects to a server."""
    servers = McpServers([server], SystemClock(), limits)
    servers.start()
    try:
        await until(lambda: servers.connected == 1, 30)
        yield servers
    finally:
        await servers.close()


class RawWebServer:
    """The same server over HTTP, as JSON bodies or as event streams."""

    def __init__(self, file: Path, *, is_stream: bool = False, status: int = 0) -> None:
        self.sent = 0
        self.end = asyncio.Event()
        self._file = file
        self._kind = "text/event-stream" if is_stream else "application/json"
        self._status = status

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        if request.method != "POST" or self._status:
            return web.Response(status=self._status or 405, text="the words of a server")
        message = await request.json()
        match (message.get("params") or {}).get("name"):
            case "huge":
                return await self._send_much(request, {}, b"x" * 2**16)
            case "flood":
                return await self._send_much(request, {"Content-Encoding": "gzip"}, gzip.compress(b"x" * MIB))
            case "hang_up":
                assert request.transport is not None
                request.transport.close()
            case "silent":
                await self.end.wait()
        reply = raw_mcp_server.reply(message, self._file, "")
        if reply is None:
            return web.Response(status=202)
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply})
        text = f"data: {body}\n\n" if "event" in self._kind else body
        return web.Response(text=text, content_type=self._kind)

    async def _send_much(self, request: web.Request, head: dict[str, str], piece: bytes) -> web.StreamResponse:
        self.sent = 0
        response = web.StreamResponse(headers={"Content-Type": self._kind, **head})
        await response.prepare(request)
        while self.sent < raw_mcp_server.HUGE and request.transport is not None:
            await response.write(piece)
            self.sent += len(piece)
        return response


@asynccontextmanager
async def served(server: RawWebServer) -> AsyncGenerator[ToolServer]:
    """Listens on loopback."""
    app = web.Application()
    app.router.add_route("*", "/mcp", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield ToolServer("raw", url=f"http://127.0.0.1:{runner.addresses[0][1]}/mcp")
    finally:
        server.end.set()
        await runner.cleanup()


def sent_bytes(file: Path) -> int:
    """Bytes that the server has written so far."""
    return int(file.read_text() or 0) if file.exists() else 0


async def test_a_process_that_sends_too_much_is_ended(tmp_path: Path) -> None:
    """200 MB in one line: most of it is never read, and the next connection works."""
    with capture_logs() as logs:
        async with connected(raw_server(tmp_path / "sent")) as servers:
            assert "It is unknown whether" in await servers.call("raw", "huge", {})
            await until(lambda: servers.connected == 0, 30)
            assert sent_bytes(tmp_path / "sent") < 4 * MIB
            await until(lambda: servers.connected == 1, 30)
            assert await servers.call("raw", "append_line", {"line": "tea"}) == "appended tea"
    reasons = [entry["reason"] for entry in logs if entry["event"] == "mcp.unavailable"]
    assert reasons == ["it sent a message that is too long"]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_body_that_is_too_long_is_not_read(tmp_path: Path, is_stream: bool) -> None:
    """A compressed body is not read either."""
    web_server = RawWebServer(tmp_path / "lines", is_stream=is_stream)
    async with served(web_server) as server, connected(server) as servers:
        for tool in ("huge", "flood"):
            await until(lambda: servers.connected == 1, 30)
            answer = await servers.call("raw", tool, {})
            assert "It is unknown whether" in answer, tool
            assert 0 < web_server.sent < MOST_SENT
        await until(lambda: servers.connected == 1, 30)
        assert await servers.call("raw", "append_line", {"line": "tea"}) == "appended tea"


async def test_a_flood_of_messages_is_read_slowly(tmp_path: Path) -> None:
    """The process waits for its reader, and other work of the loop goes on."""
    file = tmp_path / "sent"
    limits = McpLimits(call_s=1, transport=TransportLimits(burst_bytes=256 * 1024, bytes_per_s=100_000, exit_s=0.2))
    async with connected(raw_server(file), limits) as servers:
        assert "did not answer in time" in await servers.call("raw", "flood", {})
        # The burst, a second at 50 messages, and the buffers of the pipe and the reader.
        assert sent_bytes(file) < 1_000


async def test_silent_and_vanishing_servers_are_told_apart(tmp_path: Path) -> None:
    limits = McpLimits(call_s=2, backoff=Backoff(0.05, 0.2), transport=LIMITS.transport)
    async with connected(raw_server(tmp_path / "lines"), limits) as servers:
        assert "did not answer in time" in await servers.call("raw", "silent", {})
        assert await servers.call("raw", "append_line", {"line": "tea"}) == "appended tea"
        lost = await servers.call("raw", "hang_up", {})
        assert lost == "The connection to the server raw was lost. It is unknown whether the call had an effect."
        # Found at once, and not by the next look at the server.
        await until(lambda: servers.connected == 0, 30)
        assert "nothing was done" in await servers.call("raw", "append_line", {"line": "milk"})
        await until(lambda: servers.connected == 1, 30)
    async with served(RawWebServer(tmp_path / "lines")) as server, connected(server, limits) as servers:
        assert "did not answer in time" in await servers.call("raw", "silent", {})
        assert "It is unknown whether" in await servers.call("raw", "hang_up", {})
        await until(lambda: servers.connected == 0, 30)


async def test_nonsense_is_an_answer_and_no_end(tmp_path: Path) -> None:
    """Of a result in particular, the server's own pattern is not run: it would hold the loop for hours."""
    async with connected(raw_server(tmp_path / "lines")) as servers:
        assert "something that cannot be read" in await servers.call("raw", "nonsense", {})
        assert await servers.call("raw", "slow_check", {}) == "checked"
        assert await servers.call("raw", "resource", {}) == "the words of a resource"
        assert servers.connected == 1


async def test_tools_that_no_model_can_be_offered_are_left_out(tmp_path: Path) -> None:
    async with connected(raw_server(tmp_path / "lines", "strange")) as servers:
        assert [tool.name for tool in servers.tools()] == ["fine"]
    async with connected(raw_server(tmp_path / "lines", "endless")) as servers:
        assert len(servers.tools()) == LIMITS.tools


def running(word: str) -> bool:
    """Return whether a process has the word in its command."""
    return any(word.encode() in path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())


async def test_a_process_that_does_not_end_by_itself_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    # Longer than a second: then its end is cancelled once more.
    limits = McpLimits(transport=TransportLimits(exit_s=1.2))
    async with connected(raw_server(file, "stubborn"), limits) as servers:
        assert await servers.call("raw", "append_line", {"line": "tea"}) == "appended tea"
        assert await asyncio.to_thread(running, str(file))
    assert not await asyncio.to_thread(running, str(file))


async def test_a_trial_words_each_fault(tmp_path: Path) -> None:
    """No wording quotes the server."""
    (tmp_path / "text").write_text("no program")
    servers = McpServers([], SystemClock(), McpLimits(connect_s=60, transport=LIMITS.transport))
    faults = {
        "its command or its folder was not found": ToolServer("a", "/nonexistent/program"),
        "its command cannot be executed": ToolServer("a", str(tmp_path / "text")),
        "its process ended or closed its output": ToolServer("a", sys.executable, ("-c", "")),
        "it sent a message that is too long": ToolServer("a", sys.executable, ("-c", f"print('x' * {4 * MIB})")),
        "connection refused": ToolServer("a", url="http://127.0.0.1:1/mcp"),
    }
    for fault, server in faults.items():
        assert (await servers.try_server(server)).fault == fault
    quick = McpServers([], SystemClock(), McpLimits(connect_s=0.3, transport=LIMITS.transport))
    silent = ToolServer("a", sys.executable, ("-c", "input(); input()"))
    assert (await quick.try_server(silent)).fault == "it did not answer in time"
    async with served(RawWebServer(tmp_path / "lines", status=401)) as server:
        fault = (await servers.try_server(server)).fault
        assert fault == "it answered with HTTP 401: it does not accept the headers of MCP_SERVERS"
    found = await servers.try_server(
        ToolServer("a", sys.executable, (str(SCRIPT), "-", "strange"), allowed=frozenset({"fine", "deep", "gone"}))
    )
    assert [tool.name for tool in found.tools] == ["fine"]
    assert (found.missing, list(found.left_out), found.fault) == (["gone"], ["deep"], None)
