"""Transports to MCP servers, bounded in the size of a message and in their rate, since a server may send anything.

The SDK's own reader of a process joins and splits an endless line again and again on the event loop, and its reader of
a JSON body has no bound.
"""

import asyncio
import importlib
import logging
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httpx2

from core.config.tool_servers import ToolServer
from core.transport_errors import describe_connection_error

if TYPE_CHECKING:
    from anyio.abc import ByteReceiveStream, ByteSendStream, Process
    from mcp import Client
    from mcp.client import Transport
    from mcp.shared.message import SessionMessage

MESSAGE_COST = 1024
"""Bytes added to the size of each message: handling a short one costs as much CPU as this much text."""
ENDED = "its process ended or closed its output"
REQUEST_COST = 16 * 1024
"""Bytes charged for a request over HTTP, since streams that a server ends at once are opened again at once."""
_BAD_REQUEST = 400
_UNAUTHORIZED = frozenset({401, 403})
_NOT_FOUND = 404
_REFUSAL = "MCPError"
"""Class name of the SDK's error for a JSON-RPC error response; the class itself is imported late."""


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """Bounds of a server's messages.

    Args:
        message_bytes: maximum size of a message: a line of a process, a JSON body, an event.
        burst_bytes: read at any pace.
        bytes_per_s: read beyond those; a server that sends more waits.
        exit_s: time that a process has to end after its input was closed, and again after SIGTERM.
        http_s: timeout between two pieces of a response.
    """

    message_bytes: int = 4 * 1024 * 1024
    burst_bytes: int = 8 * 1024 * 1024
    bytes_per_s: float = 1024 * 1024
    exit_s: float = 2.0
    http_s: float = 60.0


class ServerFault(Exception):
    """A server broke off, or sent more than is read. The message is for operators and quotes no server."""


class ServerLink:
    """An open connection."""

    def __init__(self, client: "Client", http: "_HttpBounds") -> None:
        self.client = client
        self._http = http

    @property
    def is_forgotten(self) -> bool:
        """True if the server no longer knows the session, as after its restart."""
        return self._http.status == _NOT_FOUND


@asynccontextmanager
async def open_link(server: ToolServer, limits: TransportLimits) -> AsyncGenerator[ServerLink]:
    """Connects to a server; the end of the context closes the connection, and ends the server's process.

    Raises:
        ServerFault: the connection could not be opened, or broke meanwhile; alone or in an exception group.
    """
    await asyncio.to_thread(_import_sdk)
    from mcp import Client

    http = _HttpBounds(limits)
    try:
        async with AsyncExitStack() as stack:
            if server.url is not None:
                transport = await http.open(stack, server.url, server.headers)
            else:
                transport = _open_process(server, limits)
            yield ServerLink(await stack.enter_async_context(Client(transport)), http)
    except (Exception, BaseExceptionGroup) as error:
        if http.status is not None and any(type(each).__name__ == _REFUSAL for each in _iter_leaves(error)):
            raise ServerFault(_describe_status(http.status)) from error
        raise


def describe_fault(error: BaseException) -> str:
    """Returns why a server is not available, in words of our own: those of a server may quote people and keys."""
    leaves = list(_iter_leaves(error))
    first = next((each for each in leaves if isinstance(each, ServerFault)), leaves[0])
    match first:
        case ServerFault():
            return str(first)
        case TimeoutError():
            return "it did not answer in time"
        case FileNotFoundError() | NotADirectoryError():
            return "its command or its folder was not found"
        case PermissionError():
            return "its command cannot be executed"
        case httpx2.TransportError() | httpx2.InvalidURL() | OSError():
            return describe_connection_error(first)
        case _ if type(first).__name__ == _REFUSAL:
            return "it refused to connect, or is no MCP server"
        case _:
            return f"it answered with something that cannot be read ({type(first).__name__})"


class _Pace:
    """Delays the reader of a server that sends faster than `TransportLimits` admits."""

    def __init__(self, limits: TransportLimits) -> None:
        self._limits = limits
        self._level = 0.0
        self._at = 0.0

    async def take(self, cost: int) -> None:
        """Waits until so many bytes may be handled."""
        limits, now = self._limits, asyncio.get_running_loop().time()
        self._level = max(self._level - (now - self._at) * limits.bytes_per_s, 0.0) + cost
        self._at = now
        if self._level > limits.burst_bytes:
            await asyncio.sleep((self._level - limits.burst_bytes) / limits.bytes_per_s)


