"""Tells streams whose every delta holds the whole text so far from those that send pieces, as the protocol demands.

A delta that begins with the one before it is seldom a piece. It is held until the next one tells; a third in a row that
grows proves it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from services.llm.providers.wire.chat_fields import Fields, dump

SHORTEST_PROOF = 8
"""Characters of a text that is no piece where one delta repeats it and the stream ends: shorter ones occur twice."""
_FEWEST_KINDS = 3
"""Different characters of a text that proves anything: pieces of a line of equals signs begin with each other too."""
_HALF_CHARACTER = "\ufffd"
"""Stands at the end of a text so far whose last character is incomplete."""


@dataclass(slots=True)
class GrowingText:
    """The beginning of one stream's text, until it is known to come in pieces."""

    is_over: bool = False
    """True once the deltas are known to be pieces: later ones need no check."""
    _last: str = ""
    _held: str = ""
    """The text before the first one that is held."""
    _pieces: str = ""
    """The deltas that are held, as pieces."""
    is_proven: bool = False
    """True once the deltas are known to hold the text so far."""

    @property
    def is_holding(self) -> bool:
        """True while the last delta is held."""
        return bool(self._held)

    def take(self, text: str) -> str | None:
        """Returns what a delta adds to the text that was passed on before; None to hold it."""
        last = self._last
        if self.is_proven:
            text = text.rstrip(_HALF_CHARACTER)
            if not text.startswith(last):
                # The last one may hold less, or nothing.
                return "" if last.startswith(text) else text
            self._last = text
            return text[len(last) :]
        if not last.strip():
            self._last = text
            return text
        if len(text) > len(last) and text.startswith(last):
            if self._held and _is_varied(text):
                text = text.rstrip(_HALF_CHARACTER)
                added = text[len(self._held) :]
                self._held, self._last, self.is_proven = "", text, True
                return added
            self._held, self._last = self._held or last, text
            self._pieces += text
            return None
        self.is_over = True
        return self.release() + text

    def release(self) -> str:
        """Returns the text that is held, at the end of the text or where it turns out to be a piece."""
        held, self._held = self._held, ""
        if not held:
            return ""
        if not self.is_over and len(held.strip()) >= SHORTEST_PROOF and _is_varied(held):
            self.is_proven = True
            return self._last[len(held) :]
        self.is_over = True
        return self._pieces


def _is_varied(text: str) -> bool:
    return len(set(text)) >= _FEWEST_KINDS


def _parse(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    try:
        return from_json(data)
    except ValueError:
        return None


class TextBeginning:
    """Reads the chunks of one stream until its text is known to come in pieces; a growing one to its end."""

    def __init__(self) -> None:
        self._text = GrowingText()
        self._held: Fields = {}

    @property
    def is_over(self) -> bool:
        """True once the text is known to come in pieces: later chunks need no check."""
        return self._text.is_over

    @property
    def is_growing(self) -> bool:
        """True while a chunk is held, or once they are known to hold the text so far."""
        return self._text.is_holding or self._text.is_proven

    def take(self, data: bytes) -> Iterator[bytes]:
        """Yields the chunks that a repaired one completes, with what they add to the text."""
        chunk = _parse(data)
        match chunk:
            case {"choices": [{"delta": {"content": str(text)}} as choice, *_]} if text:
                pass
            case _:
                yield from filter(None, (self.flush(), data))
                return
        added = self._text.take(text)
        if added is None:
            self._held = chunk
            added = self._text.release() if choice.get("finish_reason") is not None else None
        if added is not None:
            choice["delta"]["content"] = added
            yield data if added == text else dump(chunk)

    def flush(self) -> bytes:
        """Returns the chunk that is held; nothing where none is."""
        if not self._text.is_holding:
            return b""
        self._held["choices"][0]["delta"]["content"] = self._text.release()
        return dump(self._held)
