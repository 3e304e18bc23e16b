"""The one way out to Telegram for what is said in a chat.

Everything sent, edited and typed in a chat counts against one budget, so a 429 holds the whole chat: while it is held,
what only shows progress is skipped and what must arrive waits. A send whose outcome is unknown is repeated once at
most, since blind retries of sends are what triples messages; an edit may be repeated freely.
"""

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
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from bot.telegram.api.errors import ApiFailure, classify_api_error, describe_api_error, message_id_in
from bot.telegram.delivery.outgoing import OutgoingMessage
from bot.telegram.markdown.render import Rendered
from core.clock import Clock

log = structlog.get_logger()

T = TypeVar("T")

TRIES = 6
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 20.0
CALL_TIMEOUT_S = 15
DEFAULT_HOLD_S = 1.0
CHATS_KEPT = 1024
TYPING_PER_S = 30
"""What Telegram takes from a bot each second, of whatever kind: beyond that, chats that are only typed in would bring
floods over those in which something is said."""
_FAILURES = (TelegramAPIError, ClientDecodeError)


class SendResult(StrEnum):
    """What became of something that was to be shown."""

    SHOWN = "shown"
    SKIPPED = "skipped"
    """Not carried out, and not to be: it only showed progress. Later is another chance."""
    UNKNOWN = "unknown"
    """It only showed progress, and nobody can tell whether it was carried out."""
    GONE = "gone"
    """It only showed progress, and the message to be changed is not there any more."""
    LOST = "lost"
    """Given up; an error event says why."""
    UNREACHABLE = "unreachable"
    """The bot cannot speak in this chat: blocked, kicked, or the chat is no more."""
    UNSUPPORTED = "unsupported"
    """The Bot API server does not do this, or not in this chat."""


