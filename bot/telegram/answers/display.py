"""Display settings of an answer: mode and place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from aiogram.types import InlineKeyboardMarkup, MessageEntity

from bot.telegram.markdown.render import Rendered, utf16_length
from bot.telegram.markdown.render_thread import RenderThread

StreamMode = Literal["edit", "draft", "off"]


@dataclass(frozen=True, slots=True)
class AnswerDisplay:
    """How answers are displayed while they are produced.

    Args:
        mode: `edit` a message as it grows, show a `draft` where Telegram supports it, or send everything at the end
            (`off`).
    """

    mode: StreamMode
    renderer: RenderThread


@dataclass(frozen=True, slots=True)
class Place:
    """The chat, topic and message that an answer belongs to."""

    chat_id: int
    is_group: bool
    topic_id: int | None = None
    reply_to: int | None = None


@dataclass(frozen=True, slots=True)
class Keyboards:
    """Keyboards under the last page: while the answer grows, and at its end (built only then)."""

    live: InlineKeyboardMarkup | None
    final: Callable[[], InlineKeyboardMarkup | None]


@dataclass(frozen=True, slots=True)
class AnswerTexts:
    """Lines of the bot's own in the user's language.

    Args:
        empty: in place of an answer without any text.
        goes_on: while an answer that is too long for messages is still produced.
        whole: over the file with the whole answer.
        cut: under the last message where the chat takes no file.
    """

    empty: str
    goes_on: str
    whole: str
    cut: str


def append_lines(rendered: Rendered | None, lines: Sequence[str]) -> Rendered:
    """Appends small print to a text, or returns it alone."""
    text = rendered.text if rendered else ""
    entities = list(rendered.entities) if rendered else []
    for line in lines:
        text = f"{text}\n\n" if text else ""
        entities.append(MessageEntity(type="italic", offset=utf16_length(text), length=utf16_length(line)))
        text += line
    return Rendered(text, tuple(entities))
