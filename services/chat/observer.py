"""Observes turns: metrics, token counts and spans."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.trace import Tracer
from pydantic_ai.messages import ModelMessage, ModelResponse

from core.observability.metrics import Metrics
from services.chat.reply import Reply, ReplyPhase
from services.llm.models.provenance import last_provenance


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
        """Count the end of a turn, or the tokens of a response."""
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
        """Observe one turn; its phase is read from the reply at the end."""
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
        """Report the tokens of each response of a turn, by provider and model."""
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
