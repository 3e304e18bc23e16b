"""Sends, edits and deletes messages: idempotent per job, in step with flood control, with fallbacks for rejected parts.

Telegram counts everything that is sent, edited or typed in a chat against one budget, so a 429 holds the whole chat:
meanwhile progress updates are dropped and final calls wait. Deletions and sanctions are counted apart from messages, so
they have holds of their own: an advert is deleted while cards wait. A send with an unknown result is repeated once at
most, since blind retries triple messages; an edit may be repeated freely.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from aiogram import Bot
from aiogram.exceptions import ClientDecodeError, TelegramAPIError, TelegramMigrateToChat
from aiogram.methods import (
    AnswerCallbackQuery,
    DeleteMessage,
    EditMessageReplyMarkup,
    EditMessageText,
    SendChatAction,
    SendMessage,
    SetMessageReaction,
    TelegramMethod,
)
from aiogram.types import (
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    ReactionTypeEmoji,
    ReactionTypeUnion,
    ReplyParameters,
)
from cachetools import FIFOCache, TLRUCache

from bot.telegram.api.errors import ApiFailure, classify_api_error, describe_api_error, parse_message_id
from bot.telegram.api.session import TelegramMetrics
from bot.telegram.delivery.drafts import Drafts
from bot.telegram.delivery.failures import (
    API_ERRORS,
    SUCCEEDED,
    CallKind,
    ChatHeld,
    DeliveryTiming,
    describe_failure,
    give_up,
    is_retryable,
)
from bot.telegram.delivery.outgoing import (
    OutgoingFile,
    OutgoingMessage,
    SendOutcome,
    SendResult,
    Sent,
    Upload,
    build_upload,
    omit_rejected,
)
from bot.telegram.markdown.render import Rendered
from core.clock import Clock
from services.inbox.sent_messages import SentMessages

log = structlog.get_logger()

T = TypeVar("T")

HELD_CHATS = 16_384
"""Holds kept in memory. The least recently used is evicted first, which costs its chat one more 429."""
MIGRATED_CHATS = 1024
NO_PREVIEW = LinkPreviewOptions(is_disabled=True)


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
        self._bot = bot
        self._clock = clock
        self._sent_messages = sent_messages
        self._metrics = metrics
        self._timing = timing or DeliveryTiming()
        self._held_until: TLRUCache[tuple[int, CallKind], float] = TLRUCache(
            HELD_CHATS, ttu=lambda _chat, until, _now: until, timer=clock.monotonic
        )
        self._migrated: FIFOCache[int, int] = FIFOCache(MIGRATED_CHATS)
        """New ids of groups, by their old ones."""
        self.drafts = Drafts(lambda method, chat_id: self._call(method, chat_id, final=False, repeatable=True))
        self._typing_second = self._typing_count = 0

    def held_s(self, chat_id: int, kind: CallKind = CallKind.MESSAGE) -> float:
        """Returns the seconds for which flood control still holds a chat, 0 if it does not."""
        current_id, now = self._migrated.get(chat_id, chat_id), self._clock.monotonic()
        return max(self._held_until.get((current_id, kind), now) - now, 0.0)

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
        if sent is not None or message_id is None:
            return sent
        return Sent(self._migrated.get(chat_id, chat_id), message_id)

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
        message = OutgoingMessage(chat_id, rendered, topic_id=topic_id, reply_to=reply_to, markup=markup, file=file)
        return await self._deliver(message, final=final)

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
        message = OutgoingMessage(chat_id, rendered, topic_id=topic_id, markup=markup, message_id=message_id)
        return await self._deliver(message, final=final)

    async def edit_markup(self, chat_id: int, message_id: int, markup: InlineKeyboardMarkup | None) -> bool:
        """Changes the buttons of a message. Returns whether it has them now."""
        method = EditMessageReplyMarkup(chat_id=chat_id, message_id=message_id, reply_markup=markup)
        return await self._call_or_log("edit_markup", method, chat_id)

    async def has_message(self, chat_id: int, message_id: int) -> bool:
        """Returns whether a message is the bot's own in this chat. Its buttons are removed if it is."""
        method = EditMessageReplyMarkup(chat_id=chat_id, message_id=message_id, reply_markup=None)
        try:
            await self._call(method, chat_id, final=True, repeatable=True)
        except API_ERRORS as error:
            return classify_api_error(error) in SUCCEEDED
        return True

    async def delete(self, chat_id: int, message_id: int) -> bool:
        """Deletes a message. Returns whether it is gone now."""
        return await self._call_or_log("delete", DeleteMessage(chat_id=chat_id, message_id=message_id), chat_id)

    async def attempt(self, method: TelegramMethod[bool], chat_id: int) -> TelegramAPIError | ClientDecodeError | None:
        """Deletes or restricts, with retries, whether or not messages of the chat are held by flood control.

        Returns the error that prevented it, if any.
        """
        try:
            await self._call(method, chat_id, final=True, repeatable=True, kind=CallKind.ACT)
        except API_ERRORS as error:
            return None if classify_api_error(error) in SUCCEEDED else error
        return None

    async def answer_callback(self, query_id: str, text: str | None = None, *, alert: bool = False) -> None:
        """Answers a callback query, with a toast if there is a text. A query that is too old is no failure."""
        method = AnswerCallbackQuery(callback_query_id=query_id, text=text, show_alert=alert or None)
        try:
            await self._bot(method, request_timeout=self._timing.call_timeout_s)
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

    async def _deliver(self, message: OutgoingMessage, *, final: bool) -> SendOutcome:
        """Sends or edits, without the parts that Telegram rejects, until it is accepted."""
        while True:
            chat_id, message_id = self._migrated.get(message.chat_id, message.chat_id), message.message_id
            if chat_id != message.chat_id:
                message = replace(message, chat_id=chat_id)
            try:
                if message_id is None:
                    sent = await self._call(build_send(message), chat_id, final=final, repeatable=False)
                    message_id = sent.message_id
                else:
                    await self._call(build_edit(message), chat_id, final=final, repeatable=True)
            except ChatHeld:
                return SendOutcome(SendResult.SKIPPED)
            except API_ERRORS as error:
                fault = classify_api_error(error)
                if fault in SUCCEEDED:
                    message_id = message_id or parse_message_id(error)
                    return SendOutcome(SendResult.SHOWN, Sent(chat_id, message_id) if message_id else None)
                if fault is ApiFailure.MIGRATED:
                    simpler = self._follow_migration(message, error)
                else:
                    simpler = omit_rejected(message, fault, final=final)
                if simpler is None:
                    return SendOutcome(self._give_up(message, error, final=final))
                log.info("delivery.simplified", chat_id=chat_id, **describe_failure(error))
                message = simpler
            else:
                return SendOutcome(SendResult.SHOWN, Sent(chat_id, message_id))

    def _follow_migration(self, message: OutgoingMessage, error: Exception) -> OutgoingMessage | None:
        """Follows a group to its new id after a migration; messages of the old id do not exist there."""
        if message.moved or not isinstance(error, TelegramMigrateToChat):
            return None
        new_id = self._migrated[message.chat_id] = error.migrate_to_chat_id
        log.info("delivery.chat_migrated", chat_id=message.chat_id, new_chat_id=new_id)
        return replace(message, chat_id=new_id, message_id=None, reply_to=None, moved=True)

    def _give_up(self, message: OutgoingMessage, error: Exception, *, final: bool) -> SendResult:
        act = "edit" if message.message_id else "send"
        result = give_up(act, message.chat_id, error, final=final)
        if result is SendResult.LOST and self._metrics is not None:
            self._metrics.count_lost(act)
        return result

    async def _call_if_free(self, failure: str, method: TelegramMethod[bool], chat_id: int) -> None:
        """Tries a call once, unless flood control holds the chat; `failure` is the event of an error."""
        try:
            await self._call(method, chat_id, final=False, repeatable=True)
        except ChatHeld:
            pass
        except API_ERRORS as error:
            log.debug(failure, chat_id=chat_id, reason=describe_api_error(error))

    async def _call_or_log(self, act: str, method: TelegramMethod[T], chat_id: int) -> bool:
        try:
            await self._call(method, chat_id, final=True, repeatable=True)
        except API_ERRORS as error:
            fault = classify_api_error(error)
            if fault in SUCCEEDED:
                return True
            log.info("delivery.call_failed", act=act, chat_id=chat_id, **describe_failure(error))
            return act == "delete" and fault is ApiFailure.MESSAGE_GONE and "not found" in describe_api_error(error)
        return True

    async def _call(
        self,
        method: TelegramMethod[T],
        chat_id: int,
        *,
        final: bool,
        repeatable: bool,
        kind: CallKind = CallKind.MESSAGE,
    ) -> T:
        """Makes a call in a chat.

        Args:
            final: whether it must succeed: it waits while the chat is held, floods restart it without counting as
                tries, and transient failures are retried with pauses. Otherwise it is tried once.
            repeatable: whether carrying it out twice does no harm, so that it is retried after unknown results too.

        Raises:
            ChatHeld: the chat is held and the call is not final.
            TelegramAPIError: the call failed for good.
            ClientDecodeError: its last answer could not be decoded.
        """
        if not final and self.held_s(chat_id, kind) > 0:
            raise ChatHeld
        tries, failures, unknown = self._timing.tries if final else 1, 0, 0
        while True:
            while (left := self.held_s(chat_id, kind)) > 0:
                await self._clock.sleep(left)
            try:
                return await self._bot(method, request_timeout=self._timing.call_timeout_s)
            except API_ERRORS as error:
                failure = classify_api_error(error)
                if failure is ApiFailure.FLOOD:
                    self._hold(chat_id, kind, error)
                    if not final:
                        raise ChatHeld from None
                    self._count_retry(failure)
                    failures = unknown = 0
                    continue
                failures += 1
                unknown += failure is ApiFailure.UNKNOWN
                if failures == tries or not is_retryable(failure, unknown, repeatable=repeatable):
                    raise
                self._count_retry(failure)
            await self._clock.sleep(self._timing.pause_s(failures))

    def _count_retry(self, failure: ApiFailure) -> None:
        if self._metrics is not None:
            self._metrics.count_retry(failure)

    def _hold(self, chat_id: int, kind: CallKind, error: Exception) -> None:
        seconds = self._timing.held_s(error)
        until = self._clock.monotonic() + seconds
        self._held_until[chat_id, kind] = max(self._held_until.get((chat_id, kind), until), until)
        log.warning("delivery.chat_held", chat_id=chat_id, kind=kind.value, retry_after_s=seconds)


