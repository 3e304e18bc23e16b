"""Omits the part of a message that Telegram rejects."""

from dataclasses import replace

from bot.telegram.api.errors import ApiFailure
from bot.telegram.delivery.calls import OutgoingMessage
from bot.telegram.markdown.render import Rendered

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
