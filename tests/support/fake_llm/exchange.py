"""One request to the fake LLM server, and the ways to answer it."""

import asyncio
import json
import re
import socket
import struct
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.fake_llm.wire import Wire, WireError


@dataclass(slots=True)
class RecordedRequest:
    """A request as it arrived; header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    json: Any
    """The decoded body, `None` where there was none or it was not JSON."""
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client hung up before its answer was complete."""
    raw: bytes = b""
    """The body as it arrived."""

    @property
    def streamed(self) -> bool:
        return self.path.endswith(":streamGenerateContent") or bool(self.json and self.json.get("stream"))

    @property
    def model(self) -> str:
        """The model that was asked: from the body, for Azure and Google from the path."""
        in_path = re.search(r"/deployments/([^/]+)/|/models/([^/:]+):", self.path)
        return in_path[1] or in_path[2] if in_path else (self.json or {}).get("model", "")

    @property
    def bearer(self) -> str | None:
        """The key, from the header of this wire format."""
        authorization = self.headers.get("authorization", "")
        if authorization.lower().startswith("bearer "):
            return authorization[7:]
        return next(
            (self.headers[name] for name in ("x-api-key", "api-key", "x-goog-api-key") if name in self.headers), None
        )


class ClientGone(Exception):
    """The client closed the connection."""


class Exchange:
    """One request and the means to answer it, well or badly."""

    def __init__(
        self, request: RecordedRequest, wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.request = request
        self.wire = wire
        self.keep_alive = True
        self._reader = reader
        self._writer = writer

    async def head(
        self,
        status: int = 200,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        """Send the status line and headers; without a length the body follows in chunks."""
        lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {content_type}", "x-request-id: req_1"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def chunk(self, data: bytes) -> None:
        if data:
            await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def body(
        self,
        data: bytes | Mapping[str, Any],
        status: int = 200,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a whole plain response."""
        encoded = data if isinstance(data, bytes) else json.dumps(data).encode()
        await self.head(status, content_type, headers, len(encoded))
        await self.raw(encoded)

    async def half_body(self, data: Mapping[str, Any]) -> None:
        """Send the headers and the first half of a plain response."""
        encoded = json.dumps(data).encode()
        await self.head(length=len(encoded))
        await self.raw(encoded[: len(encoded) // 2])

    async def start_stream(self) -> None:
        await self.head(content_type="text/event-stream")

    async def fault(self, status: int, fault: WireError, headers: Mapping[str, str] | None = None) -> None:
        await self.body(self.wire.error_body(fault), status, headers=headers)

    async def wait(self, awaitable: Awaitable[object]) -> None:
        """Wait for something, but no longer than the client does."""
        waited = asyncio.ensure_future(awaitable)
        gone = asyncio.ensure_future(self._reader.read(1))
        try:
            done, _ = await asyncio.wait({waited, gone}, return_when=asyncio.FIRST_COMPLETED)
            if waited not in done:
                raise ClientGone
        finally:
            for task in (waited, gone):
                task.cancel()
            await asyncio.gather(waited, gone, return_exceptions=True)

    async def hang(self) -> None:
        """Send nothing until the client hangs up."""
        await self.wait(asyncio.Event().wait())

    def cut(self) -> None:
        """Close the connection cleanly, in the middle of the answer if need be."""
        self.keep_alive = False

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        self.keep_alive = False
