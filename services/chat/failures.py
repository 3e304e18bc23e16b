"""Classifies failures of a turn: the phase in which its reply ends, and the text that explains it."""

from datetime import UTC, datetime, tzinfo

import structlog
from pydantic_ai.exceptions import UnexpectedModelBehavior, UsageLimitExceeded

from core.errors import (
    AllProvidersFailed,
    AnswerInterrupted,
    BudgetExhausted,
    ConsentNeeded,
    ContentRefused,
    ContextWindowExceeded,
    NothingHeard,
    NotTranscribed,
    ProviderError,
    RequestRejected,
)
from services.chat.reply import Reply, ReplyPhase
from services.chat.store.conversation import TurnStatus
from services.chat.turn import LIMITS, TurnOutcome

log = structlog.get_logger()

_KEYS: tuple[tuple[type[Exception], str], ...] = (
    # The first match counts.
    (ConsentNeeded, "consent-question"),
    (ContextWindowExceeded, "failed-too-long"),
    (RequestRejected, "failed-rejected"),
    (NothingHeard, "failed-heard-nothing"),
    (ProviderError, "failed-all-providers"),
    (UsageLimitExceeded, "failed-limit"),
)


def classify_failure(error: Exception, reply: Reply, zone: tzinfo = UTC) -> TurnOutcome:
    """Classifies an exception of a turn. One that is neither the user's nor a provider's fault is logged.

    Args:
        zone: time zone of displayed times.
    """
    # Text that was shown before a failure stays: the answer is interrupted, not failed.
    phase = ReplyPhase.INTERRUPTED if reply.text.strip() else ReplyPhase.FAILED
    match error:
        case ContentRefused():
            return TurnOutcome(phase, "failed-refused", {"reason": error.reason})
        case BudgetExhausted():
            renewal = datetime.fromtimestamp(error.renews_at, zone)
            owner = error.budget if error.budget in {"user", "chat"} else "all"
            return TurnOutcome(phase, f"failed-budget-{owner}", {"time": f"{renewal:%H:%M %Z}"})
        case NotTranscribed():
            return TurnOutcome(phase, "failed-transcription" if error.is_set_up else "cannot-hear-audio")
        case ConsentNeeded():
            reply.needs_consent = True
        case UsageLimitExceeded():
            log.warning("turn.limit_reached", steps=LIMITS.request_limit, tools=LIMITS.tool_calls_limit)
        case AllProvidersFailed():
            reply.failed_over = tuple(dict.fromkeys((each.provider, each.reason) for each in error.attempts))
        case ProviderError():
            pass
        case UnexpectedModelBehavior():
            # Its message and its cause quote the model's answer.
            log.warning("turn.model_misbehaved", error=type(error).__name__)
        case _:
            log.error("turn.failed", exc_info=error)
    if isinstance(error, AnswerInterrupted) and phase is ReplyPhase.INTERRUPTED:
        return TurnOutcome(phase, "interrupted")
    return TurnOutcome(phase, next((key for kind, key in _KEYS if isinstance(error, kind)), "failed-unexpected"))


def replay_outcome(status: TurnStatus) -> TurnOutcome:
    """Returns the outcome of an answered turn that is delivered again, with the notice of its first delivery."""
    match status:
        case TurnStatus.STOPPED:
            return TurnOutcome(ReplyPhase.STOPPED, "stopped")
        case TurnStatus.INTERRUPTED:
            return TurnOutcome(ReplyPhase.INTERRUPTED, "interrupted")
        case _:
            return TurnOutcome(ReplyPhase.COMPLETE)
