"""Messages and their identifiers, independent of the surface that they arrive on."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType

ChatRef = NewType("ChatRef", str)
"""A chat of any surface, such as `telegram:-100123`: the stored key of preferences, consent, notes and usage."""

UserRef = NewType("UserRef", str)
"""A user of any surface, such as `telegram:123`: the stored key of quotas and usage."""


class Surface(StrEnum):
    """The front end of a conversation."""

    TELEGRAM = "telegram"
    CONSOLE = "console"


class ChatKind(StrEnum):
    """One person, or a group, in which the model is given the name of each speaker."""

    PRIVATE = "private"
    GROUP = "group"


def chat_ref(surface: Surface, chat_id: int) -> ChatRef:
    """Returns the reference of a chat."""
    return ChatRef(f"{surface}:{chat_id}")


def user_ref(surface: Surface, user_id: int) -> UserRef:
    """Returns the reference of a user."""
    return UserRef(f"{surface}:{user_id}")


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """One conversation: a chat, or one topic of it (`topic_id` 0 is the chat itself)."""

    surface: Surface
    chat_id: int
    topic_id: int = 0

    @property
    def chat_ref(self) -> ChatRef:
        """The chat, without the topic."""
        return chat_ref(self.surface, self.chat_id)

    def __str__(self) -> str:
        return f"{self.surface}:{self.chat_id}:{self.topic_id}"


@dataclass(frozen=True, slots=True)
class Speaker:
    """The author of a message. `language` is an IETF tag such as `en` or `pt-br`, if the surface knows it."""

    user_id: int
    name: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file sent with a message.

    Args:
        media_type: a MIME type such as `image/jpeg`.
        said_by: the name of its author, for a recording of another person that the message replies to.
    """

    data: bytes
    media_type: str
    name: str | None = None
    said_by: str | None = None

    @property
    def is_image(self) -> bool:
        """True if a model with vision can read it."""
        return self.media_type.startswith("image/")

    @property
    def is_audio(self) -> bool:
        """True if it is a recording to transcribe."""
        return self.media_type.startswith("audio/")


@dataclass(frozen=True, slots=True)
class TextFile:
    """A text file sent with a message; a model reads it as text.

    Args:
        text: all of it, or as much as was read.
        by_part: whether a model is given its first part, and reads the others by a tool.
        is_cut: whether the file has more text than was read.
        guessed_encoding: set where the file does not tell its encoding; else empty.
    """

    name: str
    text: str
    by_part: bool = False
    is_cut: bool = False
    guessed_encoding: str = ""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that the bot answers."""

    key: ConversationKey
    chat_kind: ChatKind
    speaker: Speaker
    text: str
    sent_at: datetime
    attachments: tuple[Attachment, ...] = ()
    chat_title: str | None = None
    quoted: str | None = None
    """The text of the message that this one replies to, unless the bot wrote that one."""
    quoted_from: str | None = None
    """The name of its author, in a group."""
    files: tuple[TextFile, ...] = ()
    message_id: int | None = None
    """The message, where the surface numbers them."""
    draws: bool = False
    """True if the text describes a picture that is to be drawn, and no model is asked to answer it."""

    @property
    def user_ref(self) -> UserRef:
        """The author."""
        return user_ref(self.key.surface, self.speaker.user_id)
