"""Connections to MCP servers: each in a task of its own that reconnects, so that a dead server fails no turn."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import ValidationError

from core.background import BackgroundTasks, cancel_and_wait, wait_first
from core.clock import Backoff, Clock
from core.config.tool_servers import ToolServer
from core.shortening import shorten_line
from services.mcp.schemas import find_schema_fault
from services.mcp.transports import ServerLink, TransportLimits, describe_fault, open_link

if TYPE_CHECKING:
    from mcp.types import CallToolResult, Tool

log = structlog.get_logger()

LONGEST_NAME = 256
"""Characters of a tool's name, as the table of permissions stores it."""
LONGEST_SHOWN_NAME = 40


@dataclass(frozen=True, slots=True)
class McpLimits:
    """Limits of connections and of messages from servers.

    Args:
        connect_s: timeout for connecting and listing the tools.
        call_s: timeout of a call.
        resume_s: time that a call allowed before a restart waits for its server.
        check_s: interval of health checks, which also refresh the list of tools; a connection that lasted this long
            resets `backoff`.
        backoff: delays between connection attempts.
        tools: number of tools per server; further ones are ignored.
        schema: maximum characters of a tool's schema; a tool that exceeds it is ignored.
        description: characters kept of a tool's description.
        result: characters of a result passed to the model.
        transport: limits of messages from the server.
    """

    connect_s: float = 30.0
    call_s: float = 60.0
    resume_s: float = 15.0
    check_s: float = 30.0
    backoff: Backoff = Backoff(first_s=1.0, longest_s=60.0)
    tools: int = 64
    schema: int = 8_000
    description: int = 1_000
    result: int = 16_000
    transport: TransportLimits = field(default_factory=TransportLimits)


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


@dataclass(frozen=True, slots=True)
class ServerTrial:
    """The result of a trial connection.

    Args:
        tools: those that may be used.
        missing: names that the operator allows and the server does not offer.
        left_out: tools that are allowed but cannot be used, with the reason.
        fault: why there was no connection.
        took_s: time to connect and to list the tools.
    """

    tools: Sequence[ServerTool] = ()
    missing: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    fault: str | None = None
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Listing:
    tools: Sequence[ServerTool]
    offered: frozenset[str]
    left_out: Mapping[str, str]


@dataclass(slots=True)
class _Connection:
    link: ServerLink
    listing: _Listing
    is_lost: asyncio.Event = field(default_factory=asyncio.Event)