class _HttpBounds:
    """Hooks of an HTTP client that bound the bodies of responses."""

    def __init__(self, limits: TransportLimits) -> None:
        self._limits = limits
        self._pace = _Pace(limits)
        self.status: int | None = None

    async def open(self, stack: AsyncExitStack, url: str, headers: Mapping[str, str]) -> "Transport":
        """Returns the transport to a server."""
        from mcp.client.streamable_http import streamable_http_client

        # Compressed bodies are refused, since a short one may become a long one.
        sent = {**headers, "Accept-Encoding": "identity"}
        hooks = {"request": [self._before], "response": [self._after]}
        client = httpx2.AsyncClient(headers=sent, timeout=self._limits.http_s, event_hooks=hooks)
        http = await stack.enter_async_context(client)
        return streamable_http_client(url, http_client=http, max_sse_event_size=self._limits.message_bytes)

    async def _before(self, request: httpx2.Request) -> None:
        del request
        await self._pace.take(REQUEST_COST)

    async def _after(self, response: httpx2.Response) -> None:
        if response.request.method == "POST":
            self.status = response.status_code if response.status_code >= _BAD_REQUEST else None
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise httpx2.DecodingError("compressed although that was not asked for")
        is_stream = "event-stream" in response.headers.get("content-type", "")
        # An asynchronous client has no other streams.
        body = cast("httpx2.AsyncByteStream", response.stream)
        response.stream = _BoundedBody(body, self._pace, None if is_stream else self._limits.message_bytes)


class _BoundedBody(httpx2.AsyncByteStream):
    """A body that ends with an error at its bound. The SDK bounds the events of a stream itself."""

    def __init__(self, body: httpx2.AsyncByteStream, pace: _Pace, most: int | None) -> None:
        self._body = body
        self._pace = pace
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for piece in self._body:
            received += len(piece)
            if self._most is not None and received > self._most:
                raise ServerFault("it sent a message that is too long")
            await self._pace.take(len(piece) + MESSAGE_COST * (piece.count(b"\n") // 2))
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()


@asynccontextmanager
async def _open_process(server: ToolServer, limits: TransportLimits) -> AsyncGenerator[Any]:
    """Starts a server, in a process group of its own, and exchanges lines of JSON with it."""
    import anyio
    from mcp.client.stdio import get_default_environment

    process = await anyio.open_process(
        [server.command or "", *server.arguments],
        env={**get_default_environment(), **server.environment},
        cwd=server.directory,
        # Its standard error may quote people.
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    # Any: messages of the SDK.
    received, incoming = anyio.create_memory_object_stream[Any](0)
    outgoing, sent = anyio.create_memory_object_stream[Any](0)

    async def read() -> None:
        pace = _Pace(limits)
        async for line in _read_lines(cast("ByteReceiveStream", process.stdout), limits.message_bytes):
            await pace.take(len(line) + MESSAGE_COST)
            await received.send(_parse(line))
        raise ServerFault(ENDED)

    async def write() -> None:
        stdin = cast("ByteSendStream", process.stdin)
        async for message in sent:
            line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            try:
                await stdin.send(f"{line}\n".encode())
            except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                raise ServerFault(ENDED) from None

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(write)
            yield incoming, outgoing
            tasks.cancel_scope.cancel()
    finally:
        for stream in (received, incoming, outgoing, sent):
            stream.close()
        await _finish(_end_process(process, limits.exit_s))


async def _read_lines(stream: "ByteReceiveStream", most: int) -> AsyncIterator[bytes]:
    buffer, looked_at = bytearray(), 0
    async for piece in stream:
        buffer += piece
        while (end := buffer.find(b"\n", looked_at)) >= 0:
            yield bytes(buffer[:end])
            del buffer[: end + 1]
            looked_at = 0
        looked_at = len(buffer)
        if looked_at > most:
            raise ServerFault("it sent a message that is too long")


def _parse(line: bytes) -> "SessionMessage | ValueError":
    from mcp.shared.message import SessionMessage
    from mcp.types import jsonrpc_message_adapter

    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        # The session passes over it. The original error quotes the line.
        return ValueError("not a message of the protocol")


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Finishes work despite cancellations, then propagates one: a process whose end is not awaited is left behind."""
    task, is_cancelled = asyncio.create_task(work, name="mcp end of a process"), False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError
    task.result()


async def _end_process(process: "Process", exit_s: float) -> None:
    """Closes the input of a process, which asks it to end, then ends it and its children."""
    import anyio

    if process.stdin is not None:
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.stdin.aclose()
    for number in (None, signal.SIGTERM):
        if number is not None:
            _signal_group(process.pid, number)
        # Not `wait`, which also waits for the pipes, and a child of the server may hold them.
        deadline = anyio.current_time() + exit_s
        while process.returncode is None and anyio.current_time() < deadline:  # noqa: ASYNC110 - no event tells it
            await anyio.sleep(0.01)
        if process.returncode is not None:
            break
    _signal_group(process.pid, signal.SIGKILL)
    await process.aclose()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _import_sdk() -> None:
    """Imports the SDK, which takes 0.9 s of CPU, in a thread when the first server is connected."""
    importlib.import_module("mcp.client.streamable_http")
    # Its records quote servers. The events of this package are those for operators.
    logger = logging.getLogger("mcp")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False


def _iter_leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _iter_leaves(each)
    else:
        yield error


def _describe_status(status: int) -> str:
    hint = ": it does not accept the headers of MCP_SERVERS" if status in _UNAUTHORIZED else ""
    return f"it answered with HTTP {status}{hint}"
