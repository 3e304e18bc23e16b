"""Decompression of a response in bounded pieces; the body's first bytes decide, not its head."""

import re
import zlib
from collections.abc import Iterator

import httpx2

PIECE_BYTES = 16 << 10
"""Longest piece that is passed on at once. The event loop gets its turn after each: an SDK parses one in about 5 ms."""
_NO_CODINGS = frozenset({"", "identity", "none", "binary", "chunked", "utf-8", "utf8"})
"""Values of `Content-Encoding` that servers send with a body that is not compressed."""
_GZIP_MAGIC = b"\x1f\x8b"
_PLAIN = re.compile(rb'\s*(?:[{\[]\s*["{\[]|data\s*:|event\s*:|: |<!|<html)', re.IGNORECASE)
"""First bytes of a body that is not compressed, although its head may say so."""


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
            case "":
                return
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
            for start in range(0, len(raw), PIECE_BYTES):
                yield raw[start : start + PIECE_BYTES]
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
