"""A message without Telegram: what the surfaces hand to the services."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Surface(StrEnum):
    """Where a conversation takes place."""

    TELEGRAM = "telegram"
    CONSOLE = "console"


class ChatKind(StrEnum):
    """Whom the bot talks to: one person, or several who are named to it."""

    PRIVATE = "private"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """One conversation: a chat, or one topic of it (`topic_id` 0 is the chat itself)."""

    surface: Surface
    chat_id: int
    topic_id: int = 0

    def __str__(self) -> str:
        return f"{self.surface}:{self.chat_id}:{self.topic_id}"


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who wrote a message. `language` is an IETF tag such as `en` or `pt-br`, where the surface knows it."""

    user_id: int
    name: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with a message: its bytes, its media type (`image/jpeg`), its name where it has one."""

    data: bytes
    media_type: str
    name: str | None = None

    @property
    def is_image(self) -> bool:
        """Whether a model that sees can look at it."""
        return self.media_type.startswith("image/")


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that the bot is to answer."""

    key: ConversationKey
    chat_kind: ChatKind
    speaker: Speaker
    text: str
    sent_at: datetime
    attachments: tuple[Attachment, ...] = ()
    chat_title: str | None = None
    quoted: str | None = None
    """The text of the message that this one replies to, where it is not the bot's own."""


def preference_scope(key: ConversationKey) -> str:
    """The chat of a conversation, such as `telegram:123`."""
    return f"{key.surface}:{key.chat_id}"
