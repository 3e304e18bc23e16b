"""Failed calls and flood control: which calls are made again, after which pause, and the result of those given up."""

from dataclasses import dataclass
from enum import StrEnum

import structlog
from aiogram.exceptions import ClientDecodeError, TelegramAPIError

from bot.telegram.api.errors import ApiFailure, classify_api_error, describe_api_error, find_pause_s
from bot.telegram.delivery.outgoing import SendResult
from core.clock import Backoff, draw_pause_s

log = structlog.get_logger()

API_ERRORS = (TelegramAPIError, ClientDecodeError)
SUCCEEDED = frozenset({ApiFailure.DONE, ApiFailure.UNCHANGED})
_PROGRESS_RESULTS = {
    ApiFailure.UNKNOWN: SendResult.UNKNOWN,
    ApiFailure.MESSAGE_GONE: SendResult.GONE,
    ApiFailure.NO_METHOD: SendResult.UNSUPPORTED,
}


class CallKind(StrEnum):
    """The budget against which Telegram counts a call in a chat."""

    MESSAGE = "message"
    ACT = "act"
    """Deletes a message, or restricts a member."""


class ChatHeld(Exception):
    """Flood control holds the chat, and the call is not final."""


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

    def held_s(self, error: Exception) -> float:
        """Returns the seconds for which a 429 holds its chat."""
        return min(max(find_pause_s(error) or self.hold_s, self.hold_s), self.longest_hold_s)


def is_retryable(failure: ApiFailure, unknown: int, *, repeatable: bool) -> bool:
    """Returns whether a call may be made again; `unknown` counts its results that are unknown."""
    if failure is ApiFailure.UNKNOWN:
        return repeatable or unknown == 1
    return failure is ApiFailure.PASSING


def give_up(act: str, chat_id: int, error: Exception, *, final: bool) -> SendResult:
    """Logs why a message was given up, and returns the result."""
    fault = classify_api_error(error)
    if fault is ApiFailure.UNREACHABLE:
        log.info("delivery.unreachable", act=act, chat_id=chat_id, reason=describe_api_error(error))
        return SendResult.UNREACHABLE
    if final:
        log.error("delivery.lost", act=act, chat_id=chat_id, **describe_failure(error))
        return SendResult.LOST
    log.debug("delivery.progress_dropped", act=act, chat_id=chat_id, **describe_failure(error))
    return _PROGRESS_RESULTS.get(fault, SendResult.SKIPPED)


def describe_failure(error: Exception) -> dict[str, str]:
    """Returns the log fields of a failed call."""
    return {"fault": classify_api_error(error).name.lower(), "reason": describe_api_error(error)}
