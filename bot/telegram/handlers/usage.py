"""Handlers of `/usage` and `/budget`: of the user and the chat; in a private chat operators also get the totals."""

from aiogram import Router
from aiogram.filters import CommandObject
from aiogram.types import Message

from bot.operators.spending import BudgetCommands, UsageReports
from bot.telegram.api.filters import Command
from bot.telegram.api.updates import conversation_key, is_group, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from core.messages import Surface, user_ref


def usage_router(
    *, admin_ids: frozenset[int], delivery: Delivery, usage: UsageReports, budgets: BudgetCommands
) -> Router:
    """Returns the router of `/usage` and `/budget`."""
    router = Router(name="usage")

    @router.message(Command("usage"))
    async def send_usage(message: Message) -> None:
        speaker = message_speaker(message)
        chat = conversation_key(message).chat_ref if is_group(message) else None
        text = await usage.report(user_ref(Surface.TELEGRAM, speaker.user_id), chat, speaker.language)
        if chat is None and speaker.user_id in admin_ids:
            text = f"{text}\n\n{await usage.report_all(speaker.language)}"
        await reply_to(delivery, message, text)

    @router.message(Command("budget"))
    async def send_budget(message: Message, command: CommandObject) -> None:
        speaker = message_speaker(message)
        chat = conversation_key(message).chat_ref if is_group(message) else None
        is_operator = speaker.user_id in admin_ids
        if is_operator and command.args:
            text = await budgets.run(command.args, speaker.user_id, speaker.language)
        else:
            text = await budgets.report(user_ref(Surface.TELEGRAM, speaker.user_id), chat, speaker.language)
            if is_operator and chat is None:
                text = f"{text}\n\n{await budgets.run('', speaker.user_id, speaker.language)}"
        await reply_to(delivery, message, text)

    return router
