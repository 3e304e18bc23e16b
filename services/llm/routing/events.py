"""Events of requests and of the routing order, for metrics, traces and notices; without message texts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from core.errors import FailedAttempt
from services.llm.routing.faults.refusal_words import Fault


class AttemptResult(StrEnum):
    """The end of one attempt, as its request saw it."""

    ANSWERED = "answered"
    RETRIED = "retried"
    """A hiccup: the same candidate is asked once more."""
    FAILED = "failed"
    """Before its first output: the next candidate is asked."""
    INTERRUPTED = "interrupted"
    """After its first output: the text so far is kept."""
    SURFACED = "surfaced"
    """A refusal, or a fault of the request or of ours: no other candidate is asked."""
    CANCELLED = "cancelled"
    """Stopped by its user or by a shutdown."""


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """One candidate was asked.

    Args:
        provider: id of the provider.
        model: name of the requested model.
        purpose: `chat`, `moderation`, `naming`.
        result: how it ended.
        fault: the fault of an attempt that failed.
        began: seconds since the epoch.
        seconds: seconds to the end of the answer, the consumer's pauses included, or to the retry after a hiccup.
        first_output_s: seconds to the first output of a streamed answer, or to the end of a plain one.
    """

    provider: str
    model: str
    purpose: str
    result: AttemptResult
    fault: Fault | None
    began: float
    seconds: float
    first_output_s: float | None


@dataclass(frozen=True, slots=True)
class Shed:
    """A candidate was skipped because its `<ID>_MAX_CONCURRENCY` requests were in flight."""

    provider: str


@dataclass(frozen=True, slots=True)
class Probed:
    """A request probes a provider after its cooldown."""

    provider: str


LLMEvent = AttemptEnded | Shed | Probed
Watcher = Callable[[LLMEvent], None]


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """Another provider is asked first now; `reason` is None where it recovered."""

    before: str
    after: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """A provider rejects the key, the account or the model's name; `words` is the message of its server."""

    provider: str
    reason: str
    words: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class NoProviderAnswers:
    """A request failed at every provider that could be asked."""

    attempts: tuple[FailedAttempt, ...]


@dataclass(frozen=True, slots=True)
class AnswersAgain:
    """A provider answered after an outage of all, as far as this replica knows."""

    provider: str


ProviderNotice = LeaderChanged | Misconfigured | NoProviderAnswers | AnswersAgain
NoticeListener = Callable[[ProviderNotice], None]
