"""A running turn: its state and outcome, its metrics and span."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo

import structlog
from opentelemetry.trace import Tracer
from pydantic_ai.exceptions import UnexpectedModelBehavior, UsageLimitExceeded
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse

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
from core.messages import Incoming
from core.observability.metrics import Metrics
from services.chat.agent import LIMITS
from services.chat.reply import Reply, ReplyPhase
from services.chat.store.conversation import Thread, Turn, TurnStatus
from services.chat.store.history import Recall
from services.llm.models.routed import last_provenance
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
    (NothingHeard, "failed-heard-nothing"),
    (ProviderError, "failed-all-providers"),
    (UsageLimitExceeded, "failed-limit"),
)


@dataclass(frozen=True, slots=True)
class StandIn:
    """A local provider that failed, and the remote one that answered in its place."""

    local: str
    remote: str


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A message to answer, or an earlier turn to answer again.

    Args:
        incoming: the message; for a Retry, who asked for it and where.
        retry_of: the turn to answer again.
        choice: provider and model to ask first, for this answer only.
        origin: id of the job. When the job is retried, a turn that was begun continues, and one that has ended is
            delivered again.
        prelude: messages that stand between the prompt and the first request.
    """

    incoming: Incoming
    retry_of: Turn | None = None
    choice: ModelChoice | None = None
    origin: str | None = None
    prelude: Sequence[ModelMessage] = ()


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
    prelude: Sequence[ModelMessage] = ()
    """Messages between the prompt and the first request: a tool's call that was carried out aside, and its result."""
    acts_for: str | None = None
    """Origin of the calls of acting tools: for a Retry that of the first attempt, whose calls it must not repeat."""
    thread: Thread | None = None
    replaces_id: int | None = None
    """Id of the turn that this one replaces once it is answered."""
    question_id: int | None = None
    """The message with the prompt, if the surface numbers messages."""
    preference: ChatPreferences = field(default_factory=ChatPreferences)
    turn: Turn | None = None
    messages: Sequence[ModelMessage] = ()
    """Messages after the prompt."""
    recall: Recall | None = None
    is_first_drop: bool = False
    """True if the thread has just dropped turns for the first time, of which the user is told."""
    has_memory: bool = True
    """True if the history could be read."""
    stand_in: StandIn | None = None
    """Set where the conversation left the operator's own machines because a local provider failed."""
    is_heard: bool = False
    """True if the text of a recording took its place in the prompt during this run."""
    is_answered: bool = False
    """True if an earlier process already answered it, so that only the delivery is left."""

    def record_provenance(self) -> bool:
        """Records in the reply who answered, who failed and whether the answer was cut at its length limit.

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


def classify_failure(error: Exception, reply: Reply, zone: tzinfo = UTC) -> TurnOutcome:
    """Classifies an exception of a turn. One that is neither the user's nor a provider's fault is logged.

    Args:
        zone: of the instants that the user is told.
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


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A turn has ended.

    Args:
        phase: `complete`, `stopped`, `interrupted` or `failed`.
        seconds: from its message to its saved answer.
    """

    phase: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TokensUsed:
    """Tokens of one model response."""

    provider: str
    model: str
    tokens_in: int
    tokens_out: int


class TurnMetrics:
    """Counts turns and their tokens."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._turns = metrics.counter("turns", "Turns by how they ended", ("phase",))
        self._seconds = metrics.histogram("turn_seconds", "Time of a whole turn, from its message to its saved answer")
        for phase in ReplyPhase:
            if phase is not ReplyPhase.RUNNING:
                self._turns.labels(phase.name.lower())

    def record(self, event: TurnEnded | TokensUsed) -> None:
        """Counts the end of a turn, or the tokens of a response."""
        match event:
            case TurnEnded(phase, seconds):
                self._turns.labels(phase).inc()
                self._seconds.observe(seconds)
            case TokensUsed(provider, model, tokens_in, tokens_out):
                self._metrics.tokens(provider, model, tokens_in, tokens_out)


TurnWatcher = Callable[[TurnEnded | TokensUsed], None]


class TurnObserver:
    """Observes the start and the end of each turn.

    Args:
        tracer: creates a span per turn; None where tracing is off.
        watcher: receives each event; it must return quickly.
    """

    def __init__(self, tracer: Tracer | None = None, watcher: TurnWatcher | None = None) -> None:
        self._tracer = tracer
        self._watcher = watcher
        self.running = 0
        """Turns in progress."""

    @contextmanager
    def turn(self, reply: Reply) -> Generator[None]:
        """Observes one turn; its phase is read from the reply at the end."""
        self.running += 1
        began = time.perf_counter()
        try:
            if self._tracer is None:
                yield
            else:
                with self._tracer.start_as_current_span("turn", record_exception=False) as span:
                    try:
                        yield
                    finally:
                        span.set_attributes(_span_attributes(reply))
        finally:
            self.running -= 1
            if self._watcher is not None:
                self._watcher(TurnEnded(reply.phase.name.lower(), time.perf_counter() - began))

    def count_tokens(self, messages: Sequence[ModelMessage]) -> None:
        """Reports the tokens of each response of a turn, by provider and model."""
        if self._watcher is None:
            return
        for message in messages:
            stamp = last_provenance([message])
            if isinstance(message, ModelResponse) and stamp is not None:
                usage = message.usage
                self._watcher(TokensUsed(stamp.provider, stamp.model, usage.input_tokens, usage.output_tokens))


def _span_attributes(reply: Reply) -> dict[str, str]:
    facts = {"phase": reply.phase.name.lower(), "provider": reply.provider, "model": reply.model}
    return {f"understudy.{name}": value for name, value in facts.items() if value is not None}