_PROGRESS_RESULTS = {
    ApiFailure.UNKNOWN: SendResult.UNKNOWN,
    ApiFailure.MESSAGE_GONE: SendResult.GONE,
    ApiFailure.NO_METHOD: SendResult.UNSUPPORTED,
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that stands in a chat; the chat is not the one asked for where a group has moved."""

    chat_id: int
    message_id: int


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """What became of a message, and where it now stands."""

    result: SendResult
    sent: Sent | None = None


class SentMessageStore(Protocol):
    """Knows what the job that runs has sent already."""

    async def send_once(self, chat_id: int, send: Callable[[], Awaitable[int | None]]) -> int | None:
        """Send a message unless that was done in an earlier run of the job; its id."""
        ...


class DeliveryMeter(Protocol):
    """Who counts what did not go smoothly."""

    def retried(self, fault: ApiFailure) -> None:
        """A call is made once more."""
        ...

    def lost(self, act: str) -> None:
        """What was to be sent, or edited, was given up."""
        ...


class Delivery:
    """Says things in chats, through flood control, hiccups and refusals.

    Args:
        bot: whose messages they are.
        clock: what pauses and holds are measured by.
        said: knows what a job has sent, so that one which is done again does not send it twice.
        meter: counts.
    """

    def __init__(
        self, bot: Bot, clock: Clock, said: SentMessageStore | None = None, meter: DeliveryMeter | None = None
    ) -> None:
        self._bot = bot
        self._said = said
        self._clock = clock
        self._meter = meter
        self._held: dict[int, float] = {}
        self._moved: dict[int, int] = {}
        self._knows_drafts = True
        self._typed_in = 0
        self._typed = 0

    def held_s(self, chat_id: int) -> float:
        """Tell for how many seconds flood control still holds a chat; 0 where it does not."""
        chat_id = self._moved.get(chat_id, chat_id)
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
        """Say something; None where it could not be said, which a log event explains."""

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
        return sent if sent is not None or message_id is None else Sent(self._moved.get(chat_id, chat_id), message_id)

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
        """Say something, and tell what became of it.

        Args:
            chat_id: where.
            rendered: what.
            topic_id: the forum topic; left out where Telegram says that it is closed or gone.
            reply_to: the message that this answers; left out where that is gone.
            markup: buttons.
            final: whether it must arrive. If not, it is tried once, and skipped while the chat is held.
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
        """Change what a message says, and its buttons.

        Args:
            chat_id: where it stands.
            message_id: which one; if it is final and that one is gone, the text is sent anew.
            rendered: what it is to say.
            topic_id: the forum topic for what is sent anew.
            markup: buttons; None takes them away.
            final: whether it must arrive. If not, it is tried once, and skipped while the chat is held.
        """
        post = OutgoingMessage(chat_id, rendered, topic_id=topic_id, markup=markup, message_id=message_id)
        return await self._show(post, final=final)

    async def edit_markup(self, chat_id: int, message_id: int, markup: InlineKeyboardMarkup | None) -> bool:
        """Change the buttons of a message, and tell whether they are as asked now."""
        method = EditMessageReplyMarkup(chat_id=chat_id, message_id=message_id, reply_markup=markup)
        return await self._settle("edit_markup", method, chat_id)

    async def delete(self, chat_id: int, message_id: int) -> bool:
        """Take a message away, and tell whether it is gone now."""
        return await self._settle("delete", DeleteMessage(chat_id=chat_id, message_id=message_id), chat_id)

    async def attempt(self, method: TelegramMethod[bool], chat_id: int) -> TelegramAPIError | ClientDecodeError | None:
        """Do something in a chat that may be repeated, through floods and hiccups; what kept it from being done."""
        try:
            await self._call(method, chat_id, final=True, repeatable=True)
        except _FAILURES as error:
            return None if classify_api_error(error) in {ApiFailure.DONE, ApiFailure.UNCHANGED} else error
        return None

    async def answer_callback(self, query_id: str, text: str | None = None, *, alert: bool = False) -> None:
        """End the wait of a pressed button, with a passing note where there is one. Too late is no fault."""
        method = AnswerCallbackQuery(callback_query_id=query_id, text=text, show_alert=alert or None)
        try:
            await self._bot(method, request_timeout=CALL_TIMEOUT_S)
        except _FAILURES as error:
            log.debug("delivery.callback_unanswered", reason=describe_api_error(error))

    async def typing(self, chat_id: int, *, topic_id: int | None = None) -> None:
        """Show that the bot is writing, unless flood control holds the chat or it writes in very many."""
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
        return self._typed <= TYPING_PER_S

    async def draft(
        self, chat_id: int, draft_id: int, rendered: Rendered, *, topic_id: int | None = None
    ) -> SendResult:
        """Show a preview of a message that is being written; for private chats.

        Args:
            chat_id: where.
            draft_id: which draft, not 0; the same id makes the change an animation.
            rendered: what there is so far.
            topic_id: the topic of the private chat.
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
        """Carry out a post or an edit, leaving out what Telegram refuses of it until it is taken."""
        while True:
            chat_id = self._moved.get(post.chat_id, post.chat_id)
            post = replace(post, chat_id=chat_id)
            try:
                message_id = await self._carry_out(post, final=final)
            except _Held:
                return SendOutcome(SendResult.SKIPPED)
            except _FAILURES as error:
                fault = classify_api_error(error)
                if fault in {ApiFailure.DONE, ApiFailure.UNCHANGED}:
                    message_id = post.message_id or message_id_in(error)
                    return SendOutcome(SendResult.SHOWN, Sent(chat_id, message_id) if message_id else None)
                simpler = (
                    self._moved_on(post, error) if fault is ApiFailure.MIGRATED else post.without(fault, final=final)
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

    def _moved_on(self, post: OutgoingMessage, error: Exception) -> OutgoingMessage | None:
        """Follow a group to its new id, where the messages of old do not exist."""
        if post.moved or not isinstance(error, TelegramMigrateToChat):
            return None
        if len(self._moved) >= CHATS_KEPT:
            del self._moved[next(iter(self._moved))]
        self._moved[post.chat_id] = error.migrate_to_chat_id
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
        """Make one call: when it is final, again and again through floods, and with pauses through passing faults."""
        if not final and self.held_s(chat_id) > 0:
            raise _Held
        while True:
            try:
                return await self._tried(method, chat_id, TRIES if final else 1, repeatable=repeatable)
            except _FAILURES as error:
                if classify_api_error(error) is not ApiFailure.FLOOD:
                    raise
                self._hold(chat_id, error)
                if not final:
                    raise _Held from None
                self._again(error)

    async def _tried(self, method: TelegramMethod[T], chat_id: int, tries: int, *, repeatable: bool) -> T:
        attempts = AsyncRetrying(
            sleep=self._clock.sleep,
            stop=stop_after_attempt(tries),
            wait=wait_exponential_jitter(FIRST_PAUSE_S, LONGEST_PAUSE_S, jitter=FIRST_PAUSE_S),
            retry=retry_if_exception(_Patience(repeatable=repeatable)),
            before_sleep=self._paused,
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                while (left := self.held_s(chat_id)) > 0:
                    await self._clock.sleep(left)
                return await self._bot(method, request_timeout=CALL_TIMEOUT_S)
        raise AssertionError("the last attempt returns or raises")

    def _paused(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if error is not None:
            self._again(error)

    def _again(self, error: BaseException) -> None:
        if self._meter is not None:
            self._meter.retried(classify_api_error(error))

    def _hold(self, chat_id: int, error: Exception) -> None:
        now = self._clock.monotonic()
        seconds = error.retry_after if isinstance(error, TelegramRetryAfter) else DEFAULT_HOLD_S
        if len(self._held) >= CHATS_KEPT:
            self._held = {chat: until for chat, until in self._held.items() if until > now}
        self._held[chat_id] = max(self._held.get(chat_id, 0.0), now + seconds)
        log.warning("delivery.chat_held", chat_id=chat_id, retry_after_s=seconds)


class _Patience:
    """Decides whether a call is worth another try."""

    def __init__(self, *, repeatable: bool) -> None:
        self._repeatable = repeatable
        self._doubts = 0

    def __call__(self, error: BaseException) -> bool:
        fault = classify_api_error(error)
        if fault is ApiFailure.UNKNOWN:
            self._doubts += 1
            return self._repeatable or self._doubts == 1
        return fault is ApiFailure.PASSING


class _Held(Exception):
    """Flood control holds the chat, and what was to be done cannot wait."""
