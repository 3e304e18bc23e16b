"""`/privacy`, and the question whether messages may leave the operator's own machines."""

import structlog
from aiogram import Bot, Router
from aiogram.filters import Command
from aiogram.types import CallbackQuery, Message, Update

from bot.telegram.answers.keyboards import ConsentGiven, consent_keyboard
from bot.telegram.api.group_admins import is_chat_admin
from bot.telegram.api.messages import conversation_key, is_group, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from bot.telegram.jobs.regenerate import RegenerateQueue
from bot.telegram.markdown.render import Rendered
from core.i18n import Texts
from services.chat.store.turns import TurnStore
from services.consent import Consent

log = structlog.get_logger()


def privacy_router(
    *,
    encore: RegenerateQueue,
    delivery: Delivery,
    threads: TurnStore,
    consent: Consent,
    texts: Texts,
) -> Router:
    """The handlers of consent."""
    router = Router(name="privacy")

    @router.message(Command("privacy"))
    async def privacy(message: Message) -> None:
        language = message_speaker(message).language
        markup = consent_keyboard(texts, language, 0) if consent.is_open else None
        await reply_to(delivery, message, await consent.standing(conversation_key(message).chat_ref, language), markup)

    @router.callback_query(ConsentGiven.filter())
    async def decided(query: CallbackQuery, callback_data: ConsentGiven, bot: Bot, event_update: Update) -> None:
        message, language = query.message, query.from_user.language_code
        if not consent.is_open or not isinstance(message, Message):
            await delivery.answer_callback(query.id)
            return
        if is_group(message) and not await is_chat_admin(bot, message.chat.id, query.from_user.id):
            await delivery.answer_callback(query.id, texts.get("consent-admins-only", language), alert=True)
            return
        key = conversation_key(message)
        text = await consent.decide(key.chat_ref, language, granted=callback_data.granted)
        log.info("consent.decided", chat_id=key.chat_id, granted=callback_data.granted, user_id=query.from_user.id)
        await delivery.answer_callback(query.id)
        await delivery.edit(message.chat.id, message.message_id, Rendered(text), markup=None, final=True)
        turn = await threads.turn(callback_data.turn) if callback_data.granted and callback_data.turn else None
        # The message that waited for the answer to this question.
        waits = turn is not None and turn.prompt is not None and turn.thread.key == key
        if turn is not None and waits:
            taken = await encore.ask(event_update, turn, message, query.from_user, provider=None, only_latest=False)
            if not taken:
                await reply_to(delivery, message, texts.get("queue-full", language))

    return router
