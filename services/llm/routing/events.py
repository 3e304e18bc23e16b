"""What happens to requests, for whoever keeps count: facts without words of anybody, told as they come."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from services.llm.routing.outcomes import Fault


class AttemptResult(StrEnum):
    """How asking a candidate ended, as its request saw it."""

    ANSWERED = "answered"
    RETRIED = "retried"
    """A hiccup: the same candidate is asked once more."""
    FAILED = "failed"
    """Before its first output: the next candidate's turn."""
    INTERRUPTED = "interrupted"
    """After its first output: what came is kept."""
    SURFACED = "surfaced"
    """A refusal, or a fault of the request or of ours: nobody else is asked."""
    CANCELLED = "cancelled"
    """Stopped by its user, or by a shutdown."""


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """One candidate was asked.

    Args:
        provider: its id.
        model: the model that it was asked for.
        context: what for: `chat`, `moderation`.
        result: how it ended.
        fault: whose fault that is, where it did not end well.
        began: when it was asked, seconds since the epoch.
        seconds: how long it took to the end of its answer, with the pauses of whoever read it, or the
            one that follows a hiccup.
        first_output_s: seconds to its first output, of an answer; of one that was not streamed, to all of it.
    """

    provider: str
    model: str
    context: str
    result: AttemptResult
    fault: Fault | None
    began: float
    seconds: float
    first_output_s: float | None


@dataclass(frozen=True, slots=True)
class Shed:
    """A candidate was passed over, since its `<ID>_MAX_CONCURRENCY` requests were in flight."""

    provider: str


@dataclass(frozen=True, slots=True)
class Probed:
    """A request went to a provider whose cooldown had ended, to find out whether it is back."""

    provider: str


LLMEvent = AttemptEnded | Shed | Probed
Watcher = Callable[[LLMEvent], None]
