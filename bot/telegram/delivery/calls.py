"""Outgoing messages and the Bot API calls that carry them: flood control with one budget per chat, and retries.

Telegram counts everything that is sent, edited or typed in a chat against one budget, so a 429 holds the whole chat:
meanwhile progress updates are dropped and final calls wait. Deletions and sanctions are counted apart from messages, so
they have holds of their own: an advert is deleted while cards wait. A send with an unknown result is repeated once at
most, since blind retries triple messages; an edit may be repeated freely.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from aiogram import Bot
from aiogram.exceptions import ClientDecodeError, TelegramAPIError
from aiogram.methods import EditMessageText, SendDocument, SendMessage, SendPhoto, SendVoice, TelegramMethod
from aiogram.types import BufferedInputFile, InlineKeyboardMarkup, LinkPreviewOptions, ReplyParameters
from cachetools import FIFOCache, TLRUCache

from bot.telegram.api.errors import ApiFailure, classify_api_error, find_pause_s
from bot.telegram.api.session import TelegramMetrics
from bot.telegram.markdown.render import Rendered
from core.clock import Backoff, Clock, draw_pause_s

log = structlog.get_logger()


NO_PREVIEW = LinkPreviewOptions(is_disabled=True)


class SendResult(StrEnum):
    """Result of showing a text."""

    SHOWN = "shown"
    SKIPPED = "skipped"
    """Dropped: a progress update while the chat is rate limited. A later one shows the same."""
    UNKNOWN = "unknown"
    """A progress update with an unknown result."""
    GONE = "gone"
    """A progress update to a message that no longer exists."""
    LOST = "lost"
    """Given up after all retries; an error event has the reason."""
    UNREACHABLE = "unreachable"
    """The bot cannot write in this chat: blocked, removed, or the chat is gone."""
    UNSUPPORTED = "unsupported"
    """The Bot API server does not support the method, or not in this chat."""


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


class FileShape(Enum):
    """The kind of message that shows a file."""

    DOCUMENT = auto()
    PHOTO = auto()
    VOICE = auto()


@dataclass(frozen=True, slots=True)
class OutgoingFile:
    """A file to send; the text of its message is its caption, 1,024 units at most.

    Args:
        shape: a photo is compressed by Telegram; a voice message is OGG/Opus.
    """

    name: str
    data: bytes
    shape: FileShape = FileShape.DOCUMENT


class _EditText(EditMessageText):
    """Edits a text. The edited message that Telegram answers with is not needed, so none of its entities is built."""

    __returning__ = dict[str, Any] | bool  # Any: JSON
    if TYPE_CHECKING:
        # Derived from the fields, a field with a default that is no literal would be required.
        __init__ = EditMessageText.__init__


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to send, or to put in place of `message_id`."""

    chat_id: int
    rendered: Rendered
    topic_id: int | None = None
    reply_to: int | None = None
    markup: InlineKeyboardMarkup | None = None
    message_id: int | None = None
    moved: bool = False
    file: OutgoingFile | None = None

    def as_send(self) -> SendMessage | SendDocument | SendPhoto | SendVoice:
        """Builds the call for a new message. A default parse mode must never be sent beside entities."""
        reply = None
        if self.reply_to is not None:
            reply = ReplyParameters(message_id=self.reply_to, allow_sending_without_reply=True)
        if self.file is not None:
            return self._as_file(self.file, reply)
        return SendMessage(
            chat_id=self.chat_id,
            message_thread_id=self.topic_id,
            text=self.rendered.text,
            parse_mode=None,
            entities=list(self.rendered.entities) or None,
            link_preview_options=NO_PREVIEW,
            reply_parameters=reply,
            reply_markup=self.markup,
        )

    def _as_file(self, file: OutgoingFile, reply: ReplyParameters | None) -> SendDocument | SendPhoto | SendVoice:
        upload = BufferedInputFile(file.data, file.name)
        common: dict[str, Any] = {  # Any: arguments of three calls
            "chat_id": self.chat_id,
            "message_thread_id": self.topic_id,
            "caption": self.rendered.text or None,
            "parse_mode": None,
            "caption_entities": list(self.rendered.entities) or None,
            "reply_parameters": reply,
            "reply_markup": self.markup,
        }
        match file.shape:
            case FileShape.PHOTO:
                return SendPhoto(photo=upload, **common)
            case FileShape.VOICE:
                return SendVoice(voice=upload, **common)
            case FileShape.DOCUMENT:
                return SendDocument(document=upload, **common)

    def as_edit(self) -> EditMessageText:
        """Builds the call that edits `message_id`."""
        return _EditText(
            chat_id=self.chat_id,
            message_id=self.message_id,
            text=self.rendered.text,
            parse_mode=None,
            entities=list(self.rendered.entities) or None,
            link_preview_options=NO_PREVIEW,
            reply_markup=self.markup,
        )


