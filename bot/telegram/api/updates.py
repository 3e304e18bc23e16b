"""An update, from the JSON that Telegram sent."""

from contextlib import suppress
from typing import Any

import structlog
from aiogram import Bot
from aiogram.types import Update
from pydantic import ValidationError

log = structlog.get_logger()

UPDATE_TYPES = ("message", "edited_message", "callback_query", "my_chat_member", "stopped_message_generation")
ESSENTIALS = (
    "message_id", "date", "chat", "from", "sender_chat", "message_thread_id", "is_topic_message",
    "edit_date", "text", "entities", "caption", "caption_entities",
)  # fmt: skip
"""What is looked at of a message that the library cannot read, since it has something new or odd about it."""


def parse_update(raw: dict[str, Any], bot: Bot) -> Update | None:
    """The update; of a message that cannot be read as a whole what is sure, so that somebody gets an answer."""
    try:
        return Update.model_validate(raw, context={"bot": bot})
    except ValidationError as error:
        kinds = [kind for kind in raw if kind != "update_id"]
        log.error("intake.unreadable", update_id=raw.get("update_id"), kinds=kinds, faults=error.error_count())  # noqa: TRY400 - the error quotes the message
    for kind in ("message", "edited_message"):
        message: Any = raw.get(kind)  # Any: whatever JSON came
        if isinstance(message, dict):
            sure: dict[str, Any] = {name: message[name] for name in ESSENTIALS if name in message}
            with suppress(ValidationError):
                return Update.model_validate({"update_id": raw["update_id"], kind: sure}, context={"bot": bot})
    return None
