"""One request on its way from candidate to candidate, and what each failure means for it."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Protocol, Self

import structlog
from pydantic_ai.exceptions import ModelNotFoundError
from pydantic_ai.messages import ModelMessage

from core.config.providers import ProviderKind
from core.config.settings import ProviderSettings
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
from services.llm.request import Candidate, RequestSpec
from services.llm.routing.concurrency import Slot
from services.llm.routing.events import AttemptEnded, AttemptResult, LLMEvent, Shed
from services.llm.routing.outcomes import AnswerGivenUp, EmptyAnswer, Fault, Outcome, classify, words_of
from services.llm.usage.report import NOTHING, RequestEnd, RequestReport, TokenUse, used_by_prompt

log = structlog.get_logger()

BUSY = "busy"
"""Why a provider was not asked whose limit was reached."""
HALF_OPEN = 1.0
"""The doubt about a provider whose cooldown has ended and that has not proven itself."""


@dataclass(frozen=True, slots=True)
class RoutingLimits:
    """The figures of the service: `PROVIDER_PREFERRED_TTL`, `PROVIDER_COOLDOWN` (seconds), `PROVIDER_MAX_HOPS`."""

    preferred_ttl_s: float = 1800.0
    cooldown_s: float = 300.0
    max_hops: int = 3


class OutcomeSink(Protocol):
    """Where outcomes are reported to, and what the next step is decided by."""

    @property
    def rules(self) -> RoutingLimits:
        """The figures of the service."""
        ...

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def leads(self, provider: str) -> bool:
        """Whether no healthy provider stands above this one."""
        ...

    def doubt(self, provider: str) -> float:
        """What speaks against asking it: 0 while healthy, more the later its cooldown ends, `HALF_OPEN` after that."""
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

    def moved(self, speaker: str, provider: str) -> None:
        """Somebody was answered by this provider because one before it was busy."""
        ...

    def note(self, happening: LLMEvent) -> None:
        """Tell whoever keeps count of what happens to requests."""
        ...

    def count(self, report: RequestReport) -> None:
        """A request to a provider is over."""
        ...


class SlotSource(Protocol):
    """Where a request gets the right to ask a provider."""

    async def take(self, provider: ProviderSettings) -> Slot | None:
        """A slot if one is free."""
        ...

    async def wait(self, providers: Sequence[ProviderSettings]) -> Slot | None:
        """The first slot that becomes free at one of them, if that does not take too long."""
        ...

    def extend(self, slot: Slot) -> None:
        """The same provider is asked once more."""
        ...

    def release(self, slot: Slot) -> None:
        """The request is over."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """The candidates of one request.

    Args:
        candidates: in the order in which they are asked.
        lease: the provider that this request probes, with the name of the lease's holder.
        passed_over: a provider that would come first cannot take the request, so that an answer of another one says
            nothing about the order.
        withheld: remote providers were left out because the chat has not consented to them.
    """

    candidates: tuple[Candidate, ...]
    lease: tuple[str, str] | None = None
    passed_over: bool = False
    withheld: bool = False


class Attempts:
    """One request on its way from candidate to candidate.

    Iterate it for the next candidate; say `await failed(error)` or `succeeded()` for each, and `close()` at the end
    whatever happened: an outcome that nobody reported (a cancelled request) blames nobody.

    A candidate whose limit is reached is passed over; if nobody else answers, the request waits for its turn there.
    """

    def __init__(
        self,
        service: OutcomeSink,
        slots: SlotSource,
        route: Route,
        spec: RequestSpec,
        messages: Sequence[ModelMessage],
        window: Callable[[Candidate], int | None],
    ) -> None:
        self._service = service
        self._slots = slots
        self.candidates = route.candidates
        """All of them, in the order in which they are asked."""
        self._left = deque(route.candidates)
        self._spec = spec
        self._messages = messages
        self._window = window
        self._purpose = spec.purpose
        self._lease = route.lease
        self._passed_over = route.passed_over
        self._withheld = route.withheld
        # Whoever probes for all is answered by another one where that fails.
        self._hops = service.rules.max_hops if route.lease is None else max(service.rules.max_hops, 2)
        self._current = route.candidates[0]
        self._slot: Slot | None = None
        self._began = service.time()
        self._doubt = 0.0
        """What spoke against the current candidate when it was asked."""
        self._loop = asyncio.get_running_loop()
        self._asked_at: float | None = None
        """When the current candidate was asked, in the event loop's time; None once it is told what became of it."""
        self._retries = 0
        self._again = False
        self._is_asked = False
        """Whether the current candidate was sent the request, and nothing is known of what became of it."""
        self._failed: list[tuple[FailedAttempt, Fault]] = []
        self._busy: dict[str, tuple[Candidate, bool]] = {}
        """Those whose limit was reached, and whether somebody before them had been passed over already."""
        self._overflowed: Candidate | None = None
        """The last candidate whose context window was too small."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Candidate:
        """The next candidate to ask: the same one after a hiccup, and at last the busy ones, when it is their turn."""
        if self._again and self._slot is not None:
            self._again = False
            self._is_asked = True
            self._began = self._service.time()
            self._asked_at = self._loop.time()
            self._slots.extend(self._slot)
            return self._current
        self._leave()
        if len(self._failed) >= self._hops:
            # The demo asks nobody, and says who could be asked.
            self._left = deque(each for each in self._left if each.provider.kind is ProviderKind.DEMO)
        while self._left:
            candidate = self._next_left()
            if self._is_too_small(candidate):
                self._passed_over = True
                continue
            slot = await self._slots.take(candidate.provider)
            if slot is not None:
                return self._ask(candidate, slot)
            self._shed(candidate)
        return await self._next_in_turn()

    def _next_left(self) -> Candidate:
        """The next in the order of this moment: others may have found out since that it has to cool down."""
        probed = self._lease[0] if self._lease is not None else None

        def lateness(candidate: Candidate) -> tuple[bool, float]:
            doubt = self._service.doubt(candidate.provider.id) if candidate.by_order else 0.0
            # Whoever probes comes first until others have found it failing.
            return candidate.misfit, 0.0 if candidate.provider.id == probed and doubt == HALF_OPEN else doubt

        candidate = min(self._left, key=lateness)
        self._left.remove(candidate)
        return candidate

    async def _next_in_turn(self) -> Candidate:
        busy = [candidate.provider for candidate, _ in self._busy.values() if not self._is_too_small(candidate)]
        if busy and len(self._failed) < self._hops:
            slot = await self._slots.wait(busy)
            if slot is not None:
                candidate, self._passed_over = self._busy.pop(slot.provider.id)
                return self._ask(candidate, slot)
        raise StopAsyncIteration

    def _ask(self, candidate: Candidate, slot: Slot) -> Candidate:
        self._current = candidate
        self._slot = slot
        self._is_asked = True
        self._retries = candidate.provider.retries
        self._began = self._service.time()
        self._doubt = self._service.doubt(candidate.provider.id)
        self._asked_at = self._loop.time()
        return candidate

    def _ended(self, result: AttemptResult, fault: Fault | None = None, first_output_s: float | None = None) -> None:
        """The current candidate was asked, and this is what became of it; told once."""
        if self._asked_at is not None:
            seconds = self._loop.time() - self._asked_at
            self._asked_at = None
            provider, model = self._current.provider.id, self._current.model
            self._service.note(
                AttemptEnded(provider, model, self._purpose, result, fault, self._began, seconds, first_output_s)
            )

    def _leave(self) -> None:
        """The current candidate is done with this request."""
        if self._slot is not None:
            self._slots.release(self._slot)
            self._slot = None

    def _was_moved(self) -> bool:
        """Whether a busy provider stands before the current candidate."""
        before = takewhile(lambda candidate: candidate is not self._current, self.candidates)
        return bool(self._busy) and any(candidate.provider.id in self._busy for candidate in before)

    def _shed(self, candidate: Candidate) -> None:
        log.info("provider.shed", provider=candidate.provider.id, context=self._purpose)
        self._service.note(Shed(candidate.provider.id))
        self._busy[candidate.provider.id] = (candidate, self._passed_over)
        self._passed_over = True
        if self._lease is not None and self._lease[0] == candidate.provider.id:
            # Another request may find it free before this one is through.
            self._return_lease()

    def _return_lease(self) -> None:
        if self._lease is not None:
            self._service.release(*self._lease)
            self._lease = None

    def _is_too_small(self, candidate: Candidate) -> bool:
        """Whether its window is known to be no larger than one that was too small."""
        if self._overflowed is None:
            return False
        known, window = self._window(self._overflowed), self._window(candidate)
        return known is not None and window is not None and window <= known

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
            self._count(RequestEnd.REFUSED if outcome.fault is Fault.REFUSED else RequestEnd.FAILED, NOTHING)
            raise self._surfaced(outcome, error)
        if outcome.fault is Fault.HICCUP and self._retries > 0:
            self._retries -= 1
            # Who gives up during the pause leaves no request behind.
            self._is_asked = False
            await self._service.pause()
            # Unless another request has found out meanwhile that it was no hiccup, and somebody else can be asked.
            if self._service.doubt(provider.id) <= self._doubt or not self._left:
                log.info("provider.retried", provider=provider.id, reason=outcome.reason, context=self._purpose)
                self._ended(AttemptResult.RETRIED, outcome.fault)
                self._again = True
                return
            self._is_asked = True
        used = TokenUse(error.usage) if isinstance(error, EmptyAnswer | AnswerGivenUp) else NOTHING
        self._count(RequestEnd.FAILED, used, is_failure=outcome.cooldown_s is not None)
        self._passed_over = self._passed_over or outcome.cooldown_s is None
        if outcome.fault is Fault.CONTEXT_WINDOW:
            self._overflowed = self._current
        self._ended(AttemptResult.FAILED, outcome.fault)
        self._failed.append((FailedAttempt(provider.id, self._current.model, outcome.reason), outcome.fault))
        self._service.failed(provider.id, outcome, self._purpose)

    def broke_off(self, error: Exception, used: TokenUse) -> ProviderError | Exception:
        """The current candidate failed after its first output: the error to raise in place of `error`."""
        outcome = classify(error, self._service.rules.cooldown_s)
        is_failure = outcome.fault not in {Fault.REFUSED, Fault.OURS}
        self._count(RequestEnd.INTERRUPTED, used, is_failure=is_failure)
        if not is_failure:
            return self._surfaced(outcome, error)
        self._ended(AttemptResult.INTERRUPTED, outcome.fault)
        cut = Outcome(outcome.fault, outcome.reason, self._service.rules.cooldown_s)
        self._service.failed(self._current.provider.id, cut, self._purpose)
        return AnswerInterrupted(self._current.provider.id, outcome.reason)

    def refused(self, reason: str, used: TokenUse) -> ContentRefused:
        """The current candidate's filter ended the answer: the error to raise."""
        self._count(RequestEnd.REFUSED, used)
        log.info("provider.refused", provider=self._current.provider.id, context=self._purpose)
        self._ended(AttemptResult.SURFACED, Fault.REFUSED)
        return ContentRefused(self._current.provider.id, reason)

    def left(self, used: Callable[[], TokenUse]) -> None:
        """Nobody wants the rest of the current candidate's answer, if there is more to come; nobody is blamed."""
        if self._is_asked:
            self._count(RequestEnd.STOPPED, used())

    def succeeded(self, first_output_s: float, used: TokenUse) -> None:
        """The current candidate answered in full."""
        self._ended(AttemptResult.ANSWERED, None, first_output_s)
        self._count(RequestEnd.ANSWERED, used)
        self._leave()
        if self._spec.user is not None and self._was_moved():
            self._service.moved(self._spec.user, self._current.provider.id)
        self._service.succeeded(
            self._current.provider.id,
            self._purpose,
            began=self._began,
            prefer=self._current.by_order and not self._passed_over and self._service.leads(self._current.provider.id),
            first_output_s=first_output_s,
        )

    def misfit(self, reason: str, took_s: float, used: TokenUse) -> None:
        """The current candidate answered in full, but not with what was asked for: the next one may."""
        log.info("provider.misfit", provider=self._current.provider.id, reason=reason, context=self._purpose)
        self.succeeded(took_s, used)
        self._failed.append((FailedAttempt(self._current.provider.id, self._current.model, reason), Fault.UNREADABLE))
        self._passed_over = True

    def pass_over(self) -> None:
        """Ask the next candidate; the current one was not asked, or refused, and nobody blames it."""
        self._is_asked = False
        self._asked_at = None
        self._passed_over = True

    def exhausted(self) -> ProviderError:
        """Nobody is left: the error to raise."""
        if self._withheld:
            return ConsentNeeded()
        if any(fault is Fault.CONTEXT_WINDOW for _, fault in self._failed):
            return ContextWindowExceeded(self.failures)
        busy = [FailedAttempt(name, candidate.model, BUSY) for name, (candidate, _) in self._busy.items()]
        attempts = (*self.failures, *busy)
        log.error(
            "provider.all_failed",
            context=self._purpose,
            tried=[{"provider": attempt.provider, "reason": attempt.reason} for attempt in attempts],
        )
        return AllProvidersFailed(attempts)

    def close(self) -> None:
        """The request is over; a probe without a verdict gives its lease back."""
        self._ended(AttemptResult.CANCELLED)
        if self._is_asked:
            self._count(RequestEnd.STOPPED, used_by_prompt(self._messages))
        self._leave()
        self._return_lease()

    def _count(self, end: RequestEnd, used: TokenUse, *, is_failure: bool = False) -> None:
        if not self._is_asked:
            return
        self._is_asked = False
        report = RequestReport(
            at=self._service.time(),
            provider=self._current.provider,
            model=self._current.model,
            spec=self._spec,
            end=end,
            is_failure=is_failure,
            used=used,
        )
        self._service.count(report)

    def _outcome(self, error: Exception) -> Outcome:
        outcome = classify(error, self._service.rules.cooldown_s)
        if isinstance(error, ModelNotFoundError) and self._current.model != self._current.provider.default_model:
            # One chat's choice of a model that is gone says nothing about the provider.
            return replace(outcome, cooldown_s=None)
        return outcome

    def _surfaced(self, outcome: Outcome, error: Exception) -> Exception:
        provider = self._current.provider.id
        log.info("provider.surfaced", provider=provider, fault=outcome.fault.value, reason=outcome.reason)
        self._ended(AttemptResult.SURFACED, outcome.fault)
        match outcome.fault:
            case Fault.REFUSED:
                surfaced: Exception = ContentRefused(provider, words_of(error) or outcome.reason)
            case Fault.REJECTED:
                surfaced = RequestRejected(provider, outcome.reason)
            case _:
                return error
        surfaced.__cause__ = error
        return surfaced
