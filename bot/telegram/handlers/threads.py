"""Handlers of `/threads`: lists a chat's threads, opens, renames and deletes them."""

from collections.abc import Sequence

import structlog
from aiogram import Router
from aiogram.filters import CommandObject
from aiogram.filters.callback_data import CallbackData
from aiogram.types import CallbackQuery, InlineKeyboardMarkup, Message

from bot.telegram.answers.keyboards import build_keyboard, button
from bot.telegram.api.filters import Command, NewTopic
from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.updates import conversation_key, is_group, message_speaker
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import edit_text, reply_to
from bot.telegram.handlers.button_guards import ChatAdminsOnly
from core.i18n import Texts
from services.chat.store.thread_list import ThreadList
from services.chat.store.turns import TurnStore
from services.moderation.domain.ports import Standing

log = structlog.get_logger()

PAGE_SIZE = 8
RENAME = "rename"


class ShowThreadPage(CallbackData, prefix="thrs"):
    """Shows the page of threads at an offset."""

    offset: int


class ShowThread(CallbackData, prefix="thr"):
    """Shows one thread; with `sure` its deletion is to be confirmed."""

    thread: int
    sure: bool = False


class OpenThread(CallbackData, prefix="thro"):
    """Makes a thread the current one."""

    thread: int


class DeleteThread(CallbackData, prefix="thrd"):
    """Deletes a thread."""

    thread: int


def threads_keyboard(
    texts: Texts, language: str | None, threads: Sequence[tuple[int, str]], *, newer: int | None, older: int | None
) -> InlineKeyboardMarkup:
    """Builds a page of threads; `newer` and `older` are the offsets of the neighbouring pages, if any."""
    rows = [[button(label[:60], ShowThread(thread=thread))] for thread, label in threads]
    paging = [
        button(texts.get(key, language), ShowThreadPage(offset=offset))
        for key, offset in (("button-newer", newer), ("button-older", older))
        if offset is not None
    ]
    return build_keyboard([*rows, paging] if paging else rows)


def thread_keyboard(texts: Texts, language: str | None, thread: int, *, sure: bool) -> InlineKeyboardMarkup:
    """Builds the actions on a thread, or with `sure` the confirmation of its deletion."""
    if sure:
        back = button(texts.get("button-back", language), ShowThread(thread=thread))
        return build_keyboard(
            [[button(texts.get("button-really-delete", language), DeleteThread(thread=thread)), back]]
        )
    open_ = button(texts.get("button-open", language), OpenThread(thread=thread))
    drop = button(texts.get("button-delete", language), ShowThread(thread=thread, sure=True))
    return build_keyboard([[open_, drop], [button(texts.get("button-back", language), ShowThreadPage(offset=0))]])