def build_send(message: OutgoingMessage) -> SendMessage | Upload:
    """Builds the call for a new message. A default parse mode must never be sent beside entities."""
    reply = None
    if message.reply_to is not None:
        reply = ReplyParameters(message_id=message.reply_to, allow_sending_without_reply=True)
    if message.file is not None:
        return build_upload(message, message.file, reply)
    return SendMessage(
        chat_id=message.chat_id,
        message_thread_id=message.topic_id,
        text=message.rendered.text,
        parse_mode=None,
        entities=list(message.rendered.entities) or None,
        link_preview_options=NO_PREVIEW,
        reply_parameters=reply,
        reply_markup=message.markup,
    )


class _EditText(EditMessageText):
    """Edits a text. The edited message that Telegram answers with is not needed, so none of its entities is built."""

    __returning__ = dict[str, Any] | bool  # Any: JSON
    if TYPE_CHECKING:
        # Derived from the fields, a field with a default that is no literal would be required.
        __init__ = EditMessageText.__init__


def build_edit(message: OutgoingMessage) -> EditMessageText:
    """Builds the call that edits `message_id`."""
    return _EditText(
        chat_id=message.chat_id,
        message_id=message.message_id,
        text=message.rendered.text,
        parse_mode=None,
        entities=list(message.rendered.entities) or None,
        link_preview_options=NO_PREVIEW,
        reply_markup=message.markup,
    )
