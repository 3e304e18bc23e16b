"""A line of the bot's own about a message: said where that was said."""

from aiogram.types import InlineKeyboardMarkup, Message

from bot.telegram.delivery import Delivery
from bot.telegram.incoming import is_group, key_of
from bot.telegram.rendering import Rendered


async def tell(delivery: Delivery, about: Message, text: str, markup: InlineKeyboardMarkup | None = None) -> None:
    """Say something to who wrote a message; in a group as a reply, which shows who and what is meant."""
    place = key_of(about)
    await delivery.send(
        place.chat_id,
        Rendered(text),
        topic_id=place.topic_id or None,
        reply_to=about.message_id if is_group(about) else None,
        markup=markup,
    )
