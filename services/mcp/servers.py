"""Connections to MCP servers: each in a task of its own that reconnects, so that a dead server fails no turn.

The SDK is imported when the first server is connected: it takes 0.9 s of CPU.
"""

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx2
import structlog
from pydantic import ValidationError

from core.background import BackgroundTasks, cancel_and_wait, wait_first
from core.clock import Backoff, Clock
from core.config.tool_servers import ToolServer

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult, Tool

log = structlog.get_logger()

LONGEST_NAME = 256
"""Characters of a tool's name, as the table of permissions stores it."""


@dataclass(frozen=True, slots=True)
class McpLimits:
    """Bounds of connections and of what servers send.

    Args:
        connect_s: of a connection with its list of tools.
        call_s: of a call.
        check_s: pause between two looks whether a server still answers, which also update its list of tools.
        backoff: pauses before a connection is tried again.
        tools: of a server; the rest is left out.
        schema: characters of a tool's schema; a tool with a longer one is left out.
        description: characters of a tool's description.
        result: characters of a result that the model is given.
    """

    connect_s: float = 30.0
    call_s: float = 60.0
    check_s: float = 30.0
    backoff: Backoff = Backoff(first_s=1.0, longest_s=60.0)
    tools: int = 64
    schema: int = 8_000
    description: int = 1_000
    result: int = 16_000


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool that a connected server offers and the operator allows.

    Args:
        is_acting: True unless the server calls it read-only.
    """

    server: ToolServer
    name: str
    description: str
    schema: dict[str, Any]
    is_acting: bool


@dataclass(slots=True)
class _Connection:
    client: "Client"
    tools: Sequence[ServerTool]
    is_lost: asyncio.Event = field(default_factory=asyncio.Event)


class McpServers:
    """Keeps the configured servers connected."""

    def __init__(self, servers: Sequence[ToolServer], clock: Clock, limits: McpLimits | None = None) -> None:
        self._servers = servers
        self._clock = clock
        self._limits = limits or McpLimits()
        self._connections: dict[str, _Connection] = {}
        self._tasks = BackgroundTasks()

    def start(self) -> None:
        """Begins to connect, without waiting."""
        for server in self._servers:
            self._tasks.start(self._keep_connected(server), f"mcp {server.name}")

    async def close(self) -> None:
        """Ends the connections and the processes of the servers."""
        await self._tasks.close()

    @property
    def connected(self) -> int:
        """Number of servers that are connected."""
        return len(self._connections)

    def tools(self) -> list[ServerTool]:
        """Returns the tools of the servers that are connected now."""
        return [tool for connection in self._connections.values() for tool in connection.tools]

    async def call(self, server: str, tool: str, arguments: dict[str, Any]) -> str:
        """Calls a tool. Returns its result, or why there is none, as text for the model."""
        connection = self._connections.get(server)
        if connection is None:
            return f"The server {server} is not connected just now, so nothing was done."
        try:
            async with asyncio.timeout(self._limits.call_s):
                result = await connection.client.call_tool(tool, arguments)
        except TimeoutError:
            log.warning("mcp.call_timed_out", server=server, tool=tool)
            return f"The server {server} did not answer in time. It is unknown whether the call had an effect."
        except Exception as error:  # noqa: BLE001 - a server must not end the turn, whatever it answers
            return self._explain(connection, server, tool, error)
        return self._to_text(result)

    def _explain(self, connection: _Connection, server: str, tool: str, error: Exception) -> str:
        from mcp import MCPError  # noqa: PLC0415 - loaded with the connection
        from mcp.types import CONNECTION_CLOSED  # noqa: PLC0415 - as above

        log.warning("mcp.call_failed", server=server, tool=tool, error=type(error).__name__)
        if isinstance(error, MCPError) and error.code != CONNECTION_CLOSED:
            return self._cut(f"The server {server} refused the call: {error.message}")
        if isinstance(error, ValidationError):
            return f"The server {server} answered with something that cannot be read."
        connection.is_lost.set()
        return f"The connection to the server {server} was lost. It is unknown whether the call had an effect."

    def _to_text(self, result: "CallToolResult") -> str:
        pieces: list[str] = []
        for block in result.content:
            match block.type:
                case "text":
                    pieces.append(block.text)
                case kind:
                    pieces.append(f"[{kind} that cannot be shown]")
        if not pieces and result.structured_content is not None:
            pieces.append(json.dumps(result.structured_content, ensure_ascii=False))
        text = self._cut("\n".join(pieces) or "(no output)")
        return f"The tool reports an error: {text}" if result.is_error else text

    def _cut(self, text: str) -> str:
        most = self._limits.result
        return text if len(text) <= most else f"{text[:most]}\n[The result goes on; this is its beginning.]"

    async def _keep_connected(self, server: ToolServer) -> None:
        failures = 0
        while True:
            try:
                async with self._connect(server) as connection:
                    failures = 0
                    await self._watch(server, connection)
                reason = "closed"
            except (Exception, BaseExceptionGroup) as error:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                reason = _describe(error)
            failures += 1
            pause_s = self._limits.backoff.pause_s(failures)
            log.warning("mcp.unavailable", server=server.name, reason=reason, pause_s=pause_s)
            await self._clock.sleep(pause_s)

    @asynccontextmanager
    async def _connect(self, server: ToolServer) -> AsyncGenerator[_Connection]:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(self._limits.connect_s):
                client = await _open(stack, server)
                connection = _Connection(client, await self._list_tools(server, client))
            self._connections[server.name] = connection
            log.info("mcp.connected", server=server.name, tools=len(connection.tools))
            try:
                yield connection
            finally:
                del self._connections[server.name]

    async def _watch(self, server: ToolServer, connection: _Connection) -> None:
        """Returns once a call has found the connection lost; raises where the server does not answer any more."""
        while not connection.is_lost.is_set():
            pause = asyncio.create_task(self._clock.sleep(self._limits.check_s), name="mcp check")
            try:
                await wait_first(connection.is_lost, pause)
            finally:
                await cancel_and_wait(pause)
            if not connection.is_lost.is_set():
                async with asyncio.timeout(self._limits.connect_s):
                    connection.tools = await self._list_tools(server, connection.client)

    async def _list_tools(self, server: ToolServer, client: "Client") -> list[ServerTool]:
        found: list[ServerTool] = []
        cursor: str | None = None
        # At most as many pages as tools: a server may page without end.
        for _ in range(self._limits.tools):
            page = await client.list_tools(cursor=cursor, cache_mode="refresh")
            found += [tool for each in page.tools if (tool := self._to_tool(server, each)) is not None]
            cursor = page.next_cursor
            if cursor is None or len(found) >= self._limits.tools:
                break
        return found[: self._limits.tools]

    def _to_tool(self, server: ToolServer, tool: "Tool") -> ServerTool | None:
        if server.allowed is not None and tool.name not in server.allowed:
            return None
        schema = tool.input_schema
        is_short = len(json.dumps(schema)) <= self._limits.schema and len(tool.name) <= LONGEST_NAME
        if not is_short or schema.get("type") != "object":
            log.warning("mcp.tool_left_out", server=server.name, reason="its name or its schema is not usable")
            return None
        is_read_only = tool.annotations is not None and tool.annotations.read_only_hint is True
        description = (tool.description or "")[: self._limits.description]
        return ServerTool(server, tool.name, description, schema, is_acting=not is_read_only)


async def _open(stack: AsyncExitStack, server: ToolServer) -> "Client":
    """Connects to a server; the stack closes the connection, and ends the server's process."""
    mcp = await asyncio.to_thread(_import_sdk)
    if server.url is not None:
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=dict(server.headers), timeout=60.0))
        transport = mcp.streamable_http(server.url, http_client=http)
    else:
        # Its standard error may quote people.
        silence = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))  # noqa: ASYNC230, SIM115 - no disk; the stack closes it
        parameters = mcp.stdio_parameters(
            command=server.command, args=list(server.arguments), env=dict(server.environment), cwd=server.directory
        )
        transport = mcp.stdio(parameters, silence)
    return await stack.enter_async_context(mcp.client(transport))


@dataclass(frozen=True, slots=True)
class _Sdk:
    """The parts of the SDK, which is imported late."""

    client: Any  # Any: classes and functions of a module that is imported late
    stdio: Any
    stdio_parameters: Any
    streamable_http: Any


def _import_sdk() -> _Sdk:
    from mcp import Client, StdioServerParameters, stdio_client  # noqa: PLC0415 - see the module
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415 - see the module

    # Its records quote what servers say. The events of this module tell what an operator needs.
    logger = logging.getLogger("mcp")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return _Sdk(Client, stdio_client, StdioServerParameters, streamable_http_client)


def _describe(error: BaseException) -> str:
    """Returns the kinds of an error, without messages, which may quote a server or a key."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return ", ".join(dict.fromkeys(_describe(each) for each in group.exceptions))
    return type(error).__name__
