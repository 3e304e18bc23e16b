"""One request on its way from candidate to candidate, and what each failure means for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from pydantic_ai.exceptions import ModelNotFoundError

from core.errors import (
    AllProvidersFailed,
    AnswerInterrupted,
    ConsentNeeded,
    ContentRefused,
    ContextWindowExceeded,
    FailedAttempt,
    ProviderError,
    RequestRejected,
)
from core.settings import ProviderSettings
from services.llm.outcomes import Fault, Outcome, classify, words_of

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A user's explicit choice: a provider, and one of its models or its default."""

    provider: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that a request may ask, with the model it would be asked for."""

    provider: ProviderSettings
    model: str
    by_order: bool = True
    """Whether it stands here by the rules alone, and not because somebody forced or picked it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The figures of the service: `PROVIDER_PREFERRED_TTL`, `PROVIDER_COOLDOWN` (seconds), `PROVIDER_MAX_HOPS`."""

    preferred_ttl_s: float = 1800.0
    cooldown_s: float = 300.0
    max_hops: int = 3


class Ledger(Protocol):
    """Where outcomes are reported to, and what the next step is decided by."""

    @property
    def rules(self) -> Rules:
        """The figures of the service."""
        ...

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def leads(self, provider: str) -> bool:
        """Whether no healthy provider stands above this one."""
        ...

    def failed(self, provider: str, outcome: Outcome, context: str) -> None:
        """Apply an outcome."""
        ...

    def succeeded(
        self, provider: str, context: str, *, began: float, prefer: bool, first_output_s: float | None = None
    ) -> None:
        """Apply an answer."""
        ...

    def release(self, provider: str, holder: str) -> None:
        """Give a probe's lease back."""
        ...

    async def pause(self) -> None:
        """Wait before a provider that had a hiccup is tried again."""
        ...


class Attempts:
    """One request on its way from candidate to candidate.

    Iterate it for the next candidate; say `await failed(error)` or `succeeded()` for each, and `close()` at the end
    whatever happened: an outcome that nobody reported (a cancelled request) blames nobody.
    """

    def __init__(
        self,
        service: Ledger,
        candidates: Sequence[Candidate],
        context: str,
        lease: tuple[str, str] | None,
        *,
        passed_over: bool,
        withheld: bool = False,
    ) -> None:
        self._service = service
        self._candidates = candidates
        self._context = context
        self._lease = lease
        self._passed_over = passed_over
        self._withheld = withheld
        # Whoever probes for all does not pay for it with a candidate less.
        self._hops = service.rules.max_hops + (lease is not None)
        self._current = candidates[0]
        self._began = service.time()
        self._retries = 0
        self._again = False
        self._failed: list[tuple[FailedAttempt, Fault]] = []
        self.overflowed: Candidate | None = None
        """The last candidate whose context window was too small."""

    def __iter__(self) -> Iterator[Candidate]:
        for candidate in self._candidates:
            if len(self._failed) == self._hops:
                return
            self._current = candidate
            self._retries = candidate.provider.retries
            self._again = True
            while self._again:
                self._again = False
                self._began = self._service.time()
                yield candidate

    @property
    def failures(self) -> tuple[FailedAttempt, ...]:
        """Those who were tried and did not answer, in order."""
        return tuple(attempt for attempt, _ in self._failed)

    async def failed(self, error: Exception) -> None:
        """The current candidate failed before its first output. Returns where the next one should be tried.

        Raises:
            ContentRefused: its filter refused.
            RequestRejected: the request is at fault.
            Exception: `error` itself, where it is a bug of ours.
        """
        provider = self._current.provider
        outcome = self._outcome(error)
        if not outcome.try_next:
            raise self._surfaced(outcome, error)
        if outcome.fault is Fault.HICCUP and self._retries > 0:
            self._retries -= 1
            self._again = True
            log.info("provider.retried", provider=provider.id, reason=outcome.reason, context=self._context)
            await self._service.pause()
            return
        self._passed_over = self._passed_over or outcome.cooldown_s is None
        if outcome.fault is Fault.CONTEXT_WINDOW:
            self.overflowed = self._current
        self._failed.append((FailedAttempt(provider.id, self._current.model, outcome.reason), outcome.fault))
        self._service.failed(provider.id, outcome, self._context)

    def broke_off(self, error: Exception) -> ProviderError | Exception:
        """The current candidate failed after its first output: the error to raise in place of `error`."""
        outcome = classify(error, self._service.rules.cooldown_s)
        if not outcome.try_next:
            return self._surfaced(outcome, error)
        cut = Outcome(outcome.fault, outcome.reason, self._service.rules.cooldown_s)
        self._service.failed(self._current.provider.id, cut, self._context)
        return AnswerInterrupted(self._current.provider.id, outcome.reason)

    def refused(self, reason: str) -> ContentRefused:
        """The current candidate's filter ended the answer: the error to raise."""
        log.info("provider.refused", provider=self._current.provider.id, context=self._context)
        return ContentRefused(self._current.provider.id, reason)

    def succeeded(self, first_output_s: float | None = None) -> None:
        """The current candidate answered in full."""
        self._service.succeeded(
            self._current.provider.id,
            self._context,
            began=self._began,
            prefer=self._current.by_order and not self._passed_over and self._service.leads(self._current.provider.id),
            first_output_s=first_output_s,
        )

    def skip(self) -> None:
        """The current candidate could not have taken this request."""
        self._passed_over = True

    def exhausted(self) -> ProviderError:
        """Nobody is left: the error to raise."""
        if self._withheld:
            return ConsentNeeded()
        if any(fault is Fault.CONTEXT_WINDOW for _, fault in self._failed):
            return ContextWindowExceeded(self.failures)
        log.error(
            "provider.all_failed",
            context=self._context,
            tried=[{"provider": attempt.provider, "reason": attempt.reason} for attempt in self.failures],
        )
        return AllProvidersFailed(self.failures)

    def close(self) -> None:
        """The request is over; a probe without a verdict gives its lease back."""
        if self._lease is not None:
            self._service.release(*self._lease)
            self._lease = None

    def _outcome(self, error: Exception) -> Outcome:
        outcome = classify(error, self._service.rules.cooldown_s)
        if isinstance(error, ModelNotFoundError) and self._current.model != self._current.provider.default_model:
            # One chat's choice of a model that is gone says nothing about the provider.
            return replace(outcome, cooldown_s=None)
        return outcome

    def _surfaced(self, outcome: Outcome, error: Exception) -> Exception:
        provider = self._current.provider.id
        log.info("provider.surfaced", provider=provider, fault=outcome.fault.value, reason=outcome.reason)
        match outcome.fault:
            case Fault.REFUSED:
                surfaced: Exception = ContentRefused(provider, words_of(error) or outcome.reason)
            case Fault.REJECTED:
                surfaced = RequestRejected(provider, outcome.reason)
            case _:
                return error
        surfaced.__cause__ = error
        return surfaced
