"""Sends, edits and deletes messages: flood control per chat, retries, fallbacks for rejected parts.

Everything sent, edited and typed in a chat counts against one budget, so a 429 holds the whole chat: meanwhile progress
updates are dropped and final texts wait. A send with an unknown result is repeated once at most, since blind retries
triple messages; an edit may be repeated freely.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, TypeVar

import structlog
from aiogram import Bot
from aiogram.exceptions import ClientDecodeError, TelegramAPIError, TelegramMigrateToChat, TelegramRetryAfter
from aiogram.methods import (
    AnswerCallbackQuery,
    DeleteMessage,
    EditMessageReplyMarkup,
    SendChatAction,
    SendMessageDraft,
    TelegramMethod,
)
from aiogram.types import InlineKeyboardMarkup
from cachetools import FIFOCache

from bot.telegram.api.errors import ApiFailure, classify_api_error, describe_api_error, parse_message_id
from bot.telegram.delivery.outgoing import OutgoingMessage
from bot.telegram.markdown.render import Rendered
from core.backoff import Backoff
from core.clock import Clock

log = structlog.get_logger()

T = TypeVar("T")

CHATS_KEPT = 1024
_FAILURES = (TelegramAPIError, ClientDecodeError)


@dataclass(frozen=True, slots=True)
class DeliveryTiming:
    """Retries and limits of the delivery.

    Args:
        tries: calls of a final message, the first included.
        backoff: pauses between them, plus up to `jitter_s`.
        call_timeout_s: of one call.
        hold_s: how long a chat is held after a 429 without `retry_after`.
        typing_per_s: typing indicators per second over all chats. Telegram limits a bot's calls of all kinds; more of
            them would cause 429s for messages.
    """

    tries: int = 6
    backoff: Backoff = Backoff(1.0, 20.0)
    jitter_s: float = 1.0
    call_timeout_s: int = 15
    hold_s: float = 1.0
    typing_per_s: int = 30

    def pause_s(self, failures: int) -> float:
        """Return the pause after this many failures."""
        jitter = random.uniform(0, self.jitter_s)  # noqa: S311 - jitter, not a secret
        return min(self.backoff.pause_s(failures) + jitter, self.backoff.longest_s)


class SendResult(StrEnum):
    """Result of showing a text."""

    SHOWN = "shown"
    SKIPPED = "skipped"
    """Dropped: a progress update while the chat is rate limited. A later one shows the same."""
    UNKNOWN = "unknown"
    """A progress update whose result is unknown."""
    GONE = "gone"
    """A progress update to a message that no longer exists."""
    LOST = "lost"
    """Given up after all retries; an error event has the reason."""
    UNREACHABLE = "unreachable"
    """The bot cannot write in this chat: blocked, removed, or the chat is gone."""
    UNSUPPORTED = "unsupported"
    """The Bot API server does not support the method, or not in this chat."""


_PROGRESS_RESULTS = {
    ApiFailure.UNKNOWN: SendResult.UNKNOWN,
    ApiFailure.MESSAGE_GONE: SendResult.GONE,
    ApiFailure.NO_METHOD: SendResult.UNSUPPORTED,
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A sent message. The chat differs from the requested one if a group was migrated."""

    chat_id: int
    message_id: int


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """Result of a send or an edit, and the message if it exists."""

    result: SendResult
    sent: Sent | None = None


class SentMessageStore(Protocol):
    """Records the messages that the current job has sent."""

    async def send_once(self, chat_id: int, send: Callable[[], Awaitable[int | None]]) -> int | None:
        """Send a message unless an earlier run of the job did. Returns its id."""
        ...


class DeliveryMeter(Protocol):
    """Counts retries and losses."""

    def retried(self, fault: ApiFailure) -> None:
        """Count a retried call."""
        ...

    def lost(self, act: str) -> None:
        """Count a send or edit that was given up."""
        ...


