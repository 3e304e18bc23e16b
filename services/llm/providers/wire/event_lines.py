"""Reads event streams that are not in their common form, line by line by the WHATWG standard.

The SDKs differ in the forms that they accept: a byte order mark, comments, `retry` lines, CR or CRLF line ends, data
over several lines and events without data each break one of them. https://html.spec.whatwg.org/multipage/server-sent-events.html

The parsers of httpx-sse and of the SDKs take lines of text and bound no line.
"""

import re
from collections.abc import AsyncIterator
from typing import NamedTuple

from core.bounded_json import parse_json
from core.transport_errors import ResponseTooLarge
from services.llm.providers.wire.chat_fields import DONE

MAX_EVENT_BYTES = 1 << 20
"""Longest line, and longest data of one event."""

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_OTHER_FIELDS = frozenset({b"", b"id", b"retry"})
"""Fields of the standard without a use here, and the beginning of a comment."""
_BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:", b":")


def looks_like_event_stream(beginning: bytes) -> bool:
    """Returns whether a body begins like an event stream, for servers that declare another content type."""
    return strip_mark(beginning).startswith(_BEGINNINGS)


def _may_become_event_stream(word: bytes) -> bool:
    """Returns whether the kind of a body is open after its first bytes: none, or a part of a mark or a field's name."""
    return any(len(word) < len(each) and each.startswith(word) for each in (*_BEGINNINGS, _BOM))


def strip_mark(text: bytes) -> bytes:
    """Returns a text without a byte order mark and white space before it."""
    return text.removeprefix(_BOM).lstrip()


async def read_beginning(pieces: AsyncIterator[bytes]) -> bytes:
    """Returns as much of a body as tells its kind: servers send blank lines while they think, and split words."""
    held: list[bytes] = []
    word = b""
    async for piece in pieces:
        held.append(piece)
        word = strip_mark(word + piece)
        if not _may_become_event_stream(word):
            break
    return b"".join(held)


class ServerEvent(NamedTuple):
    """An event of a stream: its name and its data."""

    name: bytes
    data: bytes


class EventLines:
    """The lines of one stream.

    An event without data is dropped, as the standard demands. Line breaks within data become spaces: the data is
    JSON, where a raw line break can only stand between tokens.

    Args:
        is_begun: whether a piece of the stream was read before, in its common form.
        takes_json_lines: whether a line that is a JSON object is an event.
    """

    def __init__(self, *, is_begun: bool, takes_json_lines: bool) -> None:
        self._is_first = not is_begun
        self._takes_json_lines = takes_json_lines
        self._skips_line_feed = False
        self._tail = bytearray()
        self._event = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self.has_events = is_begun
        self.bare = bytearray()
        """Lines before the first event that are no fields: the body may be no event stream, against its head."""

    @property
    def is_open(self) -> bool:
        """True within a line or an event."""
        return bool(self._tail or self._data or self._event)

    def skip(self) -> None:
        """Notes that whole events were read in their common form."""
        self._is_first = self._skips_line_feed = False
        self.has_events = True

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """Returns the events that a piece completes.

        Raises:
            ResponseTooLarge: a line or an event exceeds MAX_EVENT_BYTES.
        """
        if self._skips_line_feed and piece.startswith(b"\n"):
            piece = piece[1:]
            self._skips_line_feed = False
        if not piece:
            return []
        if not self._is_first and b"\n" not in piece and b"\r" not in piece:
            # A long line in many pieces is scanned once, not once for each piece.
            self._skips_line_feed = False
            self._tail += piece
            self._require_short_line()
            return []
        text = bytes(self._tail) + piece
        if self._is_first:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._tail = bytearray(text)
                return []
            self._is_first = False
            text = text.removeprefix(_BOM)
        self._skips_line_feed = text.endswith(b"\r")
        *lines, tail = _LINE_END.split(text)
        self._tail = bytearray(tail)
        self._require_short_line()
        return [event for line in lines for event in self._read_line(line)]

    def finish(self) -> list[ServerEvent]:
        """Returns the events that the end of the body completes: servers leave out the last blank line."""
        is_line_open = bool(self._tail)
        found = self._read_line(bytes(self._tail)) if is_line_open else []
        self._tail = bytearray()
        if is_line_open and not is_whole(b" ".join(self._data)):
            # Cut within a line: half an event is none.
            self._data.clear()
        return [*found, *self._read_line(b"")]

    def _require_short_line(self) -> None:
        if len(self._tail) > MAX_EVENT_BYTES:
            raise ResponseTooLarge("a line of the answer exceeds 1 MiB")

    def _read_line(self, line: bytes) -> list[ServerEvent]:
        """Reads a line without its end; returns the event that a blank line completes."""
        if not line:
            return self._end_event()
        # Some gateways put a mark before each event, joined from several streams.
        name, _, value = line.removeprefix(_BOM).partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if len(self._data) == 1 and value.startswith((b"{", DONE)) and is_whole(self._data[0]):
                # Servers leave out the blank line between two events.
                return [*self._end_event(), *self._read_line(line)]
            self._add_data(value)
        elif name == b"event":
            self._event = value
        elif name == b"error":
            # llama.cpp's, in place of an event of that name.
            self._event = b"error"
            self._add_data(value)
        elif name not in _OTHER_FIELDS:
            return self._read_bare(line)
        return []

    def _add_data(self, value: bytes) -> None:
        self._data_bytes += len(value)
        if self._data_bytes > MAX_EVENT_BYTES:
            raise ResponseTooLarge("an event of the answer exceeds 1 MiB")
        self._data.append(value)

    def _read_bare(self, line: bytes) -> list[ServerEvent]:
        """Reads a line that is no field: one of JSON lines is an event, others may be a whole body."""
        if self._takes_json_lines and line.startswith(b"{") and not self._data and is_whole(line):
            self._data.append(line)
            return self._end_event()
        if not self.has_events and len(self.bare) + len(line) < MAX_EVENT_BYTES:
            self.bare += line + b"\n"
        return []

    def _end_event(self) -> list[ServerEvent]:
        event = ServerEvent(self._event, b" ".join(self._data).strip())
        self._data, self._data_bytes, self._event = [], 0, b""
        if not event.data:
            return []
        self.has_events = True
        return [event]


def is_whole(data: bytes) -> bool:
    """Returns whether data is a JSON text or the end marker."""
    if data.strip() == DONE:
        return True
    try:
        parse_json(data)
    except ValueError:
        return False
    return True
