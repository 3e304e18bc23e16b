"""Maps a failed turn to the text for its user and the status in the history."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from pydantic_ai.exceptions import UnexpectedModelBehavior, UsageLimitExceeded

from core.errors import (
    AnswerInterrupted,
    ConsentNeeded,
    ContentRefused,
    ContextWindowExceeded,
    ProviderError,
    RequestRejected,
)
from services.chat.agent import LIMITS
from services.chat.reply import Reply, ReplyPhase
from services.chat.store.conversation import TurnStatus

log = structlog.get_logger()

_STATUS = {
    ReplyPhase.COMPLETE: TurnStatus.COMPLETE,
    ReplyPhase.STOPPED: TurnStatus.STOPPED,
    ReplyPhase.INTERRUPTED: TurnStatus.INTERRUPTED,
    ReplyPhase.FAILED: TurnStatus.FAILED,
}


_KEYS: tuple[tuple[type[Exception], str], ...] = (
    # The first match counts.
    (ConsentNeeded, "consent-question"),
    (ContextWindowExceeded, "failed-too-long"),
    (RequestRejected, "failed-rejected"),
    (ProviderError, "failed-all-providers"),
    (UsageLimitExceeded, "failed-limit"),
)


@dataclass(frozen=True, slots=True)
class TurnOutcome:
    """The end of a reply: its phase, and the key and arguments of the text that explains it."""

    phase: ReplyPhase
    key: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def status(self) -> TurnStatus:
        """The corresponding status in the history."""
        return _STATUS[self.phase]


def classify_failure(error: Exception, reply: Reply) -> TurnOutcome:
    """Classify an exception of a turn. One that is neither the user's nor a provider's fault is logged."""
    # Text that was shown before a failure stays: the answer is interrupted, not failed.
    phase = ReplyPhase.INTERRUPTED if reply.text.strip() else ReplyPhase.FAILED
    match error:
        case ContentRefused():
            return TurnOutcome(phase, "failed-refused", {"reason": error.reason})
        case ConsentNeeded():
            reply.needs_consent = True
        case UsageLimitExceeded():
            log.warning("turn.limit_reached", steps=LIMITS.request_limit, tools=LIMITS.tool_calls_limit)
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
