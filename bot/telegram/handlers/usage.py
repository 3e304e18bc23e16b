"""Handler of `/usage`: usage of the user and the chat; operators also get the totals, in a private chat only."""

from aiogram import Router
from aiogram.types import Message

from bot.operators.usage import UsageReports
from bot.telegram.api.messages import conversation_key, is_group, message_speaker
from bot.telegram.api.updates import Command
from bot.telegram.delivery.delivery import Delivery, reply_to
from core.messages import Surface, user_ref


def usage_router(*, admin_ids: frozenset[int], delivery: Delivery, usage: UsageReports) -> Router:
    """Returns the router of `/usage`."""
    router = Router(name="usage")

    @router.message(Command("usage"))
    async def send_usage(message: Message) -> None:
        speaker = message_speaker(message)
        chat = conversation_key(message).chat_ref if is_group(message) else None
        text = await usage.report(user_ref(Surface.TELEGRAM, speaker.user_id), chat, speaker.language)
        if chat is None and speaker.user_id in admin_ids:
            text = f"{text}\n\n{await usage.report_all()}"
        await reply_to(delivery, message, text)

    return router