class ThreadHandlers:
    """Shows the threads of a chat and changes them; in a group only its admins may change them."""

    def __init__(
        self, *, delivery: Delivery, thread_list: ThreadList, turns: TurnStore, admins: GroupAdmins, texts: Texts
    ) -> None:
        self._delivery = delivery
        self._thread_list = thread_list
        self._turns = turns
        self._admins = admins
        self._texts = texts

    def router(self) -> Router:
        """Returns the router."""
        router, changes = Router(name="threads"), Router(name="changes of threads")
        changes.callback_query.middleware(
            ChatAdminsOnly(self._admins, self._delivery, self._texts, "threads-group-admins-only")
        )
        changes.callback_query.register(self.open_thread, OpenThread.filter())
        changes.callback_query.register(self.delete_thread, DeleteThread.filter())
        router.include_router(changes)
        router.message.register(self.list_or_rename, Command("threads"))
        router.message.register(self.note_topic, NewTopic())
        router.callback_query.register(self.show_page, ShowThreadPage.filter())
        router.callback_query.register(self.show_card, ShowThread.filter())
        return router

    async def list_or_rename(self, message: Message, command: CommandObject) -> None:
        """Lists the threads, or renames the current one: `/threads rename <name>`."""
        language = message_speaker(message).language
        verb, _, name = (command.args or "").strip().partition(" ")
        if verb.lower() != RENAME:
            await reply_to(self._delivery, message, *await self._render_page(message, language, 0))
            return
        standing = await self._admins.fetch_author_standing(message) if is_group(message) else Standing.ADMIN
        if standing is not Standing.ADMIN:
            denial = "rights-unknown" if standing is Standing.UNKNOWN else "threads-group-admins-only"
            await reply_to(self._delivery, message, self._texts.get(denial, language))
            return
        key = conversation_key(message)
        renamed = await self._thread_list.rename(key, (await self._turns.current(key)).id, name)
        text_key, arguments = ("thread-renamed", {"name": renamed}) if renamed else ("threads-rename-usage", {})
        await reply_to(self._delivery, message, self._texts.get(text_key, language, **arguments))

    async def note_topic(self, message: Message) -> None:
        """Marks a new topic of a private chat with a generated name: it takes the name of its conversation."""
        created = message.forum_topic_created
        if created is not None and created.is_name_implicit and not is_group(message):
            thread = await self._turns.current(conversation_key(message))
            await self._thread_list.await_topic_name(thread.id)

    async def show_page(self, query: CallbackQuery, callback_data: ShowThreadPage) -> None:
        """Turns to a page of threads."""
        await self._delivery.answer_callback(query.id)
        if isinstance(query.message, Message):
            page = await self._render_page(query.message, query.from_user.language_code, callback_data.offset)
            await edit_text(self._delivery, query.message, *page)

    async def show_card(self, query: CallbackQuery, callback_data: ShowThread) -> None:
        """Shows a thread with its actions."""
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message):
            return
        found = await self._thread_list.find(conversation_key(message), callback_data.thread)
        if found is None:
            await self._report_gone(query, message)
            return
        await self._delivery.answer_callback(query.id)
        key = "thread-really-delete" if callback_data.sure else "thread-card"
        text = self._texts.get(key, language, name=self._label(found.thread.name, language))
        markup = thread_keyboard(self._texts, language, found.thread.id, sure=callback_data.sure)
        await edit_text(self._delivery, message, text, markup)

    async def open_thread(self, query: CallbackQuery, callback_data: OpenThread) -> None:
        """Makes a thread the current one."""
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message):
            return
        thread = await self._thread_list.switch(conversation_key(message), callback_data.thread)
        if thread is None:
            await self._report_gone(query, message)
            return
        await self._delivery.answer_callback(query.id)
        text = self._texts.get("thread-opened", language, name=self._label(thread.name, language))
        await edit_text(self._delivery, message, text)

    async def delete_thread(self, query: CallbackQuery, callback_data: DeleteThread) -> None:
        """Deletes a thread and shows the first page."""
        message, language = query.message, query.from_user.language_code
        if not isinstance(message, Message):
            return
        if not await self._thread_list.delete(conversation_key(message), callback_data.thread):
            await self._report_gone(query, message)
            return
        log.info("thread.deleted", thread_id=callback_data.thread, user_id=query.from_user.id)
        await self._delivery.answer_callback(query.id, self._texts.get("thread-deleted", language))
        await edit_text(self._delivery, message, *await self._render_page(message, language, 0))

    async def _render_page(
        self, message: Message, language: str | None, offset: int
    ) -> tuple[str, InlineKeyboardMarkup]:
        """Renders a page of threads, newest first; the current one is marked."""
        found = await self._thread_list.page(conversation_key(message), PAGE_SIZE + 1, offset)
        shown = [
            (each.thread.id, f"{'• ' if each.is_current else ''}{self._label(each.thread.name, language)}")
            for each in found[:PAGE_SIZE]
        ]
        newer = max(offset - PAGE_SIZE, 0) if offset else None
        older = offset + PAGE_SIZE if len(found) > PAGE_SIZE else None
        text = self._texts.get("threads-title" if shown else "threads-none", language)
        return text, threads_keyboard(self._texts, language, shown, newer=newer, older=older)

    def _label(self, name: str | None, language: str | None) -> str:
        return name or self._texts.get("thread-unnamed", language)

    async def _report_gone(self, query: CallbackQuery, message: Message) -> None:
        """Reports that a thread no longer exists, and shows the first page."""
        language = query.from_user.language_code
        await self._delivery.answer_callback(query.id, self._texts.get("thread-gone", language))
        await edit_text(self._delivery, message, *await self._render_page(message, language, 0))
