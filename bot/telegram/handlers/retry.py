"""Retry and Retry elsewhere: the latest answer of a conversation, made again."""

from aiogram import Router
from aiogram.types import CallbackQuery, InlineKeyboardMarkup, Message, Update

from bot.telegram.answers.keyboards import Back, Elsewhere, Retry, RetryWith, answer_keyboard, elsewhere_keyboard
from bot.telegram.api.messages import conversation_key
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.jobs.regenerate import RegenerateQueue
from core.i18n import Texts
from services.chat.store.conversation import Turn
from services.chat.store.turns import TurnStore
from services.llm.routing.fallback import LLMProviderFallback


def retry_router(
    *,
    encore: RegenerateQueue,
    delivery: Delivery,
    threads: TurnStore,
    texts: Texts,
    fallback: LLMProviderFallback,
) -> Router:
    """The handlers of the buttons under an answer."""
    router = Router(name="retry")

    async def retried(query: CallbackQuery, turn_id: int) -> tuple[Message, Turn] | None:
        """The message under which the button was pressed and its turn, if that may be answered again."""
        message, language = query.message, query.from_user.language_code
        turn = await threads.turn(turn_id)
        if (
            not isinstance(message, Message)
            or turn is None
            or turn.prompt is None
            or turn.thread.key != conversation_key(message)
        ):
            await delivery.answer_callback(query.id, texts.get("retry-gone", language))
            return None
        if not await is_latest(turn):
            await delivery.answer_callback(query.id, texts.get("retry-last-only", language))
            return None
        return message, turn

    async def is_latest(turn: Turn) -> bool:
        latest = await threads.last_turn(turn.thread.key)
        return latest is not None and latest.id == turn.id

    async def show(message: Message, markup: InlineKeyboardMarkup | None) -> None:
        await delivery.edit_markup(message.chat.id, message.message_id, markup)

    async def again(query: CallbackQuery, update: Update, turn_id: int, provider: str | None) -> None:
        found = await retried(query, turn_id)
        if found is None:
            return
        message, turn = found
        taken = await encore.ask(update, turn, message, query.from_user, provider=provider, only_latest=True)
        text = None if taken else texts.get("queue-full", query.from_user.language_code)
        await delivery.answer_callback(query.id, text)
        if taken:
            await show(message, None)

    @router.callback_query(Retry.filter())
    async def retry(query: CallbackQuery, callback_data: Retry, event_update: Update) -> None:
        await again(query, event_update, callback_data.turn, None)

    @router.callback_query(RetryWith.filter())
    async def retry_with(query: CallbackQuery, callback_data: RetryWith, event_update: Update) -> None:
        await again(query, event_update, callback_data.turn, callback_data.provider)

    @router.callback_query(Elsewhere.filter())
    async def elsewhere(query: CallbackQuery, callback_data: Elsewhere) -> None:
        found = await retried(query, callback_data.turn)
        if found is not None:
            language = query.from_user.language_code
            providers = [provider.id for provider in fallback.providers]
            await delivery.answer_callback(query.id, texts.get("retry-pick", language))
            await show(found[0], elsewhere_keyboard(texts, language, found[1].id, providers))

    @router.callback_query(Back.filter())
    async def back(query: CallbackQuery, callback_data: Back) -> None:
        await delivery.answer_callback(query.id)
        if isinstance(query.message, Message):
            language = query.from_user.language_code
            several = len(fallback.providers) > 1
            await show(query.message, answer_keyboard(texts, language, callback_data.turn, elsewhere=several))

    return router
