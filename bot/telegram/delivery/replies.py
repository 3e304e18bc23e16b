"""The bot's own texts about a message: replies, and edits of earlier ones."""

from aiogram.types import InlineKeyboardMarkup, Message

from bot.telegram.api.messages import conversation_key, is_group
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.markdown.render import Rendered


async def reply_to(delivery: Delivery, about: Message, text: str, markup: InlineKeyboardMarkup | None = None) -> None:
    """Sends a text to the conversation of a message; in a group as a reply to it."""
    place = conversation_key(about)
    await delivery.send(
        place.chat_id,
        Rendered(text),
        topic_id=place.topic_id or None,
        reply_to=about.message_id if is_group(about) else None,
        markup=markup,
    )


async def edit_text(
    delivery: Delivery, message: Message, text: str, markup: InlineKeyboardMarkup | None = None
) -> None:
    """Replaces the text and the keyboard of a message of the bot."""
    await delivery.edit(message.chat.id, message.message_id, Rendered(text), markup=markup, final=True)
