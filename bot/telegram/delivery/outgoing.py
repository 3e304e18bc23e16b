"""An outgoing message: its Bot API call, the parts that can be omitted when Telegram rejects them, its result."""

from dataclasses import dataclass, replace
from enum import StrEnum

from aiogram.methods import EditMessageText, SendDocument, SendMessage
from aiogram.types import BufferedInputFile, InlineKeyboardMarkup, LinkPreviewOptions, ReplyParameters

from bot.telegram.api.errors import ApiFailure
from bot.telegram.markdown.render import Rendered

NO_PREVIEW = LinkPreviewOptions(is_disabled=True)


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
"""Rejections of a message for what it is; their wordings may name another part than the one that is wrong."""


class SendResult(StrEnum):
    """Result of showing a text."""

    SHOWN = "shown"
    SKIPPED = "skipped"
    """Dropped: a progress update while the chat is rate limited. A later one shows the same."""
    UNKNOWN = "unknown"
    """A progress update whose result is unknown."""
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


@dataclass(frozen=True, slots=True)
class OutgoingFile:
    """A file to send; the text of its message is its caption, 1,024 units at most."""

    name: str
    data: bytes


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

    def as_send(self) -> SendMessage | SendDocument:
        """Builds the call for a new message. A default parse mode must never be sent beside entities."""
        reply = None
        if self.reply_to is not None:
            reply = ReplyParameters(message_id=self.reply_to, allow_sending_without_reply=True)
        if self.file is not None:
            return SendDocument(
                chat_id=self.chat_id,
                message_thread_id=self.topic_id,
                document=BufferedInputFile(self.file.data, self.file.name),
                caption=self.rendered.text or None,
                parse_mode=None,
                caption_entities=list(self.rendered.entities) or None,
                reply_parameters=reply,
                reply_markup=self.markup,
            )
        return SendMessage(
            chat_id=self.chat_id,
            message_thread_id=self.topic_id,
            text=self.rendered.text,
            parse_mode=None,
            entities=list(self.rendered.entities) or None,
            link_preview_options=NO_PREVIEW,
            reply_parameters=reply,
            reply_markup=self.markup,
        )

    def as_edit(self) -> EditMessageText:
        """Builds the call that edits `message_id`."""
        return EditMessageText(
            chat_id=self.chat_id,
            message_id=self.message_id,
            text=self.rendered.text,
            parse_mode=None,
            entities=list(self.rendered.entities) or None,
            link_preview_options=NO_PREVIEW,
            reply_markup=self.markup,
        )

    def without(self, fault: ApiFailure, *, final: bool) -> "OutgoingMessage | None":
        """Returns the message without the rejected part, or None if that part cannot be omitted."""
        match fault:
            case ApiFailure.ENTITIES if self.rendered.entities:
                return replace(self, rendered=Rendered(self.rendered.text))
            case ApiFailure.MARKUP if self.markup is not None:
                return replace(self, markup=None)
            case ApiFailure.TOPIC if self.topic_id is not None:
                return replace(self, topic_id=None)
            case ApiFailure.REPLY if self.reply_to is not None:
                return replace(self, reply_to=None)
            case ApiFailure.MESSAGE_GONE | ApiFailure.NO_METHOD if self.message_id is not None and final:
                return replace(self, message_id=None)
            case _ if final and fault in _REJECTIONS:
                return self._without_next_part()
            case _:
                return None

    def _without_next_part(self) -> "OutgoingMessage | None":
        """Omits one part that a rejection may be about: a message that must arrive is worth a guess."""
        if self.rendered.entities:
            return replace(self, rendered=Rendered(self.rendered.text))
        if self.message_id is not None:
            return replace(self, markup=None) if self.markup is not None else replace(self, message_id=None)
        if self.reply_to is not None:
            return replace(self, reply_to=None)
        if self.markup is not None:
            return replace(self, markup=None)
        if self.topic_id is not None:
            return replace(self, topic_id=None)
        return None
