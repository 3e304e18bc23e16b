"""`/usage`: what the asker and the chat used; those who run the bot see everything, where nobody else reads it."""

from aiogram import Router
from aiogram.filters import Command
from aiogram.types import Message

from bot.telegram.delivery import Delivery
from bot.telegram.incoming import is_group, key_of, speaker_behind
from bot.telegram.telling import tell
from core.messages import Surface
from services.chat.scope import scope_of
from services.usage.desk import UsageDesk


def usage_router(*, admin_ids: frozenset[int], delivery: Delivery, usage: UsageDesk) -> Router:
    """The handler of the usage desk."""
    router = Router(name="usage")

    @router.message(Command("usage"))
    async def used(message: Message) -> None:
        speaker = speaker_behind(message)
        chat = scope_of(key_of(message)) if is_group(message) else None
        text = await usage.report(f"{Surface.TELEGRAM}:{speaker.user_id}", chat, speaker.language)
        if chat is None and speaker.user_id in admin_ids:
            text = f"{text}\n\n{await usage.everything()}"
        await tell(delivery, message, text)

    return router
