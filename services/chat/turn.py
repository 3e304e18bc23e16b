"""A turn: its request, its context and tools for the agent, its state, outcome and metrics."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Protocol

from prometheus_client import Counter
from pydantic_ai import FunctionToolset
from pydantic_ai.messages import ModelMessage, ModelRequest
from pydantic_ai.usage import UsageLimits

from core.clock import Clock
from core.messages import ChatKind, ConversationKey, Incoming
from core.observability.metrics import Metrics
from services.chat.reply import Reply, ReplyPhase
from services.chat.store.conversation import Thread, Turn, TurnStatus
from services.chat.store.history import Recall
from services.llm.request import ModelChoice
from services.preferences import ChatPreferences

FETCH_PAGE = "fetch_page"
"""Name of the tool that reads a web page."""
LIMITS = UsageLimits(request_limit=8, tool_calls_limit=12)
"""Limits of one turn: requests of the tool loop, and tool calls."""

STATUS_OF_PHASE = {
    ReplyPhase.COMPLETE: TurnStatus.COMPLETE,
    ReplyPhase.STOPPED: TurnStatus.STOPPED,
    ReplyPhase.INTERRUPTED: TurnStatus.INTERRUPTED,
    ReplyPhase.FAILED: TurnStatus.FAILED,
}
"""The status of a turn in the history, by the end of its reply."""


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
    """Not where messages stay on the operator's machines: addresses and queries tell others what a chat is about."""
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
    persona: str | None = None
    draw: Callable[[str], Awaitable[bool]] | None = None
    offered: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """Tools of MCP servers offered in this turn: (server, tool) by the name that the model sees."""


class AbilityTools(FunctionToolset[TurnContext]):
    """Tools that are offered in turns with an ability."""

    def __init__(self, ability: Ability) -> None:
        super().__init__(docstring_format="google", require_parameter_descriptions=True, id=ability)
        self.ability = ability


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


@dataclass(frozen=True, slots=True)
class TurnOutcome:
    """The end of a reply: its phase, and the key and arguments of the text that explains it."""

    phase: ReplyPhase
    key: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])


class TurnMetrics:
    """Metrics of turns and their tokens."""

    def __init__(self, metrics: Metrics) -> None:
        self.tokens = TokenCounters(metrics)
        self.turns = metrics.counter("turns", "Turns by how they ended", ("phase",))
        self.seconds = metrics.histogram("turn_seconds", "Time of a whole turn, from its message to its saved answer")
        for phase in ReplyPhase:
            if phase is not ReplyPhase.RUNNING:
                self.turns.labels(phase.name.lower())


class TokenCounters(dict[tuple[str, str], tuple[Counter, Counter]]):
    """Counters of the tokens in and out, by provider and model.

    They are looked up once, since the library looks labels up under a lock.
    """

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics
        self._tokens = metrics.counter("tokens", "Tokens by direction", ("provider", "model", "direction"))

    def __missing__(self, model: tuple[str, str]) -> tuple[Counter, Counter]:
        """Returns the counters of a model, or those of all models without labels of their own."""
        labels = self._metrics.model_labels(*model)
        if labels not in self:
            self[labels] = self._tokens.labels(*labels, "in"), self._tokens.labels(*labels, "out")
        return self[labels]
