"""A turn: its request, its context for the agent, its state and outcome, its metrics and span."""

import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Protocol

import structlog
from opentelemetry.trace import Tracer
from prometheus_client import Counter
from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse
from pydantic_ai.tools import ToolDefinition, ToolPrepareFunc
from pydantic_ai.usage import UsageLimits

from core.clock import Clock
from core.messages import ChatKind, ConversationKey, Incoming, Surface
from core.observability.metrics import Metrics
from services.chat.reply import Reply, ReplyPhase
from services.chat.store.conversation import Thread, Turn, TurnStatus
from services.chat.store.history import Recall
from services.llm.models.routed import last_provenance
from services.llm.request import ModelChoice
from services.preferences import ChatPreferences

log = structlog.get_logger()

FETCH_PAGE = "fetch_page"
"""Name of the tool that reads a web page."""
LIMITS = UsageLimits(request_limit=8, tool_calls_limit=12)
"""Limits of one turn: requests of the tool loop, and tool calls."""

_STATUS = {
    ReplyPhase.COMPLETE: TurnStatus.COMPLETE,
    ReplyPhase.STOPPED: TurnStatus.STOPPED,
    ReplyPhase.INTERRUPTED: TurnStatus.INTERRUPTED,
    ReplyPhase.FAILED: TurnStatus.FAILED,
}


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


class NoteStore(Protocol):
    """Notes about a user, separate per chat."""

    async def remember(self, user_id: int, scope: str, text: str) -> None:
        """Stores a note."""
        ...

    async def recall(self, user_id: int, scope: str) -> list[str]:
        """Returns the notes, oldest first."""
        ...


class Ability(StrEnum):
    """An ability that not every turn has; tools are offered by it."""

    READ_WEB = auto()
    SCHEDULE = auto()
    READ_DOCUMENTS = auto()
    DRAW = auto()


@dataclass(frozen=True, slots=True)
class TurnContext:
    """Context of a turn for instructions and tools.

    Args:
        notes: keyed by `scope`, so that notes of a private chat stay out of groups.
        scope: the chat, such as `telegram:123`.
        chat_title: the name of a group.
        language: the user's language as an IETF tag, if known.
        origin: id of the job, if any; the same when the job is repeated after a crash, and for a Retry that of the
            first attempt. Tools that act put it into a unique key.
        is_local_only: whether the chat's messages stay on the operator's own machines.
        has_documents: whether a document of the conversation was given in part only.
        persona: instructions of the conversation on how to answer.
        draw: draws a picture under the answer, by its description; returns False where the turn has enough of them.
            None where no picture can be shown.
    """

    clock: Clock
    notes: NoteStore
    user_id: int
    user_name: str
    scope: str
    chat_kind: ChatKind
    conversation: ConversationKey
    chat_title: str | None = None
    language: str | None = None
    origin: str | None = None
    is_local_only: bool = False
    has_documents: bool = False
    persona: str | None = None
    draw: Callable[[str], Awaitable[bool]] | None = None
    offered: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """Tools of MCP servers offered in this turn: (server, tool) by the name that the model sees."""

    def can(self, ability: Ability) -> bool:
        """Returns whether the turn has an ability."""
        match ability:
            case Ability.READ_WEB:
                # Addresses and queries tell others what the chat is about.
                return not self.is_local_only
            case Ability.SCHEDULE:
                return self.conversation.surface is Surface.TELEGRAM
            case Ability.READ_DOCUMENTS:
                return self.has_documents
            case Ability.DRAW:
                return self.draw is not None


def offered_with(ability: Ability) -> ToolPrepareFunc[TurnContext]:
    """Returns a `prepare` of a tool: it is offered in turns that have an ability."""

    async def prepare(context: RunContext[TurnContext], tool: ToolDefinition) -> ToolDefinition | None:
        return tool if context.deps.can(ability) else None

    return prepare


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


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A turn has ended.

    Args:
        phase: `complete`, `stopped`, `interrupted` or `failed`.
        seconds: seconds from the message to the saved answer.
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
        self._tokens = metrics.counter("tokens", "Tokens by direction", ("provider", "model", "direction"))
        self._by_model: dict[tuple[str, str], tuple[Counter, Counter]] = {}
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
                counter_in, counter_out = self._token_counters(provider, model)
                counter_in.inc(tokens_in)
                counter_out.inc(tokens_out)

    def _token_counters(self, provider: str, model: str) -> tuple[Counter, Counter]:
        """Returns the counters of a model. They are looked up once, since the library looks labels up under a lock."""
        labels = (provider, model)
        if labels not in self._metrics.models:
            labels = self._metrics.model_labels(provider, model)
        counters = self._by_model.get(labels)
        if counters is None:
            counters = self._tokens.labels(*labels, "in"), self._tokens.labels(*labels, "out")
            self._by_model[labels] = counters
        return counters


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
