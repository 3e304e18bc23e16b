"""Reads the bytes of a response: decompressed in bounded pieces, and text that arrives within a window as one piece.

The body's first bytes decide about its compression, not its head.

A read that waits for each piece costs a turn of the event loop, the waking of its task and the parsing of an HTTP chunk
per piece. Where text may be held, a protocol of its own takes the place of aiohttp's at the connection: it looks for an
end in each piece, and hands them all to aiohttp's together.
"""

import asyncio
import re
import sys
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx2

from services.llm.providers.wire.event_stream import PIECE_BYTES, split_bytes

if TYPE_CHECKING:
    import aiohttp

_NO_CODINGS = frozenset({"", "identity", "none", "binary", "chunked", "utf-8", "utf8"})
"""Values of `Content-Encoding` that servers send with a body that is not compressed."""
_GZIP_MAGIC = b"\x1f\x8b"
_PLAIN = re.compile(rb'\s*(?:[{\[]\s*["{\[]|data\s*:|event\s*:|: |<!|<html)', re.IGNORECASE)
"""First bytes of a body that is not compressed, although its head may say so."""
GATHERED_BYTES = 16 << 10
"""Bytes that end a window early: far more than a model writes in it."""
NOT_TEXT = re.compile(
    rb'"(?:finish_?[rR]eason|stop_reason|refusal)"\s*:\s*"|"(?:usage|tool_calls|function_call)"\s*:\s*[{\[]'
    rb'|"(?:error|functionCall|tool_use|input_json_delta|message_stop|message_delta)"|content_block_st|\[DONE\]'
)
"""Events of the protocols that are handed on at once; a match within text only ends a window early."""
_LAST_CHUNK = re.compile(rb"\n0+[ \t]*(?:;[^\n]*)?\r?\n")
"""The chunk of no length that ends a body of HTTP chunks."""
_OVERLAP = 32
"""Bytes of a piece that are looked at again with the next one: what is looked for may be split."""


def find_encoding(header: str) -> str:
    """Returns the compressions that a `Content-Encoding` names, without the values that mean none."""
    named = header.lower().split(",")
    return ",".join(coding for each in named if (coding := each.strip()) not in _NO_CODINGS)


class Decoder:
    """Decompresses a body in pieces of bounded length, so that a small body cannot become a large one in memory."""

    def __init__(self, encoding: str) -> None:
        self._inflate = None
        self._is_first = True
        self._window_bits = 0
        self._unknown = ""
        match encoding:
            case "gzip" | "x-gzip":
                self._window_bits = 16 + zlib.MAX_WBITS
            case "deflate":
                self._window_bits = zlib.MAX_WBITS
            case other:
                self._unknown = other[:20]
                return
        self._inflate = zlib.decompressobj(self._window_bits)

    def _sniff(self, beginning: bytes) -> None:
        """Corrects the encoding by the first bytes: proxies decompress and keep the head, servers send bare deflate."""
        if _PLAIN.match(beginning):
            self._inflate = None
        elif self._unknown:
            raise httpx2.DecodingError(f"the answer is compressed in a way that was not asked for: {self._unknown}")
        elif self._window_bits > zlib.MAX_WBITS and not beginning.startswith(_GZIP_MAGIC[: len(beginning)]):
            self._inflate = None
        elif self._window_bits == zlib.MAX_WBITS and beginning[0] & 0x0F != zlib.DEFLATED:
            self._window_bits = -zlib.MAX_WBITS
            self._inflate = zlib.decompressobj(self._window_bits)

    def decode(self, raw: bytes) -> Iterator[bytes]:
        """Yields the content of a piece of the body.

        Raises:
            httpx2.DecodingError: it is not compressed as declared.
        """
        if self._is_first and raw:
            self._is_first = False
            self._sniff(raw)
        if self._inflate is None:
            yield from split_bytes(raw)
            return
        piece = raw
        while raw or len(piece) == PIECE_BYTES:
            try:
                piece = self._inflate.decompress(raw, PIECE_BYTES)
            except zlib.error as error:
                raise httpx2.DecodingError("the answer is not compressed as its head says") from error
            raw = self._inflate.unconsumed_tail
            if self._inflate.eof:
                # A body may consist of several members.
                raw = self._inflate.unused_data.lstrip(b"\0")
                self._inflate = zlib.decompressobj(self._window_bits)
            if piece:
                yield piece


