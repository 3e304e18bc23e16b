"""Passes on the chunks of a chat-completions stream: usual ones as they are, neighbours with text only as one.

A chunk is read and written again only where a scan of its bytes finds something unusual (`chunk_repair.py`). One that
differs from a usual one in its text only passes without a scan, and becomes one with its neighbours of this kind that
arrived together with it.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, cast

from pydantic_core import from_json

from services.llm.providers.wire.chat_fields import DONE, MOST, Fields, SurrogatePairs
from services.llm.providers.wire.chunk_repair import ChunkRepair
from services.llm.providers.wire.growing_texts import TextBeginning

_TEXT: Final = re.compile(rb'"content"\s*:\s*"([^"\\]*)"')
_SOME_TEXT: Final = re.compile(rb'"content"\s*:\s*"[^"]')
_EMPTY_DELTA: Final = re.compile(rb'"delta"\s*:\s*\{\s*\}')
_NO_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_USAGE: Final = re.compile(rb'"usage"\s*:\s*[^n\s]')
_STRING: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*')
"""The inside of a JSON string."""
_PADDING: Final = re.compile(rb',\s*"obfuscation"\s*:\s*"[^"\\]*"')
"""OpenAI's, of random length, against eavesdroppers who would count characters."""
_FRAME: Final = (b'"choices"', b'"id"', b'"model"', b'"created"', b'"chat.completion.chunk"')
"""Required in every chunk."""
_CHOICE: Final = (b'"delta"', b'"finish_reason"', b'"index"')
"""Required where a chunk has a choice."""
_KNOWN_FIELDS: Final = frozenset(
    {"choices", "id", "model", "created", "object", "usage", "system_fingerprint", "service_tier"}
)
"""Fields of a chunk that has no choices and is no error."""
_UNUSUAL: Final = tuple(
    re.compile(pattern)
    for pattern in (
        # One literal prefix each: such patterns are searched in C. An escaped quote cannot match, so no text does. The
        # white space before a lookahead is possessive, or none of it would be matched and count as unusual.
        rb'"finish_reason"\s*:\s*+(?!null|"(?:stop|length|tool_calls|content_filter|error)")',
        rb'"tool_calls"\s*:\s*[^n\s]',
        rb'"function_call"\s*:\s*[^n\s]',
        rb'"error"\s*:\s*"',
        rb'"role"\s*:\s*+(?!null|"assistant")',
        rb'"content"\s*:\s*+(?!null|")',
        rb'"reasoning(?:_content)?"\s*:\s*+(?!null|")',
        rb'"reasoning_details"\s*:\s*[^n\s]',
        rb'"data"\s*:\s*\{',
        rb'"thinking"\s*:\s*"',
        rb'"thought"\s*:\s*"',
        rb'"reasoning_text"\s*:\s*"',
        rb'"choices"\s*:\s*[^\[\s]',
        rb'"delta"\s*:\s*[^{\s]',
        rb'"index"\s*:\s*[^\d\s]',
        rb'"id"\s*:\s*[^"\s]',
        rb'"model"\s*:\s*[^"\s]',
        rb'"created"\s*:\s*+(?!\d+\s*[,}])',
    )
)


