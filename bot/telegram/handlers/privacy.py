"""Handlers of `/privacy`, of the remote consent question, and of `/forget`."""

import structlog
from aiogram import Router
from aiogram.filters.callback_data import CallbackData
from aiogram.types import CallbackQuery, Message, Update

from bot.telegram.answers.cancellation import ReplyCancellation
from bot.telegram.answers.keyboards import DecideConsent, build_keyboard, button, consent_keyboard
from bot.telegram.api.filters import Command
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.updates import conversation_key, is_group, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import edit_text, reply_to
from bot.telegram.handlers.button_guards import ChatAdminsOnly
from bot.telegram.handlers.retry import RegenerateQueue
from core.i18n import Texts
from core.messages import Surface
from services.chat.service import ChatService
from services.chat.store.turns import TurnStore
from services.preferences import Consent
from services.privacy.erasure import Eraser

log = structlog.get_logger()


class PrivacyHandlers:
    """Shows and stores a chat's remote consent; in a group only its admins decide."""

    def __init__(
        self, *, regenerate: RegenerateQueue, delivery: Delivery, turns: TurnStore, consent: Consent, texts: Texts
    ) -> None:
        self._regenerate = regenerate
        self._delivery = delivery
        self._turns = turns
        self._consent = consent
        self._texts = texts

    def router(self, admins: GroupAdmins) -> Router:
        """Returns the router."""
        router = Router(name="privacy")
        router.message.register(self.show, Command("privacy"))
        if self._consent.is_open:
            router.callback_query.middleware(ChatAdminsOnly(admins, self._delivery, self._texts, "consent-admins-only"))
            router.callback_query.register(self.decide, DecideConsent.filter())
        else:
            # A button in an old message; the operator's setting decides now.
            router.callback_query.register(self.ignore, DecideConsent.filter())
        return router

    async def show(self, message: Message) -> None:
        """Sends the chat's privacy state, with the consent buttons if the chat may decide."""
        language = message_speaker(message).language
        markup = consent_keyboard(self._texts, language, 0) if self._consent.is_open else None
        text = await self._consent.describe(conversation_key(message).chat_ref, language)
        await reply_to(self._delivery, message, text, markup)

    async def decide(self, query: CallbackQuery, callback_data: DecideConsent, event_update: Update) -> None:
        """Stores a decision, then answers the turn that waited for it."""
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message):
            await self._delivery.answer_callback(query.id)
            return
        key = conversation_key(message)
        text = await self._consent.decide(key.chat_ref, language, granted=callback_data.granted)
        log.info("consent.decided", chat_id=key.chat_id, granted=callback_data.granted, user_id=query.from_user.id)
        await self._delivery.answer_callback(query.id)
        await edit_text(self._delivery, message, text)
        turn = await self._turns.turn(callback_data.turn) if callback_data.granted and callback_data.turn else None
        if turn is None or turn.prompt is None or turn.thread.key != key:
            return
        accepted = await self._regenerate.enqueue(
            event_update, turn, message, query.from_user, provider=None, only_latest=False
        )
        if not accepted:
            await reply_to(self._delivery, message, self._texts.get("queue-full", language))

    async def ignore(self, query: CallbackQuery) -> None:
        """Acknowledges a press without effect."""
        await self._delivery.answer_callback(query.id)


class ForgetMe(CallbackData, prefix="forg"):
    """Confirms or cancels the erasure of the person."""

    sure: bool


class ForgetHandlers:
    """Erases a person at their request, which they confirm in their private chat."""

    def __init__(
        self, *, eraser: Eraser, cancellation: ReplyCancellation, chat: ChatService, delivery: Delivery, texts: Texts
    ) -> None:
        self._eraser = eraser
        self._cancellation = cancellation
        self._chat = chat
        self._delivery = delivery
        self._texts = texts

    def router(self) -> Router:
        """Returns the router."""
        router = Router(name="forget")
        router.message.register(self.ask, Command("forget"))
        router.callback_query.register(self.decide, ForgetMe.filter())
        return router

    async def ask(self, message: Message) -> None:
        """Asks for a confirmation, listing the erased and the kept data."""
        language = message_speaker(message).language
        if is_group(message):
            await reply_to(self._delivery, message, self._texts.get("forget-private-only", language))
            return
        row = [
            button(self._texts.get("button-forget", language), ForgetMe(sure=True)),
            button(self._texts.get("button-keep", language), ForgetMe(sure=False)),
        ]
        await reply_to(self._delivery, message, self._texts.get("forget-question", language), build_keyboard([row]))

    async def decide(self, query: CallbackQuery, callback_data: ForgetMe) -> None:
        """Erases the person. A failure of the database is raised, so that the job is done again."""
        message, user = query.message, query.from_user
        await self._delivery.answer_callback(query.id)
        if not isinstance(message, Message) or message.chat.id != user.id:
            return
        if callback_data.sure:
            # Before the row of this chat is deleted: a running answer would be stored.
            await self._cancellation.stop_chat(user.id)
            await self._chat.deferred.flush()
            names = [user.full_name, user.first_name, f"@{user.username}" if user.username else ""]
            await self._eraser.erase(Surface.TELEGRAM, user.id, names)
        key = "forget-done" if callback_data.sure else "forget-kept"
        await edit_text(self._delivery, message, self._texts.get(key, user.language_code))
