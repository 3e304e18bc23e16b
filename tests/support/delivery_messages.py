"""Chats and messages that the tests of the delivery share."""

from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup

from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.outgoing import Sent
from tests.support.markdown import render

PERSON = 7
GROUP = -100
STOP = InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="Stop", callback_data="stop")]])
RETRY = InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="Retry", callback_data="retry:1")]])


async def send_with_button(delivery: Delivery, text: str = "hello", chat_id: int = PERSON) -> Sent:
    """Sends a message with a Stop button."""
    outcome = await delivery.post(chat_id, render(text), markup=STOP)
    assert outcome.sent is not None
    return outcome.sent
