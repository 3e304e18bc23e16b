"""Lays out a card within Telegram's limits, with people's texts as spoilers and without working links."""

from aiogram.enums import MessageEntityType
from aiogram.types import MessageEntity

from bot.telegram.markdown.render import Rendered, utf16_length
from services.moderation.text.links import defang

MAX_UNITS = 4096
"""Telegram's limit of a message, in UTF-16 code units."""
MAX_LINE = 400
"""Units of a line."""
MAX_OTHER = 250
"""Units of each further text on a shared card."""


def cut(text: str, units: int) -> str:
    """Returns a text of at most this many UTF-16 code units; a longer one ends with an ellipsis."""
    if utf16_length(text) <= units:
        return text
    kept, left = list[str](), units - 1
    for char in text:
        left -= utf16_length(char)
        if left < 0:
            break
        kept.append(char)
    return f"{''.join(kept)}…" if units > 0 else ""


class CardPage:
    """Lines of a card, parts of which are spoilers."""

    def __init__(self) -> None:
        self._text = ""
        self._hidden: list[MessageEntity] = []

    def add(self, line: str, *, hidden: str | None = None) -> None:
        """Appends a line; `hidden` is the part of it that becomes a spoiler."""
        line = cut(line, min(MAX_LINE, MAX_UNITS - utf16_length(self._text) - 1))
        if hidden and (at := line.find(hidden)) >= 0:
            self._hide(line[:at], hidden)
        self._text += f"{line}\n"

    def add_texts(self, first: str, others: tuple[str, ...]) -> None:
        """Appends people's texts as spoilers, in the rest of the page; the first gets the most."""
        left = MAX_UNITS - utf16_length(self._text)
        shown = [cut(defang(text).strip(), MAX_OTHER) for text in others]
        while shown and sum(utf16_length(text) + 2 for text in shown) > left // 2:
            shown.pop()
        left -= sum(utf16_length(text) + 2 for text in shown)
        for text in (cut(defang(first).strip(), left), *shown):
            if text:
                self._hide("", text)
                self._text += f"{text}\n\n"

    def render(self) -> Rendered:
        """Returns the text with its spoilers."""
        return Rendered(self._text.rstrip("\n"), tuple(self._hidden))

    def _hide(self, before: str, hidden: str) -> None:
        offset = utf16_length(self._text + before)
        self._hidden.append(MessageEntity(type=MessageEntityType.SPOILER, offset=offset, length=utf16_length(hidden)))
