"""`/privacy`, and the question whether messages may leave the operator's own machines."""

import structlog
from aiogram import Bot, Router
from aiogram.filters import Command
from aiogram.types import CallbackQuery, InlineKeyboardMarkup, Message

from bot.telegram.answering import Answering
from bot.telegram.delivery import Delivery
from bot.telegram.incoming import incoming_for, is_group, key_of, speaker_behind
from bot.telegram.keyboards import Consent, consent_keyboard
from bot.telegram.lanes import Lanes
from bot.telegram.members import is_chat_admin
from bot.telegram.rendering import Rendered
from core.i18n import Texts
from services.chat.preferences import Preferences
from services.chat.scope import scope_of
from services.chat.threads import Threads
from services.llm.fallback import LLMProviderFallback

log = structlog.get_logger()


def privacy_router(
    *,
    answering: Answering,
    delivery: Delivery,
    lanes: Lanes,
    threads: Threads,
    preferences: Preferences,
    fallback: LLMProviderFallback,
    texts: Texts,
    ask: bool,
) -> Router:
    """The handlers of consent; `ask` as REMOTE_CONSENT says."""
    router = Router(name="privacy")
    remote = ", ".join(provider.id for provider in fallback.providers if provider.remote)

    async def standing(scope: str, language: str | None) -> tuple[str, InlineKeyboardMarkup | None]:
        """What holds in a chat, and what can be done about it."""
        if not remote:
            return texts.get("privacy-none", language), None
        if not ask:
            return texts.get("privacy-granted-by-operator", language, providers=remote), None
        granted = (await preferences.get(scope)).remote_consent
        if granted:
            text = texts.get("privacy-remote", language, providers=remote)
        else:
            text = texts.get("privacy-local-only", language)
        return text, consent_keyboard(texts, language, 0)

    @router.message(Command("privacy"))
    async def privacy(message: Message) -> None:
        place = key_of(message)
        text, markup = await standing(scope_of(place), speaker_behind(message).language)
        await delivery.send(place.chat_id, Rendered(text), topic_id=place.topic_id or None, markup=markup)

    @router.callback_query(Consent.filter())
    async def decided(query: CallbackQuery, callback_data: Consent, bot: Bot) -> None:
        message, language = query.message, query.from_user.language_code
        if not ask or not isinstance(message, Message):
            await delivery.answer_callback(query.id)
            return
        if is_group(message) and not await is_chat_admin(bot, message.chat.id, query.from_user.id):
            await delivery.answer_callback(query.id, texts.get("consent-admins-only", language), alert=True)
            return
        key = key_of(message)
        await preferences.set_remote_consent(scope_of(key), granted=callback_data.granted)
        log.info("consent.decided", chat_id=key.chat_id, granted=callback_data.granted, user_id=query.from_user.id)
        await delivery.answer_callback(query.id)
        text = texts.get("consent-granted" if callback_data.granted else "consent-withheld", language)
        await delivery.edit(message.chat.id, message.message_id, Rendered(text), markup=None, final=True)
        turn = await threads.turn(callback_data.turn) if callback_data.granted and callback_data.turn else None
        if turn is not None and turn.prompt is not None and turn.thread.key == key:
            # The message that waited for the answer to this question.
            incoming = incoming_for(turn, message, query.from_user)
            lanes.submit(key, lambda: answering.answer(incoming, retry_of=turn))

    return router
