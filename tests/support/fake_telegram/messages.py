"""Builds messages and updates in Telegram's format."""

from typing import Any

from aiogram import Bot
from aiogram.types import Message, Update

BOT = {"id": 42, "is_bot": True, "first_name": "Understudy", "username": "understudy_bot"}
ANN = {"id": 7, "is_bot": False, "first_name": "Ann", "last_name": "Lee", "language_code": "en"}
BOB = {"id": 8, "is_bot": False, "first_name": "Bob"}
PRIVATE = {"id": 7, "type": "private", "first_name": "Ann"}
GROUP = {"id": -100, "type": "supergroup", "title": "The Group"}


def raw(text: str | None = None, **fields: object) -> dict[str, Any]:
    """Returns a raw message of Ann, in her private chat unless `chat` is given."""
    shown: dict[str, Any] = {"message_id": 5, "date": 1_800_000_000, "chat": PRIVATE, "from": ANN}
    if text is not None:
        shown["text"] = text
    return shown | fields


def message(text: str | None = None, bot: Bot | None = None, **fields: object) -> Message:
    """Returns such a message parsed by aiogram."""
    return Message.model_validate(raw(text, **fields), context={"bot": bot})


def update(bot: Bot | None = None, **content: object) -> Update:
    """Returns an update parsed by aiogram."""
    return Update.model_validate({"update_id": 1, **content}, context={"bot": bot})