class ChatChunks:
    """The chunks of one stream."""

    def __init__(self) -> None:
        self._head = self._tail = b""
        """Bytes before and after the text in a usual chunk."""
        self._is_mergeable = False
        """True if that chunk has text only: no finish reason, whose place between texts counts, and no thinking."""
        self._has_begun = False
        """True once a delta brought text or a tool call."""
        self._is_known_to_add = False
        """True once the deltas are known to be pieces, and not the text so far."""
        self._first = b""
        """The first chunk with text, which was passed on."""
        self._opening = b""
        """The text of the last chunk that may hold the text so far, as it is encoded."""
        self._growing: TextBeginning | None = None
        """Reads the chunks from the first one on whose text repeats the one before."""
        self._counts: dict[str, int] = {}
        """The largest token counts so far."""
        self._repair: ChunkRepair | None = None
        self._pairs: SurrogatePairs | None = None

    def merge(self, events: Iterable[bytes], *, joins: bool = False) -> Iterator[bytes]:
        """Yields the data of events that arrived together, as every SDK reads it.

        Args:
            events: their data.
            joins: whether neighbours with text only become one.
        """
        texts: list[bytes] = []
        for event in events:
            data = _PADDING.sub(b"", event) if b'"obfuscation"' in event else event
            if b"\\ud" in data or b"\\uD" in data:
                self._pairs = self._pairs or SurrogatePairs()
                data = self._pairs.join(data)
            text = self._text_of(data)
            self._has_begun = self._has_begun or bool(text)
            may_grow = not self._is_known_to_add and self._may_grow(data, text)
            if joins and text is not None and self._is_mergeable and not may_grow:
                texts.append(text)
                continue
            if texts:
                yield self._with_text(texts)
                texts.clear()
            if may_grow:
                yield from self._begin(data)
            elif read := self._read(data):
                yield read
        if texts:
            yield self._with_text(texts)

    def flush(self) -> bytes:
        """Returns the chunk that is held at the end of the stream."""
        return b"" if self._growing is None else self._growing.flush()

    def _may_grow(self, data: bytes, text: bytes | None) -> bool:
        """Returns whether a chunk may hold the text so far; one that does not repeat the first one proves pieces."""
        if self._growing is not None and self._growing.is_growing:
            return True
        if text and self._opening and not text.startswith(self._opening):
            self._is_known_to_add = True
            return False
        return _SOME_TEXT.search(data) is not None

    def _begin(self, data: bytes) -> Iterator[bytes]:
        """Yields the chunks that one completes whose text may be the text so far, with what they add to it."""
        read, text = self._read(data), self._text_of(data)
        if self._growing is None:
            if text and not self._first:
                self._first, self._opening = read, text
                yield read
                return
            self._growing = TextBeginning()
            if self._first:
                deque(self._growing.take(self._first), maxlen=0)
        yield from self._growing.take(read)
        self._opening = text or b""
        self._is_known_to_add = self._growing.is_over

    def _with_text(self, texts: Sequence[bytes]) -> bytes:
        return self._head + b"".join(texts) + self._tail

    def _read(self, data: bytes) -> bytes:
        """Returns the data of an event in a form that every SDK reads; nothing for an event without content."""
        if data == DONE or self._text_of(data) is not None:
            return data
        if _is_usual(data):
            if _USAGE.search(data) is None:
                self._remember(data)
                return data
            if self._takes_usage(data):
                self._has_begun = self._has_begun or _SOME_TEXT.search(data) is not None
                return data
        if self._repair is None:
            self._repair = ChunkRepair(self._counts)
        self._repair.has_begun = self._repair.has_begun or self._has_begun
        return self._repair.repair(data)

    def _text_of(self, data: bytes) -> bytes | None:
        """Returns the text of a chunk that differs from the last usual one in its text only, as it is encoded."""
        head, tail = self._head, self._tail
        if not (head and data.startswith(head) and data.endswith(tail) and len(data) >= len(head) + len(tail)):
            return None
        text = data[len(head) : len(data) - len(tail)]
        return text if _STRING.fullmatch(text) else None

    def _remember(self, data: bytes) -> None:
        self._has_begun = self._has_begun or _SOME_TEXT.search(data) is not None
        found = _TEXT.search(data)
        if found is not None:
            self._head, self._tail = data[: found.start(1)], data[found.end(1) :]
            self._is_mergeable = _has_text_only(data)

    def _takes_usage(self, data: bytes) -> bool:
        """Returns whether a usual chunk reports usage in whole counts, none of them below one before; notes them."""
        chunk = _parse(data)
        match chunk:
            case {"usage": {"prompt_tokens": int(sent), "completion_tokens": int(made), "total_tokens": int(total)}}:
                pass
            case _:
                return False
        fields, before = cast("Fields", chunk), self._counts
        is_lower = sent < before.get("prompt_tokens", 0) or made < before.get("completion_tokens", 0)
        is_readable = total > 0 and max(sent, made) > 0 and max(sent, made, total) < MOST
        is_error = not fields["choices"] and not _KNOWN_FIELDS.issuperset(fields)
        if is_lower or is_error or not is_readable or not all(map(_is_whole, fields["usage"].values())):
            return False
        before |= {"prompt_tokens": sent, "completion_tokens": made}
        return True


def _parse(data: bytes) -> object:
    try:
        return from_json(data)
    except ValueError:
        return None


def _is_whole(value: object) -> bool:
    """Returns whether a further field of usage is a number or holds whole counts."""
    if isinstance(value, dict):
        return all(isinstance(count, int) for count in cast("Fields", value).values())
    return isinstance(value, int | float | None)


def _has_text_only(data: bytes) -> bool:
    """Returns whether a chunk says nothing but the text of its one choice."""
    chunk = _parse(data)
    match chunk:
        case {"choices": [{"delta": dict()}]}:
            choice = cast("Fields", chunk)["choices"][0]
            said: Fields = {**choice, **choice["delta"]}
            return not any(value for name, value in said.items() if name not in {"index", "delta", "role", "content"})
        case _:
            return False


def _is_usual(data: bytes) -> bool:
    is_object = data.endswith(b"}") and b"}{" not in data
    if not is_object or any(name not in data for name in _FRAME) or any(each.search(data) for each in _UNUSUAL):
        return False
    if any(name not in data for name in _CHOICE):
        return _NO_CHOICES.search(data) is not None and _USAGE.search(data) is not None
    # The text may stand outside of it.
    return _EMPTY_DELTA.search(data) is None or not (b'"message"' in data or b'"text"' in data)
