"""Reads event streams by the WHATWG standard and rewrites them in the one form that every SDK's parser reads.

The SDKs differ in the forms that they accept: a byte order mark, comments, `retry` lines, CR or CRLF line ends, data
over several lines and events without data each break one of them. https://html.spec.whatwg.org/multipage/server-sent-events.html

The parsers of httpx-sse and of the SDKs take lines of text and bound no line; here bytes come in and bytes go out, and
pieces that are in the common form already pass untouched (four scans in C, no object per event).
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from core.bounded_json import parse_json
from core.transport_errors import ResponseTooLarge
from services.llm.providers.wire.chat_chunks import DONE, ChatChunks
from services.llm.providers.wire.native_events import NativeEvents
from services.llm.providers.wire.received_bytes import PIECE_BYTES

EVENTS = "understudy.events"
"""The extension of a response with its `EventStream`."""
MAX_WHOLE_LINES = 1 << 14
"""Lines of a body that is no event stream: each may be an object, and is read by itself."""
MAX_EVENT_BYTES = 1 << 20
"""Longest line, and longest data of one event."""
_BATCH = 64
"""Lines of a whole answer that are repaired at once."""

_BOM = b"\xef\xbb\xbf"
_LAST_EVENT = b"data: " + DONE + b"\n\n"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_OTHER_FIELDS = frozenset({b"", b"id", b"retry"})
"""Fields of the standard without a use here, and the beginning of a comment."""
_BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:", b":")


def looks_like_event_stream(beginning: bytes) -> bool:
    """Returns whether a body begins like an event stream, for servers that declare another content type."""
    return strip_mark(beginning).startswith(_BEGINNINGS)


def may_become_event_stream(word: bytes) -> bool:
    """Returns whether the kind of a body is open after its first bytes: none, or a part of a mark or a field's name."""
    return any(len(word) < len(each) and each.startswith(word) for each in (*_BEGINNINGS, _BOM))


def strip_mark(text: bytes) -> bytes:
    """Returns a text without a byte order mark and white space before it."""
    return text.removeprefix(_BOM).lstrip()


