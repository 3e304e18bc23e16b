"""An outgoing message: its Bot API call, and the parts that can be omitted when Telegram rejects them."""

from dataclasses import dataclass, replace

from aiogram.methods import EditMessageText, SendMessage
from aiogram.types import InlineKeyboardMarkup, LinkPreviewOptions, ReplyParameters

from bot.telegram.api.errors import ApiFailure
from bot.telegram.markdown.render import Rendered

NO_PREVIEW = LinkPreviewOptions(is_disabled=True)


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

    def as_send(self) -> SendMessage:
        """Build the call for a new message. A default parse mode must never be sent beside entities."""
        reply = None
        if self.reply_to is not None:
            reply = ReplyParameters(message_id=self.reply_to, allow_sending_without_reply=True)
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
        """Build the call that edits `message_id`."""
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
        """Return the message without the rejected part, or None if that part cannot be omitted."""
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
            case ApiFailure.REFUSED if final:
                return self._plainer()
            case _:
                return None

    def _plainer(self) -> "OutgoingMessage | None":
        """Omit one part that an unspecific rejection may be about: a message that must arrive is worth a guess."""
        if self.rendered.entities:
            return replace(self, rendered=Rendered(self.rendered.text))
        if self.markup is not None:
            return replace(self, markup=None)
        if self.message_id is not None:
            return replace(self, message_id=None)
        return None