T = TypeVar("T")

API_ERRORS = (TelegramAPIError, ClientDecodeError)
HELD_CHATS = 16_384
"""Holds kept in memory. The least recently used is evicted first, which costs its chat one more 429."""
MIGRATED_CHATS = 1024


@dataclass(frozen=True, slots=True)
class DeliveryTiming:
    """Retries and limits of the delivery.

    Args:
        tries: calls of a final message, the first included.
        backoff: pauses between them, plus up to `jitter_s`.
        call_timeout_s: timeout of one call.
        hold_s: how long a chat is held after a 429 without `retry_after`.
        longest_hold_s: bound of `retry_after`; Telegram repeats a 429 that still holds.
        typing_per_s: typing indicators per second over all chats. Telegram limits a bot's calls of all kinds; more of
            them would cause 429s for messages.
    """

    tries: int = 6
    backoff: Backoff = Backoff(1.0, 20.0)
    jitter_s: float = 1.0
    call_timeout_s: int = 15
    hold_s: float = 1.0
    longest_hold_s: float = 3600.0
    typing_per_s: int = 30

    def pause_s(self, failures: int) -> float:
        """Returns the pause after this many failures."""
        return min(self.backoff.pause_s(failures) + draw_pause_s(0, self.jitter_s), self.backoff.longest_s)


class CallKind(StrEnum):
    """The budget against which Telegram counts a call in a chat."""

    MESSAGE = "message"
    ACT = "act"
    """Deletes a message, or restricts a member."""


class ChatHeld(Exception):
    """Flood control holds the chat, and the call is not final."""


class ChatCalls:
    """Makes the Bot API calls of all chats, and knows which chats are held and which groups were migrated."""

    def __init__(self, bot: Bot, clock: Clock, timing: DeliveryTiming, metrics: TelegramMetrics | None) -> None:
        self._bot = bot
        self._clock = clock
        self._timing = timing
        self._metrics = metrics
        self._held_until: TLRUCache[tuple[int, CallKind], float] = TLRUCache(
            HELD_CHATS, ttu=lambda _chat, until, _now: until, timer=clock.monotonic
        )
        self._migrated: FIFOCache[int, int] = FIFOCache(MIGRATED_CHATS)

    def held_s(self, chat_id: int, kind: CallKind = CallKind.MESSAGE) -> float:
        """Returns the seconds for which flood control still holds a chat, 0 if it does not."""
        now = self._clock.monotonic()
        return max(self._held_until.get((self.current_id(chat_id), kind), now) - now, 0.0)

    def current_id(self, chat_id: int) -> int:
        """Returns the id of a group after its migration; of any other chat, the same id."""
        return self._migrated.get(chat_id, chat_id)

    def migrate(self, chat_id: int, new_id: int) -> None:
        """Sends messages for a group to its new id from now on."""
        self._migrated[chat_id] = new_id
        log.info("delivery.chat_migrated", chat_id=chat_id, new_chat_id=new_id)

    async def call(
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
                if failures == tries or not _is_retryable(failure, unknown, repeatable=repeatable):
                    raise
                self._count_retry(failure)
            await self._clock.sleep(self._timing.pause_s(failures))

    async def call_once(self, method: TelegramMethod[T]) -> T:
        """Makes a call that belongs to no chat, without retries."""
        return await self._bot(method, request_timeout=self._timing.call_timeout_s)

    def _count_retry(self, failure: ApiFailure) -> None:
        if self._metrics is not None:
            self._metrics.count_retry(failure)

    def _hold(self, chat_id: int, kind: CallKind, error: Exception) -> None:
        timing = self._timing
        seconds = find_pause_s(error) or timing.hold_s
        seconds = min(max(seconds, timing.hold_s), timing.longest_hold_s)
        until = self._clock.monotonic() + seconds
        self._held_until[chat_id, kind] = max(self._held_until.get((chat_id, kind), until), until)
        log.warning("delivery.chat_held", chat_id=chat_id, kind=kind.value, retry_after_s=seconds)


def _is_retryable(failure: ApiFailure, unknown: int, *, repeatable: bool) -> bool:
    """Returns whether a call may be made again; `unknown` counts its results that are unknown."""
    if failure is ApiFailure.UNKNOWN:
        return repeatable or unknown == 1
    return failure is ApiFailure.PASSING
