"""Sends, edits and deletes messages: idempotent per job, with fallbacks for rejected parts."""

from dataclasses import replace
from typing import TypeVar

import structlog
from aiogram import Bot
from aiogram.exceptions import ClientDecodeError, TelegramAPIError, TelegramMigrateToChat
from aiogram.methods import (
    AnswerCallbackQuery,
    DeleteMessage,
    EditMessageReplyMarkup,
    SendChatAction,
    SendMessageDraft,
    SetMessageReaction,
    TelegramMethod,
)
from aiogram.types import InlineKeyboardMarkup, ReactionTypeEmoji, ReactionTypeUnion

from bot.telegram.api.errors import ApiFailure, classify_api_error, describe_api_error, parse_message_id
from bot.telegram.api.session import TelegramMetrics
from bot.telegram.delivery.calls import (
    API_ERRORS,
    CallKind,
    ChatCalls,
    ChatHeld,
    DeliveryTiming,
    OutgoingFile,
    OutgoingMessage,
    SendOutcome,
    SendResult,
    Sent,
)
from bot.telegram.delivery.rejections import omit_rejected
from bot.telegram.markdown.render import Rendered
from core.clock import Clock
from services.inbox.sent_messages import SentMessages

log = structlog.get_logger()

T = TypeVar("T")

_SUCCEEDED = frozenset({ApiFailure.DONE, ApiFailure.UNCHANGED})
_PROGRESS_RESULTS = {
    ApiFailure.UNKNOWN: SendResult.UNKNOWN,
    ApiFailure.MESSAGE_GONE: SendResult.GONE,
    ApiFailure.NO_METHOD: SendResult.UNSUPPORTED,
}