class McpServers:
    """Keeps the configured servers connected."""

    def __init__(self, servers: Sequence[ToolServer], clock: Clock, limits: McpLimits | None = None) -> None:
        self._servers = servers
        self._clock = clock
        self._limits = limits or McpLimits()
        self._connections: dict[str, _Connection] = {}
        self._is_connected = {server.name: asyncio.Event() for server in servers}
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
        return [tool for connection in self._connections.values() for tool in connection.listing.tools]

    async def try_server(self, server: ToolServer) -> ServerTrial:
        """Connects to a server, lists its tools and closes the connection."""
        began = self._clock.monotonic()
        try:
            async with self._connect(server) as connection:
                listing, took_s = connection.listing, self._clock.monotonic() - began
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - whatever a server causes is its fault
            _propagate_cancellation(error)
            return ServerTrial(fault=describe_fault(error), took_s=self._clock.monotonic() - began)
        missing = sorted((server.allowed or frozenset()) - listing.offered)
        return ServerTrial(listing.tools, missing, listing.left_out, took_s=took_s)

    async def wait_for(self, server: str) -> None:
        """Waits until a server is connected, `resume_s` at most: after a restart it may be connecting, or dead."""
        if server in self._is_connected:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.resume_s):
                    await self._is_connected[server].wait()

    async def call(self, server: str, tool: str, arguments: dict[str, Any]) -> str:
        """Calls a tool. Returns its result, or why there is none, as text for the model."""
        connection = self._connections.get(server)
        if connection is None:
            return f"The server {server} is not connected just now, so nothing was done."
        if all(each.name != tool for each in connection.listing.tools):
            return f"The tool {tool} of the server {server} is no longer offered, so nothing was done."
        try:
            async with asyncio.timeout(self._limits.call_s):
                result = await _call(connection.link, tool, arguments)
        except TimeoutError:
            log.warning("mcp.call_timed_out", server=server, tool=tool)
            return f"The server {server} did not answer in time. It is unknown whether the call had an effect."
        except Exception as error:  # noqa: BLE001 - a server must not end the turn, whatever it answers
            return self._explain(connection, server, tool, error)
        return self._to_text(result)

    def _explain(self, connection: _Connection, server: str, tool: str, error: Exception) -> str:
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED

        log.warning("mcp.call_failed", server=server, tool=tool, error=type(error).__name__)
        if isinstance(error, MCPError) and connection.link.is_forgotten:
            connection.is_lost.set()
            return (
                f"The server {server} was started anew, so nothing was done. The tool can be called again in a minute."
            )
        if isinstance(error, MCPError) and error.code != CONNECTION_CLOSED:
            return self._cut(f"The server {server} refused the call: {error.message}")
        if isinstance(error, ValidationError):
            return (
                f"The server {server} answered with something that cannot be read. It is unknown whether the call had "
                "an effect."
            )
        connection.is_lost.set()
        return f"The connection to the server {server} was lost. It is unknown whether the call had an effect."

    def _to_text(self, result: "CallToolResult") -> str:
        pieces: list[str] = []
        for block in result.content:
            match block.type:
                case "text":
                    pieces.append(block.text)
                case "resource" if (text := getattr(block.resource, "text", None)) is not None:
                    pieces.append(str(text))
                case "resource_link":
                    pieces.append(f"[a resource at {block.uri}]")
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
            began = self._clock.monotonic()
            try:
                async with self._connect(server) as connection:
                    log.info("mcp.connected", server=server.name, tools=len(connection.listing.tools))
                    self._connections[server.name] = connection
                    self._is_connected[server.name].set()
                    try:
                        await self._watch(server, connection)
                    finally:
                        del self._connections[server.name]
                        self._is_connected[server.name].clear()
                reason = "the connection was lost"
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - whatever a server causes is its fault
                _propagate_cancellation(error)
                reason = describe_fault(error)
            # A server that connects and breaks off at once is no healthier than one that does not connect.
            failures = 1 if self._clock.monotonic() - began > self._limits.check_s else failures + 1
            pause_s = self._limits.backoff.pause_s(failures)
            log.warning("mcp.unavailable", server=server.name, reason=reason, pause_s=pause_s)
            await self._clock.sleep(pause_s)

    @asynccontextmanager
    async def _connect(self, server: ToolServer) -> AsyncGenerator[_Connection]:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(self._limits.connect_s):
                link = await stack.enter_async_context(open_link(server, self._limits.transport))
                listing = await self._list_tools(server, link)
            yield _Connection(link, listing)

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
                    connection.listing = await self._list_tools(server, connection.link)

    async def _list_tools(self, server: ToolServer, link: ServerLink) -> _Listing:
        found: list[Tool] = []
        cursor: str | None = None
        # At most as many pages as tools: a server may page without end.
        for _ in range(self._limits.tools):
            page = await link.client.list_tools(cursor=cursor, cache_mode="refresh")
            found += [tool for tool in page.tools if server.allowed is None or tool.name in server.allowed]
            cursor = page.next_cursor
            if cursor is None or len(found) >= self._limits.tools:
                break
        return await asyncio.to_thread(self._select_tools, server, found[: self._limits.tools])

    def _select_tools(self, server: ToolServer, found: "Sequence[Tool]") -> _Listing:
        usable: list[ServerTool] = []
        left_out: dict[str, str] = {}
        for tool in found:
            schema = json.dumps(tool.input_schema)
            fault = "its schema is too long" if len(schema) > self._limits.schema else find_schema_fault(schema)
            if len(tool.name) > LONGEST_NAME or not tool.name.isprintable():
                fault = "its name is not usable"
            if fault is not None:
                log.warning("mcp.tool_left_out", server=server.name, reason=fault)
                left_out[shorten_line(tool.name, LONGEST_SHOWN_NAME)] = fault
                continue
            is_read_only = tool.annotations is not None and tool.annotations.read_only_hint is True
            description = (tool.description or "")[: self._limits.description]
            usable.append(ServerTool(server, tool.name, description, tool.input_schema, is_acting=not is_read_only))
        return _Listing(usable, frozenset(tool.name for tool in found), left_out)


def _propagate_cancellation(error: BaseException) -> None:
    """Raises the cancellation of the current task, which an error at the end of a connection may have replaced."""
    if (task := asyncio.current_task()) is not None and task.cancelling():
        raise asyncio.CancelledError from error


async def _call(link: ServerLink, tool: str, arguments: dict[str, Any]) -> "CallToolResult":
    """Calls a tool without the SDK's check of the result by the server's own schema.

    That check runs the server's regular expressions on the event loop, which a server can make last for hours.
    """
    from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult

    request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
    return await link.client.session.send_request(request, CallToolResult)