class EventStream:
    """One event stream on its way to an SDK: events as `event` and one `data` line, without comments.

    An event without data is dropped, as the standard demands. Line breaks within data become spaces: the data is
    JSON, where a raw line break can only stand between tokens.

    Args:
        chunks: repairs the events of a stream of chat completions.
        native: repairs those of Anthropic's and Google's protocols.
    """

    def __init__(self, chunks: ChatChunks | None = None, native: NativeEvents | None = None) -> None:
        self._chunks = chunks
        self._native = native
        self.is_ended = False
        """True if the server ended the stream: by its end marker, or by the end of a body of known length."""
        self.is_marked = False
        """True if its end marker has come."""
        self._is_first = True
        self._skips_line_feed = False
        self._tail = bytearray()
        self._event = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._has_events = False
        self._bare = bytearray()
        """Lines before the first event that are no fields: the body may be no event stream, against its head."""

    def feed(self, piece: bytes) -> bytes:
        """Returns the events that a piece completes.

        Raises:
            ResponseTooLarge: a line or an event exceeds MAX_EVENT_BYTES.
        """
        if self._native is None and not (self._tail or self._data or self._event) and _is_common_form(piece):
            self._is_first = self._skips_line_feed = False
            self._has_events = True
            return self._pass(piece)
        if self._skips_line_feed and piece.startswith(b"\n"):
            piece = piece[1:]
            self._skips_line_feed = False
        if not piece:
            return b""
        if not self._is_first and b"\n" not in piece and b"\r" not in piece:
            # A long line in many pieces is scanned once, not once for each piece.
            self._skips_line_feed = False
            self._tail += piece
            self._require_short_line()
            return b""
        text = bytes(self._tail) + piece
        if self._is_first:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._tail = bytearray(text)
                return b""
            self._is_first = False
            text = text.removeprefix(_BOM)
        self._skips_line_feed = text.endswith(b"\r")
        *lines, tail = _LINE_END.split(text)
        self._tail = bytearray(tail)
        self._require_short_line()
        return b"".join(map(self._read_line, lines))

    def finish(self, *, is_delimited: bool) -> bytes:
        """Returns the event that the end of the body completes: servers leave out the blank line after the last event.

        Args:
            is_delimited: the body ended where its head said, so nothing of it is missing.
        """
        self.is_ended = self.is_ended or is_delimited
        is_line_open = bool(self._tail)
        found = self._read_line(bytes(self._tail)) if is_line_open else b""
        self._tail = bytearray()
        if is_line_open and not _is_whole(b" ".join(self._data)):
            # Cut within a line: half an event is none.
            self._data.clear()
        found += self._read_line(b"")
        if self._chunks is not None and (held := self._chunks.flush()):
            # Repaired already: read again it would count as a further text so far.
            found += _to_bytes(b"", held)
        if self._bare and not self._has_events:
            found += b"".join(self.read_whole(bytes(self._bare)))
        return found

    def _require_short_line(self) -> None:
        if len(self._tail) > MAX_EVENT_BYTES:
            raise ResponseTooLarge("a line of the answer exceeds 1 MiB")

    def _read_line(self, line: bytes) -> bytes:
        """Reads a line without its end; returns the event that a blank line completes."""
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if len(self._data) == 1 and value.startswith((b"{", DONE)) and _is_whole(self._data[0]):
                # Servers leave out the blank line between two events.
                return self._dispatch() + self._read_line(line)
            self._add_data(value)
        elif name == b"event":
            self._event = value
        elif name == b"error":
            # llama.cpp's, in place of an event of that name.
            self._event = b"error"
            self._add_data(value)
        elif name not in _OTHER_FIELDS:
            return self._read_bare(line)
        return b""

    def _add_data(self, value: bytes) -> None:
        self._data_bytes += len(value)
        if self._data_bytes > MAX_EVENT_BYTES:
            raise ResponseTooLarge("an event of the answer exceeds 1 MiB")
        self._data.append(value)

    def _read_bare(self, line: bytes) -> bytes:
        """Reads a line that is no field: one of JSON lines is an event, others may be a whole body."""
        if self._chunks is not None and line.startswith(b"{") and not self._data and _is_whole(line):
            self._data.append(line)
            return self._dispatch()
        if not self._has_events and len(self._bare) + len(line) < MAX_EVENT_BYTES:
            self._bare += line + b"\n"
        return b""

    def _dispatch(self) -> bytes:
        data, event = _as_utf8(b" ".join(self._data).strip()), self._event
        self._data, self._data_bytes, self._event = [], 0, b""
        if not data:
            return b""
        self._has_events = True
        self.is_ended = self.is_ended or data == DONE
        if self._native is not None:
            repaired = self._native.read(event, data)
            if repaired is None:
                return b""
            event, data = repaired
        if self._chunks is not None:
            return self._frame([_as_error(data) if event == b"error" else data])
        return _to_bytes(event, data)

    def _pass(self, piece: bytes) -> bytes:
        """Returns events that are in the common form already."""
        piece = _as_utf8(piece)
        if self._chunks is None:
            self.is_ended = self.is_ended or piece.endswith(_LAST_EVENT)
            return piece
        return self._frame(piece[6:-2].split(b"\n\ndata: "))

    def repair_whole(self, body: bytes) -> bytes:
        """Returns the body of a whole answer that was asked for."""
        return body if self._chunks is None or len(body) > MAX_EVENT_BYTES else self._chunks.repair_whole(body)

    def read_whole(self, body: bytes) -> Iterator[bytes]:
        """Yields events for a body that is no event stream, a whole answer or an error, in pieces as of a stream.

        Raises:
            ResponseTooLarge: it exceeds MAX_EVENT_BYTES.
        """
        if self._chunks is None and self._native is None:
            yield body
            return
        if len(body) > MAX_EVENT_BYTES:
            raise ResponseTooLarge("an answer that is no stream exceeds 1 MiB")
        self.is_ended = True
        if self._native is not None:
            yield from _gather(_to_bytes(*each) for each in self._native.read_whole(_as_utf8(body)))
            return
        lines = list(filter(bytes.strip, _as_utf8(body).splitlines()))
        if len(lines) > MAX_WHOLE_LINES:
            raise ResponseTooLarge("an answer that is no stream has more than 16,384 lines")
        # One object a line, or one over several lines.
        events = [*([b" ".join(lines)] if _is_whole(body) else lines), DONE]
        yield from _gather(self._frame(events[at : at + _BATCH]) for at in range(0, len(events), _BATCH))

    def _frame(self, events: Sequence[bytes]) -> bytes:
        """Returns events of a chat-completions stream from their data."""
        repaired = list(self._chunks.merge(events)) if self._chunks is not None else events
        self.is_marked = self.is_marked or DONE in repaired
        self.is_ended = self.is_ended or self.is_marked
        return b"".join([b"data: %b\n\n" % data for data in repaired])


def _gather(events: Iterable[bytes]) -> Iterator[bytes]:
    """Yields events in pieces of about `PIECE_BYTES`."""
    held = bytearray()
    for event in events:
        held += event
        if len(held) >= PIECE_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held)


def _to_bytes(event: bytes, data: bytes) -> bytes:
    head = b"event: %b\n" % event if event not in {b"", b"message"} else b""
    return b"%bdata: %b\n\n" % (head, data)


def _is_common_form(piece: bytes) -> bool:
    """Returns whether a piece consists of whole events of one `data` line each, ended by line feeds."""
    events = piece.count(b"\n\n")
    return (
        events > 0
        and piece.startswith(b"data: ")
        and piece.endswith(b"\n\n")
        and piece.count(b"\n") == 2 * events
        and piece.count(b"\n\ndata: ") == events - 1
        and b"\r" not in piece
        and b"data: \n" not in piece
        and len(piece) <= MAX_EVENT_BYTES
    )


def _as_utf8(text: bytes) -> bytes:
    """Returns a text with a replacement character for each byte that is no UTF-8, as the standard demands."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode(errors="replace").encode()
    return text


def _as_error(data: bytes) -> bytes:
    """Returns the data of an event of the name `error` in the form of an error."""
    try:
        fields: object = parse_json(data)
    except ValueError:
        fields = data.decode(errors="replace")
    is_framed = isinstance(fields, dict) and "error" in fields
    return data if is_framed else json.dumps({"error": fields}).encode()


def _is_whole(data: bytes) -> bool:
    if data.strip() == DONE:
        return True
    try:
        parse_json(data)
    except ValueError:
        return False
    return True
