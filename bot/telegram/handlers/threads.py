"""`/threads`: the conversations of this chat, to go on in, to rename, to throw away."""

import structlog
from aiogram import Bot, Router
from aiogram.filters import Command, CommandObject
from aiogram.types import CallbackQuery, InlineKeyboardMarkup, Message

from bot.telegram.answers.keyboards import (
    DropThread,
    OpenThread,
    ThreadCard,
    ThreadPage,
    thread_keyboard,
    threads_keyboard,
)
from bot.telegram.api.group_admins import is_chat_admin
from bot.telegram.api.messages import conversation_key, is_group, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from bot.telegram.markdown.render import Rendered
from core.i18n import Texts
from services.chat.store.thread_list import ThreadList
from services.chat.store.turns import TurnStore

log = structlog.get_logger()

PAGE = 8
RENAME = "rename"


class _Cards:
    """The message of `/threads` as it is shown to somebody."""

    def __init__(self, delivery: Delivery, shelf: ThreadList, texts: Texts) -> None:
        self._delivery = delivery
        self._shelf = shelf
        self._texts = texts

    async def page(self, message: Message, language: str | None, offset: int) -> tuple[str, InlineKeyboardMarkup]:
        """Some threads, newest first."""
        found = await self._shelf.page(conversation_key(message), PAGE + 1, offset)
        shown = [
            (each.thread.id, f"{'• ' if each.is_current else ''}{self.label(each.thread.name, language)}")
            for each in found[:PAGE]
        ]
        newer = max(offset - PAGE, 0) if offset else None
        older = offset + PAGE if len(found) > PAGE else None
        text = self._texts.get("threads-title" if shown else "threads-none", language)
        return text, threads_keyboard(self._texts, language, shown, newer=newer, older=older)

    def label(self, name: str | None, language: str | None) -> str:
        """What a thread is called."""
        return name or self._texts.get("thread-unnamed", language)

    async def may_change(self, query: CallbackQuery, message: Message, bot: Bot) -> bool:
        """Whether somebody may decide for this chat; if not, they are told."""
        if not is_group(message) or await is_chat_admin(bot, message.chat.id, query.from_user.id):
            return True
        text = self._texts.get("threads-group-admins-only", query.from_user.language_code)
        await self._delivery.answer_callback(query.id, text, alert=True)
        return False

    async def show(self, message: Message, text: str, markup: InlineKeyboardMarkup | None) -> None:
        """Put something else into the message."""
        await self._delivery.edit(message.chat.id, message.message_id, Rendered(text), markup=markup, final=True)

    async def gone(self, query: CallbackQuery, message: Message) -> None:
        """Say that a thread is not there any more, and show those that are."""
        language = query.from_user.language_code
        await self._delivery.answer_callback(query.id, self._texts.get("thread-gone", language))
        await self.show(message, *await self.page(message, language, 0))


def threads_router(*, delivery: Delivery, shelf: ThreadList, threads: TurnStore, texts: Texts) -> Router:
    """The handlers of the shelf."""
    router = Router(name="threads")
    cards = _Cards(delivery, shelf, texts)

    @router.message(Command("threads"))
    async def shelved(message: Message, command: CommandObject, bot: Bot) -> None:
        language = message_speaker(message).language
        verb, _, name = (command.args or "").strip().partition(" ")
        if verb.lower() != RENAME:
            await reply_to(delivery, message, *await cards.page(message, language, 0))
            return
        user = message.from_user
        if is_group(message) and not (user is not None and await is_chat_admin(bot, message.chat.id, user.id)):
            await reply_to(delivery, message, texts.get("threads-group-admins-only", language))
            return
        key = conversation_key(message)
        renamed = await shelf.rename(key, (await threads.current(key)).id, name)
        key_of_text = "thread-renamed" if renamed else "threads-rename-usage"
        await reply_to(delivery, message, texts.get(key_of_text, language, **({"name": renamed} if renamed else {})))

    @router.callback_query(ThreadPage.filter())
    async def turned(query: CallbackQuery, callback_data: ThreadPage) -> None:
        await delivery.answer_callback(query.id)
        if isinstance(query.message, Message):
            page = await cards.page(query.message, query.from_user.language_code, callback_data.offset)
            await cards.show(query.message, *page)

    @router.callback_query(ThreadCard.filter())
    async def looked_at(query: CallbackQuery, callback_data: ThreadCard) -> None:
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message):
            return
        found = await shelf.find(conversation_key(message), callback_data.thread)
        if found is None:
            await cards.gone(query, message)
            return
        await delivery.answer_callback(query.id)
        text = texts.get(
            "thread-really-delete" if callback_data.sure else "thread-card",
            language,
            name=cards.label(found.thread.name, language),
        )
        await cards.show(message, text, thread_keyboard(texts, language, found.thread.id, sure=callback_data.sure))

    @router.callback_query(OpenThread.filter())
    async def opened(query: CallbackQuery, callback_data: OpenThread, bot: Bot) -> None:
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message) or not await cards.may_change(query, message, bot):
            return
        thread = await shelf.switch(conversation_key(message), callback_data.thread)
        if thread is None:
            await cards.gone(query, message)
            return
        await delivery.answer_callback(query.id)
        await cards.show(message, texts.get("thread-opened", language, name=cards.label(thread.name, language)), None)

    @router.callback_query(DropThread.filter())
    async def dropped(query: CallbackQuery, callback_data: DropThread, bot: Bot) -> None:
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message) or not await cards.may_change(query, message, bot):
            return
        if not await shelf.delete(conversation_key(message), callback_data.thread):
            await cards.gone(query, message)
            return
        log.info("thread.deleted", thread_id=callback_data.thread, user_id=query.from_user.id)
        await delivery.answer_callback(query.id, texts.get("thread-deleted", language))
        await cards.show(message, *await cards.page(message, language, 0))

    return router