class Delivery:
    """Delivers messages to chats despite flood control, transient failures and rejections.

    Args:
        sent_messages: makes the sends of a retried job idempotent.
        metrics: counts retries and losses.
    """

    def __init__(
        self,
        bot: Bot,
        clock: Clock,
        sent_messages: SentMessages | None = None,
        metrics: TelegramMetrics | None = None,
        timing: DeliveryTiming | None = None,
    ) -> None:
        self._clock = clock
        self._sent_messages = sent_messages
        self._metrics = metrics
        self._timing = timing or DeliveryTiming()
        self._calls = ChatCalls(bot, clock, self._timing, metrics)
        self._supports_drafts = True
        self._typing_second = 0
        self._typing_count = 0

    def held_s(self, chat_id: int) -> float:
        """Returns the seconds for which flood control still holds a chat, 0 if it does not."""
        return self._calls.held_s(chat_id)

    async def send(
        self,
        chat_id: int,
        rendered: Rendered,
        *,
        topic_id: int | None = None,
        reply_to: int | None = None,
        markup: InlineKeyboardMarkup | None = None,
        file: OutgoingFile | None = None,
        final: bool = True,
    ) -> Sent | None:
        """Sends a text, or a file with the text as its caption. Returns None if that was impossible, and logs why."""
        sent: Sent | None = None

        async def post() -> int | None:
            nonlocal sent
            outcome = await self.post(
                chat_id, rendered, topic_id=topic_id, reply_to=reply_to, markup=markup, file=file, final=final
            )
            sent = outcome.sent
            return sent.message_id if sent is not None else None

        if self._sent_messages is None:
            await post()
            return sent
        message_id = await self._sent_messages.send_once(chat_id, post)
        return sent if sent is not None or message_id is None else Sent(self._calls.current_id(chat_id), message_id)

    async def post(
        self,
        chat_id: int,
        rendered: Rendered,
        *,
        topic_id: int | None = None,
        reply_to: int | None = None,
        markup: InlineKeyboardMarkup | None = None,
        file: OutgoingFile | None = None,
        final: bool = True,
    ) -> SendOutcome:
        """Sends a text, or a file with the text as its caption.

        Args:
            topic_id: forum topic; omitted if Telegram says that it is closed or gone.
            reply_to: id of the message to reply to; omitted if that is gone.
            final: whether it must arrive. Otherwise it is tried once, and dropped while the chat is held.
        """
        post = OutgoingMessage(chat_id, rendered, topic_id=topic_id, reply_to=reply_to, markup=markup, file=file)
        return await self._deliver(post, final=final)

    async def edit(
        self,
        chat_id: int,
        message_id: int,
        rendered: Rendered,
        *,
        topic_id: int | None = None,
        markup: InlineKeyboardMarkup | None = None,
        final: bool,
    ) -> SendOutcome:
        """Changes the text and the buttons of a message.

        Args:
            message_id: if the edit is final and the message is gone, the text is sent as a new message.
            topic_id: forum topic of such a new message.
            markup: None removes the buttons.
            final: whether it must arrive. Otherwise it is tried once, and dropped while the chat is held.
        """
        post = OutgoingMessage(chat_id, rendered, topic_id=topic_id, markup=markup, message_id=message_id)
        return await self._deliver(post, final=final)

    async def edit_markup(self, chat_id: int, message_id: int, markup: InlineKeyboardMarkup | None) -> bool:
        """Changes the buttons of a message. Returns whether it has them now."""
        method = EditMessageReplyMarkup(chat_id=chat_id, message_id=message_id, reply_markup=markup)
        return await self._call_or_log("edit_markup", method, chat_id)

    async def has_message(self, chat_id: int, message_id: int) -> bool:
        """Returns whether a message is the bot's own in this chat. Its buttons are removed if it is."""
        method = EditMessageReplyMarkup(chat_id=chat_id, message_id=message_id, reply_markup=None)
        try:
            await self._calls.call(method, chat_id, final=True, repeatable=True)
        except API_ERRORS as error:
            return classify_api_error(error) in _SUCCEEDED
        return True

    async def delete(self, chat_id: int, message_id: int) -> bool:
        """Deletes a message. Returns whether it is gone now."""
        return await self._call_or_log("delete", DeleteMessage(chat_id=chat_id, message_id=message_id), chat_id)

    async def attempt(self, method: TelegramMethod[bool], chat_id: int) -> TelegramAPIError | ClientDecodeError | None:
        """Deletes or restricts, with retries, whether or not messages of the chat are held by flood control.

        Returns the error that prevented it, if any.
        """
        try:
            await self._calls.call(method, chat_id, final=True, repeatable=True, kind=CallKind.ACT)
        except API_ERRORS as error:
            return None if classify_api_error(error) in _SUCCEEDED else error
        return None

    async def answer_callback(self, query_id: str, text: str | None = None, *, alert: bool = False) -> None:
        """Answers a callback query, with a toast if there is a text. A query that is too old is no failure."""
        method = AnswerCallbackQuery(callback_query_id=query_id, text=text, show_alert=alert or None)
        try:
            await self._calls.call_once(method)
        except API_ERRORS as error:
            log.debug("delivery.callback_failed", reason=describe_api_error(error))

    async def react(self, chat_id: int, message_id: int, emoji: str | None) -> None:
        """Sets the bot's reaction on a message, or removes it. A chat without reactions is no failure."""
        reaction: list[ReactionTypeUnion] = [ReactionTypeEmoji(emoji=emoji)] if emoji is not None else []
        method = SetMessageReaction(chat_id=chat_id, message_id=message_id, reaction=reaction)
        await self._call_if_free("delivery.reaction_failed", method, chat_id)

    async def typing(self, chat_id: int, *, topic_id: int | None = None) -> None:
        """Shows the typing indicator, unless the chat is held or too many chats show it."""
        if not self._may_type():
            return
        method = SendChatAction(chat_id=chat_id, action="typing", message_thread_id=topic_id)
        await self._call_if_free("delivery.typing_failed", method, chat_id)

    def _may_type(self) -> bool:
        second = int(self._clock.monotonic())
        if second != self._typing_second:
            self._typing_second, self._typing_count = second, 0
        self._typing_count += 1
        return self._typing_count <= self._timing.typing_per_s

    async def draft(
        self, chat_id: int, draft_id: int, rendered: Rendered, *, topic_id: int | None = None
    ) -> SendResult:
        """Shows a preview of a message in progress, in private chats only.

        Args:
            draft_id: not 0; updates with the same id are animated.
            rendered: the text so far.
            topic_id: topic of the private chat.
        """
        if not self._supports_drafts:
            return SendResult.UNSUPPORTED
        method = SendMessageDraft(
            chat_id=chat_id,
            draft_id=draft_id,
            message_thread_id=topic_id,
            text=rendered.text,
            parse_mode=None,
            entities=list(rendered.entities) or None,
            can_stop=True,
        )
        try:
            await self._calls.call(method, chat_id, final=False, repeatable=True)
        except ChatHeld:
            return SendResult.SKIPPED
        except API_ERRORS as error:
            fault = classify_api_error(error)
            if fault in _SUCCEEDED:
                return SendResult.SHOWN
            log.info("delivery.draft_failed", chat_id=chat_id, **_describe(error))
            if fault is ApiFailure.NO_METHOD:
                self._supports_drafts = False
            if fault in {ApiFailure.PASSING, ApiFailure.UNKNOWN, ApiFailure.ENTITIES}:
                return SendResult.SKIPPED
            return SendResult.UNREACHABLE if fault is ApiFailure.UNREACHABLE else SendResult.UNSUPPORTED
        return SendResult.SHOWN

    async def _deliver(self, post: OutgoingMessage, *, final: bool) -> SendOutcome:
        """Sends or edits, without the parts that Telegram rejects, until it is accepted."""
        while True:
            chat_id = self._calls.current_id(post.chat_id)
            post = replace(post, chat_id=chat_id)
            try:
                message_id = await self._send_or_edit(post, final=final)
            except ChatHeld:
                return SendOutcome(SendResult.SKIPPED)
            except API_ERRORS as error:
                fault = classify_api_error(error)
                if fault in _SUCCEEDED:
                    message_id = post.message_id or parse_message_id(error)
                    return SendOutcome(SendResult.SHOWN, Sent(chat_id, message_id) if message_id else None)
                migrated = fault is ApiFailure.MIGRATED
                simpler = self._follow_migration(post, error) if migrated else omit_rejected(post, fault, final=final)
                if simpler is None:
                    act = "edit" if post.message_id else "send"
                    return SendOutcome(self._give_up(act, chat_id, error, final=final))
                log.info("delivery.simplified", chat_id=chat_id, **_describe(error))
                post = simpler
            else:
                return SendOutcome(SendResult.SHOWN, Sent(chat_id, message_id))

    async def _send_or_edit(self, post: OutgoingMessage, *, final: bool) -> int:
        if post.message_id is None:
            sent = await self._calls.call(post.as_send(), post.chat_id, final=final, repeatable=False)
            return sent.message_id
        await self._calls.call(post.as_edit(), post.chat_id, final=final, repeatable=True)
        return post.message_id

    def _follow_migration(self, post: OutgoingMessage, error: Exception) -> OutgoingMessage | None:
        """Follows a group to its new id after a migration; messages of the old id do not exist there."""
        if post.moved or not isinstance(error, TelegramMigrateToChat):
            return None
        self._calls.migrate(post.chat_id, error.migrate_to_chat_id)
        return replace(post, chat_id=error.migrate_to_chat_id, message_id=None, reply_to=None, moved=True)

    def _give_up(self, act: str, chat_id: int, error: Exception, *, final: bool) -> SendResult:
        fault = classify_api_error(error)
        if fault is ApiFailure.UNREACHABLE:
            log.info("delivery.unreachable", act=act, chat_id=chat_id, reason=describe_api_error(error))
            return SendResult.UNREACHABLE
        if final:
            log.error("delivery.lost", act=act, chat_id=chat_id, **_describe(error))
            if self._metrics is not None:
                self._metrics.count_lost(act)
            return SendResult.LOST
        log.debug("delivery.progress_dropped", act=act, chat_id=chat_id, **_describe(error))
        return _PROGRESS_RESULTS.get(fault, SendResult.SKIPPED)

    async def _call_if_free(self, failure: str, method: TelegramMethod[bool], chat_id: int) -> None:
        """Tries a call once, unless flood control holds the chat; `failure` is the event of an error."""
        try:
            await self._calls.call(method, chat_id, final=False, repeatable=True)
        except ChatHeld:
            pass
        except API_ERRORS as error:
            log.debug(failure, chat_id=chat_id, reason=describe_api_error(error))

    async def _call_or_log(self, act: str, method: TelegramMethod[T], chat_id: int) -> bool:
        try:
            await self._calls.call(method, chat_id, final=True, repeatable=True)
        except API_ERRORS as error:
            fault = classify_api_error(error)
            if fault in _SUCCEEDED:
                return True
            log.info("delivery.call_failed", act=act, chat_id=chat_id, **_describe(error))
            return act == "delete" and fault is ApiFailure.MESSAGE_GONE and "not found" in describe_api_error(error)
        return True


def _describe(error: Exception) -> dict[str, str]:
    """Returns the log fields of a failed call."""
    return {"fault": classify_api_error(error).name.lower(), "reason": describe_api_error(error)}
