"""Replies to messages and presses."""

from aiogram.types import CallbackQuery, InlineKeyboardMarkup, Message, Update

from bot.telegram.api.updates import conversation_key, is_group, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.markdown.render import Rendered
from core.i18n import Texts


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


class Replies:
    """Replies with texts of the locales."""

    def __init__(self, delivery: Delivery, texts: Texts) -> None:
        self._delivery = delivery
        self._texts = texts

    async def say(self, message: Message, key: str, language: str | None = None, /, **arguments: str | int) -> None:
        """Replies to a message, by default in the language of its author."""
        language = language or message_speaker(message).language
        await reply_to(self._delivery, message, self._texts.get(key, language, **arguments))

    async def alert(self, query: CallbackQuery, key: str) -> None:
        """Shows a text to the person who pressed a button, until they close it."""
        text = self._texts.get(key, query.from_user.language_code)
        await self._delivery.answer_callback(query.id, text, alert=True)

    async def answer(self, update: Update, key: str, **arguments: int) -> None:
        """Replies to the message of an update, or answers its press, with an alert unless the sender is denied."""
        message, query = update.message, update.callback_query
        if message is not None:
            await self.say(message, key, **arguments)
        elif query is not None:
            text = self._texts.get(key, query.from_user.language_code, **arguments)
            await self._delivery.answer_callback(query.id, text, alert=key not in {"not-allowed", "banned"})
