"""Outgoing messages, results of sending them, and the parts that are omitted where Telegram rejects a message."""

from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto
from typing import Any, TypeAlias

from aiogram.methods import SendDocument, SendPhoto, SendVoice
from aiogram.types import BufferedInputFile, InlineKeyboardMarkup, ReplyParameters

from bot.telegram.api.errors import ApiFailure
from bot.telegram.markdown.render import Rendered

Upload: TypeAlias = SendDocument | SendPhoto | SendVoice
"""A call that sends a file."""


class SendResult(StrEnum):
    """Result of showing a text."""

    SHOWN = "shown"
    SKIPPED = "skipped"
    """Dropped: a progress update while the chat is rate limited. A later one shows the same."""
    UNKNOWN = "unknown"
    """A progress update with an unknown result."""
    GONE = "gone"
    """A progress update to a message that no longer exists."""
    LOST = "lost"
    """Given up after all retries; an error event has the reason."""
    UNREACHABLE = "unreachable"
    """The bot cannot write in this chat: blocked, removed, or the chat is gone."""
    UNSUPPORTED = "unsupported"
    """The Bot API server does not support the method, or not in this chat."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A sent message. The chat differs from the requested one if a group was migrated."""

    chat_id: int
    message_id: int


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """Result of a send or an edit, and the message if it exists."""

    result: SendResult
    sent: Sent | None = None


class FileShape(Enum):
    """The kind of message that shows a file."""

    DOCUMENT = auto()
    PHOTO = auto()
    VOICE = auto()


@dataclass(frozen=True, slots=True)
class OutgoingFile:
    """A file to send; the text of its message is its caption, 1,024 units at most.

    Args:
        shape: a photo is compressed by Telegram; a voice message is OGG/Opus.
    """

    name: str
    data: bytes
    shape: FileShape = FileShape.DOCUMENT


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to send, or to put in place of `message_id`."""

    chat_id: int
    rendered: Rendered
    topic_id: int | None = None
    reply_to: int | None = None
    markup: InlineKeyboardMarkup | None = None
    message_id: int | None = None
    moved: bool = False
    file: OutgoingFile | None = None


def build_upload(message: OutgoingMessage, file: OutgoingFile, reply: ReplyParameters | None) -> Upload:
    """Builds the call for a new message with a file."""
    upload = BufferedInputFile(file.data, file.name)
    common: dict[str, Any] = {  # Any: arguments of three calls
        "chat_id": message.chat_id,
        "message_thread_id": message.topic_id,
        "caption": message.rendered.text or None,
        "parse_mode": None,
        "caption_entities": list(message.rendered.entities) or None,
        "reply_parameters": reply,
        "reply_markup": message.markup,
    }
    match file.shape:
        case FileShape.PHOTO:
            return SendPhoto(photo=upload, **common)
        case FileShape.VOICE:
            return SendVoice(voice=upload, **common)
        case FileShape.DOCUMENT:
            return SendDocument(document=upload, **common)


_REJECTIONS = frozenset(
    {
        ApiFailure.ENTITIES,
        ApiFailure.MARKUP,
        ApiFailure.TOPIC,
        ApiFailure.REPLY,
        ApiFailure.MESSAGE_GONE,
        ApiFailure.REFUSED,
    }
)
"""Rejections of the content of a message; their wordings may name another part than the one that is wrong."""


def omit_rejected(message: OutgoingMessage, fault: ApiFailure, *, final: bool) -> OutgoingMessage | None:
    """Returns the message without the rejected part, or None if that part cannot be omitted."""
    match fault:
        case ApiFailure.ENTITIES if message.rendered.entities:
            return replace(message, rendered=Rendered(message.rendered.text))
        case ApiFailure.MARKUP if message.markup is not None:
            return replace(message, markup=None)
        case ApiFailure.TOPIC if message.topic_id is not None:
            return replace(message, topic_id=None)
        case ApiFailure.REPLY if message.reply_to is not None:
            return replace(message, reply_to=None)
        case ApiFailure.MESSAGE_GONE | ApiFailure.NO_METHOD if message.message_id is not None and final:
            return replace(message, message_id=None)
        case _ if final and fault in _REJECTIONS:
            return _omit_next_part(message)
        case _:
            return None


def _omit_next_part(message: OutgoingMessage) -> OutgoingMessage | None:
    """Omits one part that a rejection may be about: a message that must arrive is worth a guess."""
    if message.rendered.entities:
        return replace(message, rendered=Rendered(message.rendered.text))
    if message.message_id is not None:
        return replace(message, markup=None) if message.markup is not None else replace(message, message_id=None)
    if message.reply_to is not None:
        return replace(message, reply_to=None)
    if message.markup is not None:
        return replace(message, markup=None)
    if message.topic_id is not None:
        return replace(message, topic_id=None)
    return None
