"""A line of the bot's own about a message: said where that was said."""

from aiogram.types import InlineKeyboardMarkup, Message

from bot.telegram.api.messages import conversation_key, is_group
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.markdown.render import Rendered


async def reply_to(delivery: Delivery, about: Message, text: str, markup: InlineKeyboardMarkup | None = None) -> None:
    """Say something to who wrote a message; in a group as a reply, which shows who and what is meant."""
    place = conversation_key(about)
    await delivery.send(
        place.chat_id,
        Rendered(text),
        topic_id=place.topic_id or None,
        reply_to=about.message_id if is_group(about) else None,
        markup=markup,
    )
