"""McpServers with real servers, over standard input and over HTTP: allow-list, bounds, reconnection."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.clock import Backoff, SystemClock
from core.config.tool_servers import ToolServer
from core.db.database import Database
from core.messages import ConversationKey, Surface
from services.mcp.calls import CallStatus, Decision, ToolCall, ToolCalls
from services.mcp.servers import McpLimits, McpServers
from services.mcp.tools import McpTools
from tests.support.clock import ManualClock, until

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]
RAW = ROOT / "tests/support/raw_mcp_server.py"
LIMITS = McpLimits(call_s=20, backoff=Backoff(0.05, 0.2), result=500)
START_S = 45.0
"""The server's process imports the SDK, which takes seconds on a busy machine."""


def stdio_server(file: Path, allowed: frozenset[str] | None = None) -> ToolServer:
    """A server that is started by a command."""
    arguments = ("-m", "tests.support.mcp_server", str(file))
    environment = {"NOTES_TOKEN": "a-secret-of-the-server"}
    return ToolServer("notes", sys.executable, arguments, environment, str(ROOT), allowed=allowed)


@asynccontextmanager
async def connected(servers: Sequence[ToolServer], number: int = 1) -> AsyncIterator[McpServers]:
    """Connects, and waits until that many servers answer."""
    opened = McpServers(servers, SystemClock(), LIMITS)
    opened.start()
    try:
        await until(lambda: opened.connected == number, START_S)
        yield opened
    finally:
        await opened.close()


@pytest.mark.timeout(180)
async def test_a_server_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its tools, its results and its end; a second server that cannot start disturbs nothing."""
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "1:not-for-servers")
    broken = ToolServer("broken", "/nonexistent/program")
    allowed = frozenset({"read_lines", "append_line", "variables", "long_text", "fail", "die"})
    with capture_logs() as logs:
        async with connected([broken, stdio_server(tmp_path / "lines", allowed)]) as servers:
            assert {tool.name: tool.is_acting for tool in servers.tools()} == {
                name: name == "append_line" for name in allowed
            }
            assert await servers.call("notes", "append_line", {"line": "tea"}) == "appended tea"
            assert await servers.call("notes", "read_lines", {}) == "tea\n"
            # Nothing of the bot's environment is handed over.
            names = (await servers.call("notes", "variables", {})).split()
            assert "NOTES_TOKEN" in names
            assert "TELEGRAM_BOT_TOKEN" not in names
            assert len(await servers.call("notes", "long_text", {})) < 600
            assert "The tool reports an error:" in await servers.call("notes", "fail", {})
            assert "nothing was done" in await servers.call("broken", "anything", {})
            lost = await servers.call("notes", "die", {})
            assert "It is unknown whether the call had an effect." in lost
            await until(lambda: servers.connected == 0, START_S)
            await until(lambda: servers.connected == 1, START_S)
            assert await servers.call("notes", "read_lines", {}) == "tea\n"
    assert {entry["server"] for entry in logs if entry["event"] == "mcp.unavailable"} == {"broken", "notes"}
    assert "a-secret-of-the-server" not in repr(logs)
    assert "no such page" not in repr(logs)
    assert "a word on standard" not in caplog.text


async def test_a_call_that_was_allowed_before_a_restart_waits_for_its_server(
    tmp_path: Path, file: Database, clock: ManualClock
) -> None:
    """The process begins to connect, and takes up the job at once; tools that are not allowed are not offered."""
    calls, key = ToolCalls(file, clock), ConversationKey(Surface.TELEGRAM, 7)
    server = ToolServer(
        "raw", sys.executable, (str(RAW), str(tmp_path / "lines")), allowed=frozenset({"append_line", "resource"})
    )

    async def allowed(tool: str, line: str) -> ToolCall:
        call, _ = await calls.open(line, key, 7, "raw", tool, {"line": line}, CallStatus.ASKED)
        assert await calls.decide(call, Decision.ONCE)
        found = await calls.find(call.id)
        assert found is not None
        return found

    servers = McpServers([server], SystemClock(), replace(LIMITS, resume_s=START_S))
    servers.start()
    try:
        assert servers.connected == 0
        tools = McpTools(servers, calls)
        await tools.carry_out(await allowed("append_line", "tea"))
        assert (tmp_path / "lines").read_text().split() == ["tea"]
        # The operator has taken it from the list meanwhile.
        assert "nothing was done" in await tools.carry_out(await allowed("huge", "x"))
    finally:
        await servers.close()


@pytest.mark.timeout(180)
async def test_a_server_over_http(tmp_path: Path) -> None:
    """With an allow-list of one tool."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fd = listening.fileno()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.mcp_server", str(tmp_path / "lines"), str(fd), cwd=ROOT, pass_fds=[fd]
        )
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        try:
            only = ToolServer(
                "notes", url=url, headers={"Authorization": "Bearer key"}, allowed=frozenset({"variables"})
            )
            assert not only.is_remote
            async with connected([only]) as servers:
                assert [tool.name for tool in servers.tools()] == ["variables"]
                assert "PATH" in await servers.call("notes", "variables", {})
                # Its end refuses connections, as that of a server without a supervisor does.
                listening.close()
                process.kill()
                await process.wait()
                answer = await servers.call("notes", "variables", {})
                assert "unknown whether" in answer or "nothing was done" in answer
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
