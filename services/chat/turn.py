"""A running turn: its state, and its outcome for the user and the history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from pydantic_ai.exceptions import UnexpectedModelBehavior, UsageLimitExceeded
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse

from core.errors import (
    AnswerInterrupted,
    ConsentNeeded,
    ContentRefused,
    ContextWindowExceeded,
    ProviderError,
    RequestRejected,
)
from core.messages import Incoming
from services.chat.agent import LIMITS
from services.chat.reply import Reply, ReplyPhase
from services.chat.stand_ins import StandIn
from services.chat.store.conversation import Thread, Turn, TurnStatus
from services.llm.models.provenance import last_provenance
from services.llm.request import ModelChoice
from services.preferences import ChatPreferences

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


@dataclass(slots=True)
class TurnRun:
    """State of a running turn.

    Args:
        choice: provider and model of this answer only.
        origin: id of the job, if any.
        began: monotonic seconds.
    """

    incoming: Incoming
    reply: Reply
    prompt: ModelRequest
    choice: ModelChoice | None
    origin: str | None
    began: float
    thread: Thread | None = None
    replaces_id: int | None = None
    """Id of the turn that this one replaces once it is answered."""
    preference: ChatPreferences = field(default_factory=ChatPreferences)
    turn: Turn | None = None
    messages: Sequence[ModelMessage] = ()
    """Messages after the prompt."""
    has_memory: bool = True
    """True if the history could be read."""
    stand_in: StandIn | None = None
    """Set where the conversation left the operator's own machines because a local provider failed."""
    is_answered: bool = False
    """True if an earlier process already answered it, so that only the delivery is left."""

    @property
    def before_id(self) -> int | None:
        """Id of the turn before which the history ends."""
        return self.replaces_id if self.replaces_id is not None or self.turn is None else self.turn.id

    def record_provenance(self) -> bool:
        """Record in the reply who answered, who failed and whether the answer was cut at its length limit.

        Returns whether a model without vision answered.
        """
        answer = next((message for message in reversed(self.messages) if isinstance(message, ModelResponse)), None)
        self.reply.is_cut = answer is not None and answer.finish_reason == "length"
        stamps = [stamp for message in self.messages if (stamp := last_provenance([message])) is not None]
        if stamps:
            self.reply.provider, self.reply.model = stamps[-1].provider, stamps[-1].model
            # Each step of a tool loop is a request of its own and may have had other failures.
            self.stand_in = next(
                (StandIn(stamp.failed_local, stamp.provider) for stamp in stamps if stamp.failed_local is not None),
                None,
            )
            self.reply.failed_over = tuple(dict.fromkeys(failed for stamp in stamps for failed in stamp.failed))
        return any(stamp.blind for stamp in stamps)


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


def replay_outcome(status: TurnStatus) -> TurnOutcome:
    """Return the outcome of an answered turn that is delivered again, with the notice of its first delivery."""
    match status:
        case TurnStatus.STOPPED:
            return TurnOutcome(ReplyPhase.STOPPED, "stopped")
        case TurnStatus.INTERRUPTED:
            return TurnOutcome(ReplyPhase.INTERRUPTED, "interrupted")
        case _:
            return TurnOutcome(ReplyPhase.COMPLETE)