async def gather_text(response: "aiohttp.ClientResponse", piece: bytes, until: float) -> tuple[bytes, float]:
    """Returns a piece with those that arrive until an instant; earlier at one without text, and at its longest length.

    After that instant it waits for the first piece. An error of the stream is left to the next read.

    Args:
        response: one whose body is being read; nothing waits for a piece of it.
        piece: its last one, or nothing.
        until: the event loop's time at which the window ends.

    Returns:
        The piece, nothing at the end or an error, and the time since its last part arrived, in seconds.
    """
    content, connection, loop = response.content, response.connection, asyncio.get_running_loop()
    if connection is None or content.is_eof():
        return piece, 0.0
    transport, protocol = connection.transport, connection.protocol
    # The loss of a connection is told later, over TLS to the protocol of the moment when it was closed.
    if transport is None or protocol is None or transport.is_closing():
        return piece, 0.0
    length = response.content_length
    left = sys.maxsize if length is None else length - content.total_bytes
    gathering = _Gathering(transport, protocol, min(left, GATHERED_BYTES - len(piece)), is_begun=bool(piece))
    await gathering.wait(until)
    held_s = loop.time() - gathering.arrived_at
    return piece if content.exception() else piece + content.read_nowait(), held_s


class _Gathering(asyncio.Protocol):
    """Receives the bytes of a connection in the place of its own protocol, which gets them at the end of the window.

    Args:
        transport: the connection.
        protocol: its own.
        most_bytes: bytes that end the window.
        is_begun: whether there is a piece before.
    """

    def __init__(
        self, transport: asyncio.Transport, protocol: asyncio.Protocol, most_bytes: int, *, is_begun: bool
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._bytes_left = most_bytes
        self._is_begun = is_begun
        self._is_late = False
        self._pieces: list[bytes] = []
        # The line end of the chunk that was read last is not read with it.
        self._tail = b"\n"
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        self._over = self._loop.create_future()
        self.arrived_at = self._loop.time()
        """The event loop's time of the newest piece."""

    async def wait(self, until: float) -> None:
        """Waits until an instant, or for a piece that is not to be held."""
        timer = self._loop.call_at(until, self._end_window)
        self._transport.set_protocol(self)
        try:
            await self._over
        finally:
            timer.cancel()
            self._end()

    def data_received(self, data: bytes) -> None:
        """Holds a piece, unless it is not to be held."""
        if self._is_over:
            self._protocol.data_received(data)
            return
        self.arrived_at = self._loop.time()
        self._pieces.append(data)
        self._bytes_left -= len(data)
        seen = self._tail + data
        self._tail = seen[-_OVERLAP:]
        if self._is_late or self._bytes_left <= 0 or NOT_TEXT.search(seen) or _LAST_CHUNK.search(seen):
            self._end()

    def eof_received(self) -> bool | None:
        """Ends the window before the end of the stream."""
        self._end()
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the window before the end of the connection."""
        self._end()
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Leaves the connection's writing to its own protocol."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Leaves the connection's writing to its own protocol."""
        self._protocol.resume_writing()

    def _end_window(self) -> None:
        self._is_late = True
        if self._is_begun or self._pieces:
            self._end()

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        # One that is closed may have let its TLS go, and tells nothing more than its loss.
        if not self._transport.is_closing():
            self._transport.set_protocol(self._protocol)
        if self._pieces:
            self._protocol.data_received(b"".join(self._pieces))
        if not self._over.done():
            self._over.set_result(None)
