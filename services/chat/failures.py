"""How a turn ends: what its user is told, and what the history keeps of it."""

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
    # The first that fits counts.
    (ConsentNeeded, "consent-question"),
    (ContextWindowExceeded, "failed-too-long"),
    (RequestRejected, "failed-rejected"),
    (ProviderError, "failed-all-providers"),
    (UsageLimitExceeded, "failed-limit"),
)


@dataclass(frozen=True, slots=True)
class TurnOutcome:
    """How a reply ends: its phase, and the text that says why, with that text's arguments."""

    phase: ReplyPhase
    key: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def status(self) -> TurnStatus:
        """The same for the history."""
        return _STATUS[self.phase]


def classify_failure(error: Exception, reply: Reply) -> TurnOutcome:
    """The ending that a failure makes of a reply; what no user and no provider is to blame for is logged."""
    # What was said before a failure stays: the answer is interrupted then, and not failed.
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
            # Its message and its cause quote what the model said.
            log.warning("turn.model_misbehaved", error=type(error).__name__)
        case _:
            log.error("turn.failed", exc_info=error)
    if isinstance(error, AnswerInterrupted) and phase is ReplyPhase.INTERRUPTED:
        return TurnOutcome(phase, "interrupted")
    return TurnOutcome(phase, next((key for kind, key in _KEYS if isinstance(error, kind)), "failed-unexpected"))