class Delivery:
    """Delivers messages to chats despite flood control, transient failures and rejections.

    Args:
        said: makes sends of a retried job idempotent.
        meter: counts retries and losses.
    """

    def __init__(
        self,
        bot: Bot,
        clock: Clock,
        said: SentMessageStore | None = None,
        meter: DeliveryMeter | None = None,
        timing: DeliveryTiming | None = None,
    ) -> None:
        self._bot = bot
        self._said = said
        self._clock = clock
        self._meter = meter
        self._timing = timing or DeliveryTiming()
        self._held: dict[int, float] = {}
        self._migrated: FIFOCache[int, int] = FIFOCache(CHATS_KEPT)
        self._knows_drafts = True
        self._typed_in = 0
        self._typed = 0

    def held_s(self, chat_id: int) -> float:
        """Return the seconds for which flood control still holds a chat, 0 if it does not."""
        chat_id = self._migrated.get(chat_id, chat_id)
        if chat_id not in self._held:
            return 0.0
        left = self._held[chat_id] - self._clock.monotonic()
        if left <= 0:
            del self._held[chat_id]
        return max(left, 0.0)

    async def send(
        self,
        chat_id: int,
        rendered: Rendered,
        *,
        topic_id: int | None = None,
        reply_to: int | None = None,
        markup: InlineKeyboardMarkup | None = None,
        final: bool = True,
    ) -> Sent | None:
        """Send a text. Returns None if that was impossible; a log event has the reason."""

        async def post() -> Sent | None:
            return (
                await self.post(chat_id, rendered, topic_id=topic_id, reply_to=reply_to, markup=markup, final=final)
            ).sent

        if self._said is None:
            return await post()
        return await self._sent_once(self._said, chat_id, post)

    async def _sent_once(
        self, said: SentMessageStore, chat_id: int, post: Callable[[], Awaitable[Sent | None]]
    ) -> Sent | None:
        sent: Sent | None = None

        async def send() -> int | None:
            nonlocal sent
            sent = await post()
            return sent.message_id if sent is not None else None

        message_id = await said.send_once(chat_id, send)
        return (
            sent if sent is not None or message_id is None else Sent(self._migrated.get(chat_id, chat_id), message_id)
        )

    async def post(
        self,
        chat_id: int,
        rendered: Rendered,
        *,
        topic_id: int | None = None,
        reply_to: int | None = None,
        markup: InlineKeyboardMarkup | None = None,
        final: bool = True,
    ) -> SendOutcome:
        """Send a text.

        Args:
            topic_id: forum topic; omitted if Telegram says that it is closed or gone.
            reply_to: id of the message to reply to; omitted if that is gone.
            final: whether it must arrive. Otherwise it is tried once, and dropped while the chat is held.
        """
        post = OutgoingMessage(chat_id, rendered, topic_id=topic_id, reply_to=reply_to, markup=markup)
        return await self._show(post, final=final)

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
        """Change the text and the buttons of a message.

        Args:
            message_id: if the edit is final and the message is gone, the text is sent as a new message.
            topic_id: forum topic of such a new message.
            markup: None removes the buttons.
            final: whether it must arrive. Otherwise it is tried once, and dropped while the chat is held.
        """
        post = OutgoingMessage(chat_id, rendered, topic_id=topic_id, markup=markup, message_id=message_id)
        return await self._show(post, final=final)

    async def edit_markup(self, chat_id: int, message_id: int, markup: InlineKeyboardMarkup | None) -> bool:
        """Change the buttons of a message. Returns whether it has them now."""
        method = EditMessageReplyMarkup(chat_id=chat_id, message_id=message_id, reply_markup=markup)
        return await self._settle("edit_markup", method, chat_id)

    async def delete(self, chat_id: int, message_id: int) -> bool:
        """Delete a message. Returns whether it is gone now."""
        return await self._settle("delete", DeleteMessage(chat_id=chat_id, message_id=message_id), chat_id)

    async def attempt(self, method: TelegramMethod[bool], chat_id: int) -> TelegramAPIError | ClientDecodeError | None:
        """Make a repeatable call with retries. Returns the error that prevented it, if any."""
        try:
            await self._call(method, chat_id, final=True, repeatable=True)
        except _FAILURES as error:
            return None if classify_api_error(error) in {ApiFailure.DONE, ApiFailure.UNCHANGED} else error
        return None

    async def answer_callback(self, query_id: str, text: str | None = None, *, alert: bool = False) -> None:
        """Answer a callback query, with a toast if there is a text. A query that is too old is no failure."""
        method = AnswerCallbackQuery(callback_query_id=query_id, text=text, show_alert=alert or None)
        try:
            await self._bot(method, request_timeout=self._timing.call_timeout_s)
        except _FAILURES as error:
            log.debug("delivery.callback_unanswered", reason=describe_api_error(error))

    async def typing(self, chat_id: int, *, topic_id: int | None = None) -> None:
        """Show the typing indicator, unless the chat is held or too many chats show it."""
        if not self._may_type():
            return
        method = SendChatAction(chat_id=chat_id, action="typing", message_thread_id=topic_id)
        try:
            await self._call(method, chat_id, final=False, repeatable=True)
        except _Held:
            pass
        except _FAILURES as error:
            log.debug("delivery.typing_failed", chat_id=chat_id, reason=describe_api_error(error))

    def _may_type(self) -> bool:
        second = int(self._clock.monotonic())
        if second != self._typed_in:
            self._typed_in, self._typed = second, 0
        self._typed += 1
        return self._typed <= self._timing.typing_per_s

    async def draft(
        self, chat_id: int, draft_id: int, rendered: Rendered, *, topic_id: int | None = None
    ) -> SendResult:
        """Show a preview of a message in progress, in private chats only.

        Args:
            draft_id: not 0; updates with the same id are animated.
            rendered: the text so far.
            topic_id: topic of the private chat.
        """
        if not self._knows_drafts:
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
            await self._call(method, chat_id, final=False, repeatable=True)
        except _Held:
            return SendResult.SKIPPED
        except _FAILURES as error:
            fault = classify_api_error(error)
            if fault in {ApiFailure.DONE, ApiFailure.UNCHANGED}:
                return SendResult.SHOWN
            log.info(
                "delivery.draft_failed", chat_id=chat_id, fault=fault.name.lower(), reason=describe_api_error(error)
            )
            if fault is ApiFailure.NO_METHOD:
                self._knows_drafts = False
            if fault in {ApiFailure.PASSING, ApiFailure.UNKNOWN, ApiFailure.ENTITIES}:
                return SendResult.SKIPPED
            return SendResult.UNREACHABLE if fault is ApiFailure.UNREACHABLE else SendResult.UNSUPPORTED
        return SendResult.SHOWN

    async def _show(self, post: OutgoingMessage, *, final: bool) -> SendOutcome:
        """Send or edit, without the parts that Telegram rejects, until it is accepted."""
        while True:
            chat_id = self._migrated.get(post.chat_id, post.chat_id)
            post = replace(post, chat_id=chat_id)
            try:
                message_id = await self._carry_out(post, final=final)
            except _Held:
                return SendOutcome(SendResult.SKIPPED)
            except _FAILURES as error:
                fault = classify_api_error(error)
                if fault in {ApiFailure.DONE, ApiFailure.UNCHANGED}:
                    message_id = post.message_id or parse_message_id(error)
                    return SendOutcome(SendResult.SHOWN, Sent(chat_id, message_id) if message_id else None)
                simpler = (
                    self._follow_migration(post, error)
                    if fault is ApiFailure.MIGRATED
                    else post.without(fault, final=final)
                )
                if simpler is None:
                    return SendOutcome(
                        self._given_up("edit" if post.message_id else "send", chat_id, error, final=final)
                    )
                log.info(
                    "delivery.simplified", chat_id=chat_id, fault=fault.name.lower(), reason=describe_api_error(error)
                )
                post = simpler
            else:
                return SendOutcome(SendResult.SHOWN, Sent(chat_id, message_id))

    async def _carry_out(self, post: OutgoingMessage, *, final: bool) -> int:
        if post.message_id is None:
            sent = await self._call(post.as_send(), post.chat_id, final=final, repeatable=False)
            return sent.message_id
        await self._call(post.as_edit(), post.chat_id, final=final, repeatable=True)
        return post.message_id

    def _follow_migration(self, post: OutgoingMessage, error: Exception) -> OutgoingMessage | None:
        """Follow a group to its new id after a migration; messages of the old id do not exist there."""
        if post.moved or not isinstance(error, TelegramMigrateToChat):
            return None
        self._migrated[post.chat_id] = error.migrate_to_chat_id
        log.info("delivery.chat_migrated", chat_id=post.chat_id, new_chat_id=error.migrate_to_chat_id)
        return replace(post, chat_id=error.migrate_to_chat_id, message_id=None, reply_to=None, moved=True)

    def _given_up(self, act: str, chat_id: int, error: Exception, *, final: bool) -> SendResult:
        fault = classify_api_error(error)
        if fault is ApiFailure.UNREACHABLE:
            log.info("delivery.unreachable", act=act, chat_id=chat_id, reason=describe_api_error(error))
            return SendResult.UNREACHABLE
        if final:
            log.error(
                "delivery.lost", act=act, chat_id=chat_id, fault=fault.name.lower(), reason=describe_api_error(error)
            )
            if self._meter is not None:
                self._meter.lost(act)
            return SendResult.LOST
        log.debug(
            "delivery.skipped", act=act, chat_id=chat_id, fault=fault.name.lower(), reason=describe_api_error(error)
        )
        return _PROGRESS_RESULTS.get(fault, SendResult.SKIPPED)

    async def _settle(self, act: str, method: TelegramMethod[T], chat_id: int) -> bool:
        try:
            await self._call(method, chat_id, final=True, repeatable=True)
        except _FAILURES as error:
            fault = classify_api_error(error)
            if fault in {ApiFailure.DONE, ApiFailure.UNCHANGED}:
                return True
            log.info(
                "delivery.act_failed",
                act=act,
                chat_id=chat_id,
                fault=fault.name.lower(),
                reason=describe_api_error(error),
            )
            return act == "delete" and fault is ApiFailure.MESSAGE_GONE and "not found" in describe_api_error(error)
        return True

    async def _call(self, method: TelegramMethod[T], chat_id: int, *, final: bool, repeatable: bool) -> T:
        """Make one call. A final call is repeated after floods, and after transient failures with pauses."""
        if not final and self.held_s(chat_id) > 0:
            raise _Held
        while True:
            try:
                return await self._retry(method, chat_id, self._timing.tries if final else 1, repeatable=repeatable)
            except _FAILURES as error:
                if classify_api_error(error) is not ApiFailure.FLOOD:
                    raise
                self._hold(chat_id, error)
                if not final:
                    raise _Held from None
                self._count_retry(error)

    async def _retry(self, method: TelegramMethod[T], chat_id: int, tries: int, *, repeatable: bool) -> T:
        policy, failures = _RetryPolicy(repeatable=repeatable), 0
        while True:
            while (left := self.held_s(chat_id)) > 0:
                await self._clock.sleep(left)
            try:
                return await self._bot(method, request_timeout=self._timing.call_timeout_s)
            except _FAILURES as error:
                failures += 1
                if failures == tries or not policy.allows(error):
                    raise
                self._count_retry(error)
                await self._clock.sleep(self._timing.pause_s(failures))

    def _count_retry(self, error: BaseException) -> None:
        if self._meter is not None:
            self._meter.retried(classify_api_error(error))

    def _hold(self, chat_id: int, error: Exception) -> None:
        now = self._clock.monotonic()
        seconds = error.retry_after if isinstance(error, TelegramRetryAfter) else self._timing.hold_s
        if len(self._held) >= CHATS_KEPT:
            self._held = {chat: until for chat, until in self._held.items() if until > now}
        self._held[chat_id] = max(self._held.get(chat_id, 0.0), now + seconds)
        log.warning("delivery.chat_held", chat_id=chat_id, retry_after_s=seconds)


class _RetryPolicy:
    """Decides whether a failed call is retried."""

    def __init__(self, *, repeatable: bool) -> None:
        self._repeatable = repeatable
        self._doubts = 0

    def allows(self, error: BaseException) -> bool:
        """Return whether the call may be made again after this error."""
        fault = classify_api_error(error)
        if fault is ApiFailure.UNKNOWN:
            self._doubts += 1
            return self._repeatable or self._doubts == 1
        return fault is ApiFailure.PASSING


class _Held(Exception):
    """The chat is held by flood control and the update is not final."""
