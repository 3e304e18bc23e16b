"""Event streams on their way to an SDK, at the pace of their reader.

Pieces in the one form that every SDK's parser reads pass untouched (four scans in C, no object per event). Others are
read line by line (`event_lines.py`) and rewritten in that form: bytes come in and bytes go out.
"""

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from core.bounded_json import parse_json
from core.transport_errors import ResponseTooLarge
from services.llm.providers.wire.chat_chunks import ChatChunks
from services.llm.providers.wire.chat_fields import DONE
from services.llm.providers.wire.chunk_repair import ChunkRepair
from services.llm.providers.wire.event_lines import MAX_EVENT_BYTES, EventLines, ServerEvent, is_whole
from services.llm.providers.wire.native_events import NativeEvents

EVENTS = "understudy.events"
"""The extension of a response with its `EventStream`."""
PIECE_BYTES = 16 << 10
"""Longest piece that is passed on at once. The event loop gets its turn after each: an SDK parses one in about 5 ms."""
MAX_WHOLE_LINES = 1 << 14
"""Lines of a body that is no event stream: each may be an object, and is read by itself."""
_BATCH = 64
"""Lines of a whole answer that are repaired at once."""
_LAST_EVENT = b"data: " + DONE + b"\n\n"


@dataclass(slots=True)
class Pacing:
    """Pace at which a stream is handed on; it may change while the stream is read.

    Args:
        window_s: longest time for which text is held, so that it is handed on together with the text that follows.
            Nothing else is held: no end, error, tool call, usage or finish reason.
        held_s: time between the arrival of the newest text and the end of its window. Deadlines count from the arrival.
        merges_arrivals: whether text that arrives in one read is handed on at once where none is held. It comes
            no later for that, and costs its reader as much as one piece.
    """

    window_s: float = 0.0
    held_s: float = 0.0
    merges_arrivals: bool = False

    @property
    def merges(self) -> bool:
        """True if pieces of text that are at hand are passed on as one."""
        return self.merges_arrivals or self.window_s > 0


PACING: ContextVar[Pacing | None] = ContextVar("pacing", default=None)
"""The pace of the surrounding `pace_responses`; without one nothing is held."""


@contextmanager
def pace_responses() -> Generator[Pacing]:
    """Sets the pace of the responses to the requests that are made within the context.

    Their reader enforces the deadlines between pieces: the transport has none for them.
    """
    pacing = Pacing()
    token = PACING.set(pacing)
    try:
        yield pacing
    finally:
        PACING.reset(token)


class EventStream:
    """One event stream: events as `event` and one `data` line, without comments.

    Args:
        chunks: passes on the events of a stream of chat completions.
        native: repairs those of Anthropic's and Google's protocols.
        pacing: says whether neighbours are merged.
    """

    def __init__(
        self, chunks: ChatChunks | None = None, native: NativeEvents | None = None, pacing: Pacing | None = None
    ) -> None:
        self._chunks = chunks
        self._native = native
        self._pacing = pacing or Pacing()
        self.is_ended = False
        """True if the server ended the stream: by its end marker, or by the end of a body of known length."""
        self.is_marked = False
        """True if its end marker has come."""
        self._lines: EventLines | None = None
        """Reads pieces from the first one on that is not in the common form."""
        self._has_events = False

    def feed(self, piece: bytes) -> bytes:
        """Returns the events that a piece completes.

        Raises:
            ResponseTooLarge: a line or an event exceeds MAX_EVENT_BYTES.
        """
        if not piece:
            return b""
        lines = self._lines
        if self._native is None and (lines is None or not lines.is_open) and _is_common_form(piece):
            self._has_events = True
            if lines is not None:
                lines.skip()
            return self._pass(piece)
        if lines is None:
            has_chunks = self._chunks is not None
            lines = self._lines = EventLines(is_begun=self._has_events, takes_json_lines=has_chunks)
        return b"".join(map(self._rewrite, lines.feed(piece)))

    def finish(self, *, is_delimited: bool) -> bytes:
        """Returns the events that the end of the body completes.

        Args:
            is_delimited: the body ended where its head said, so nothing of it is missing.
        """
        self.is_ended = self.is_ended or is_delimited
        lines = self._lines
        found = b"".join(map(self._rewrite, lines.finish())) if lines is not None else b""
        if self._chunks is not None and (held := self._chunks.flush()):
            # Repaired already: read again it would count as a further text so far.
            found += _to_bytes(b"", held)
        if lines is not None and lines.bare and not lines.has_events:
            found += b"".join(self.read_whole(bytes(lines.bare)))
        return found

    def _pass(self, piece: bytes) -> bytes:
        """Returns events that are in the common form already."""
        piece = _as_utf8(piece)
        if self._chunks is None:
            self.is_ended = self.is_ended or piece.endswith(_LAST_EVENT)
            return piece
        return self._frame(piece[6:-2].split(b"\n\ndata: "))

    def _frame(self, events: Sequence[bytes]) -> bytes:
        """Returns events of a chat-completions stream from their data."""
        if self._chunks is not None:
            events = list(self._chunks.merge(events, joins=self._pacing.merges))
        self.is_marked = self.is_marked or DONE in events
        self.is_ended = self.is_ended or self.is_marked
        return b"".join([b"data: %b\n\n" % data for data in events])

    def _rewrite(self, found: ServerEvent) -> bytes:
        """Returns an event that was read line by line; nothing for one without content."""
        event, data = found.name, _as_utf8(found.data)
        self.is_ended = self.is_ended or data == DONE
        if self._native is not None:
            repaired = self._native.read(event, data)
            if repaired is None:
                return b""
            event, data = repaired
        if self._chunks is not None:
            return self._frame([_as_error(data) if event == b"error" else data])
        return _to_bytes(event, data)

    def repair_whole(self, body: bytes) -> bytes:
        """Returns the body of a whole answer that was asked for."""
        return body if self._chunks is None or len(body) > MAX_EVENT_BYTES else ChunkRepair().repair_whole(body)

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
        events = [*([b" ".join(lines)] if is_whole(body) else lines), DONE]
        yield from _gather(self._frame(events[at : at + _BATCH]) for at in range(0, len(events), _BATCH))


def split_bytes(text: bytes) -> Iterator[bytes]:
    """Yields a text in pieces of at most `PIECE_BYTES`."""
    for start in range(0, len(text), PIECE_BYTES):
        yield text[start : start + PIECE_BYTES]


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
