"""What is counted of turns."""

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
    """One turn is over.

    Args:
        phase: how it ended: `complete`, `stopped`, `interrupted`, `failed`.
        seconds: how long it took, from its message to its saved answer.
    """

    phase: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TokensUsed:
    """What one response of a model took in and gave out."""

    provider: str
    model: str
    tokens_in: int
    tokens_out: int


class TurnMetrics:
    """Counts turns and what they used.

    Args:
        metrics: where it is shown.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._turns = metrics.counter("turns", "Turns by how they ended", ("phase",))
        self._seconds = metrics.histogram("turn_seconds", "Time of a whole turn, from its message to its saved answer")
        for phase in ReplyPhase:
            if phase is not ReplyPhase.RUNNING:
                self._turns.labels(phase.name.lower())

    def note(self, event: TurnEnded | TokensUsed) -> None:
        """Count the end of a turn, or what a response of it used."""
        match event:
            case TurnEnded(phase, seconds):
                self._turns.labels(phase).inc()
                self._seconds.observe(seconds)
            case TokensUsed(provider, model, tokens_in, tokens_out):
                self._metrics.tokens(provider, model, tokens_in, tokens_out)


TurnWatcher = Callable[[TurnEnded | TokensUsed], None]


class TurnObserver:
    """Sees each turn begin and end.

    Args:
        tracer: makes a span of each turn, where somebody looks at them.
        watcher: is told what there is to count; it must be quick.
    """

    def __init__(self, tracer: Tracer | None = None, watcher: TurnWatcher | None = None) -> None:
        self._tracer = tracer
        self._watcher = watcher
        self.running = 0
        """How many turns are being answered."""

    @contextmanager
    def turn(self, reply: Reply) -> Generator[None]:
        """Watch one turn, whose reply tells at its end how it went."""
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
                        span.set_attributes(_described(reply))
        finally:
            self.running -= 1
            if self._watcher is not None:
                self._watcher(TurnEnded(reply.phase.name.lower(), time.perf_counter() - began))

    def used(self, messages: Sequence[ModelMessage]) -> None:
        """Tell what the responses of a turn used, by who gave them."""
        if self._watcher is None:
            return
        for message in messages:
            stamp = last_provenance([message])
            if isinstance(message, ModelResponse) and stamp is not None:
                usage = message.usage
                self._watcher(TokensUsed(stamp.provider, stamp.model, usage.input_tokens, usage.output_tokens))


def _described(reply: Reply) -> dict[str, str]:
    facts = {"phase": reply.phase.name.lower(), "provider": reply.provider, "model": reply.model}
    return {f"understudy.{name}": value for name, value in facts.items() if value is not None}
