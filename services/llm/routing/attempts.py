"""One request on its way through its candidates: the order, the waits before each, and the evidence they give."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Self

import structlog
from pydantic_ai.messages import ModelMessage

from core.config.providers import ProviderKind
from core.errors import (
    AllProvidersFailed,
    BudgetExhausted,
    ConsentNeeded,
    ContextWindowExceeded,
    FailedAttempt,
    ProviderError,
    RequestRejected,
)
from core.redis.guard import RedisPatience
from services.llm.request import Candidate, RequestSpec
from services.llm.routing.admission.budget_guard import BudgetGuard, BudgetRefusal, Quote
from services.llm.routing.admission.concurrency import ConcurrencyLimiter, Slot
from services.llm.routing.admission.gates import GatePlace, ProviderGates
from services.llm.routing.admission.probes import ProbeLeases
from services.llm.routing.attempt import Attempt
from services.llm.routing.events import Shed
from services.llm.routing.faults.outcomes import Outcome
from services.llm.routing.faults.recourse import Indivisible, LastResort, Recourse, RequestShape
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.recorder import HALF_OPEN_RANK, OutcomeRecorder
from services.llm.usage import estimate_tokens, used_by_prompt

log = structlog.get_logger()

BUSY = "busy"
"""The reason of a candidate that was not asked because its concurrency limit was reached."""
OVER_BUDGET = "over budget"
"""The reason of a candidate that was not asked because a budget is used up."""


@dataclass(frozen=True, slots=True)
class Route:
    """The candidates of one request.

    Args:
        candidates: in the order in which they are asked.
        probe: the half-open provider that this request probes if it gets the lease.
        is_reordered: a provider that would come first cannot take the request, so an answer of another one does not
            make that one preferred.
        is_withheld: remote providers were excluded because the chat has not consented to them.
    """

    candidates: tuple[Candidate, ...]
    probe: str | None = None
    is_reordered: bool = False
    is_withheld: bool = False


@dataclass(frozen=True, slots=True)
class CandidateAdmission:
    """The waits of a request before it asks a candidate: a place at its gate, a slot, the lease of a probe, a budget.

    Args:
        patience_s: how long the queue of a gate may stand still before a request goes on to another candidate.
    """

    limiter: ConcurrencyLimiter
    gates: ProviderGates
    probes: ProbeLeases
    patience_s: float
    budgets: BudgetGuard


class Attempts:
    """The attempts of one request, as an asynchronous iterator: failover, retries, and the wait for busy providers.

    Record an outcome on each attempt and `close()` at the end in any case. An attempt without an outcome (a cancelled
    request) leaves provider health unchanged.

    A candidate at its concurrency limit is skipped. If no other one answers, the request waits for a slot.
    After each wait the candidate is looked at again: one that others have found failing meanwhile is not asked while
    another one could answer.
    """

    def __init__(
        self,
        recorder: OutcomeRecorder,
        admission: CandidateAdmission,
        route: Route,
        spec: RequestSpec,
        messages: Sequence[ModelMessage],
        window: Callable[[Candidate], int | None],
        shape: RequestShape | None = None,
        redis_patience: RedisPatience | None = None,
    ) -> None:
        self.recorder = recorder
        self.spec = spec
        self._shape = shape or Indivisible()
        self.recourse = Recourse(recorder, spec, self._shape)
        self._began = recorder.monotonic()
        self._loading_pause_s = recorder.timing.loading_poll_s[0]
        self.candidates = route.candidates
        self.is_reordered = route.is_reordered
        """True if an earlier candidate was skipped, so that an answer says nothing about which one should lead."""
        self._limiter = admission.limiter
        self._gates = admission.gates
        self._probes = admission.probes
        self._budgets = admission.budgets
        self._patience_s: float | None = admission.patience_s
        self._person = spec.user or spec.chat or spec.purpose
        """Requests of one person share a queue at each gate."""
        self._redis_patience = redis_patience or RedisPatience()
        self.messages = messages
        self._window = window
        self._probe = route.probe
        self._lease: tuple[str, str] | None = None
        """The provider that this request probes, with the name of the lease's holder."""
        self._is_withheld = route.is_withheld
        self._max_hops = recorder.limits.max_hops
        self._left = deque(route.candidates)
        self._passed: list[Candidate] = []
        """Candidates with a gate that stood still."""
        self._found_failing: set[str] = set()
        """Providers that failed elsewhere while this request waited for them."""
        self._current: Attempt | None = None
        self._failed: list[tuple[FailedAttempt, Fault]] = []
        self._busy: dict[str, tuple[Candidate, bool]] = {}
        """Candidates at their concurrency limit, each with `is_reordered` as of when it was skipped."""
        self._unpaid: dict[str, tuple[Candidate, BudgetRefusal]] = {}
        """Candidates that a budget does not pay for, with the reason."""
        self._overflowed: Candidate | None = None
        """The last candidate with too small a context window."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Attempt:
        """Returns the next attempt: a due retry, else the next candidate, else a busy one once it has a slot."""
        if self._current is not None and self._current.is_retry_due:
            self._current.begin()
            self._limiter.extend(self._current.slot)
            return self._current
        self._release()
        self._return_lease()
        if self._is_hop_limit_reached:
            # The demo provider makes no request; it names the providers that could be configured.
            self._left = deque(each for each in self._left if each.provider.kind is ProviderKind.DEMO)
            self._passed.clear()
        while candidate := self._pop_next():
            if self._is_too_small(candidate):
                self.is_reordered = True
                continue
            attempt = await self._approach(candidate)
            if attempt is not None:
                return attempt
        for further in (self._wait_for_slot, self._wait_for_budget, self._try_last_resort, self._await_loading):
            attempt = await further()
            if attempt is not None:
                return attempt
        raise StopAsyncIteration

    @property
    def _is_hop_limit_reached(self) -> bool:
        # By provider: the models of one provider count as one.
        return len({attempt.provider for attempt, _ in self._failed}) >= self._max_hops

    @property
    def has_candidates_left(self) -> bool:
        """True if candidates remain that were not asked."""
        return bool(self._left or self._passed)

    @property
    def failures(self) -> tuple[FailedAttempt, ...]:
        """The failed attempts, in order."""
        return tuple(attempt for attempt, _ in self._failed)

    def note_failure(self, attempt: Attempt, outcome: Outcome) -> None:
        """Adds a failed attempt; one that is not the provider's fault lets no other provider become preferred.

        An unclear refusal does not decide that yet: another candidate's answer makes it the provider's fault.
        """
        candidate = attempt.candidate
        is_unclear = outcome.fault is Fault.UNCLEAR
        self.is_reordered = self.is_reordered or (outcome.cooldown_s is None and not is_unclear)
        if outcome.fault is Fault.CONTEXT_WINDOW:
            self._overflowed = candidate
        failure = FailedAttempt(candidate.provider.id, candidate.model, outcome.reason)
        if (failure, outcome.fault) not in self._failed:
            self._failed.append((failure, outcome.fault))
        self.recourse.note_failure(candidate, attempt.adaptation, outcome)
        if is_unclear and self.recourse.is_request_at_fault:
            # Nothing is left to find out: every further candidate would refuse too.
            self._left.clear()
            self._busy.clear()

    def settle_evidence(self, attempt: Attempt) -> None:
        """Blames the candidates with an unclear refusal that an answer has proved wrong."""
        for candidate, blamed in self.recourse.settle(attempt.candidate, attempt.resort):
            if self.is_pick(candidate):
                self.recorder.model_failed(candidate, blamed, self.spec.purpose, is_listed=False)
            else:
                self.recorder.failed(candidate.provider, blamed, self.spec.purpose)

    def is_pick(self, candidate: Candidate) -> bool:
        """Returns whether the user picked this model, and it is not its provider's default."""
        choice = self.spec.choice
        return (
            choice is not None
            and choice.model is not None
            and (choice.provider, choice.model) == (candidate.provider.id, candidate.model)
            and choice.model != candidate.provider.default_model
        )

    def queue_other_model(self, candidate: Candidate) -> bool:
        """Asks the provider's next listed model before the next provider; returns False if there is none."""
        provider = candidate.provider
        tried = {attempt.model for attempt, _ in self._failed if attempt.provider == provider.id}
        for model in provider.models:
            if not self.spec.allows(provider.id, model):
                continue
            if model not in tried and not self.recorder.is_resting(provider.id, model):
                self._left.appendleft(replace(candidate, model=model))
                return True
        return False

    def is_larger_window_left(self, candidate: Candidate, named: int | None) -> bool:
        """Returns whether a candidate that was not asked is known to have a larger window."""
        window = named or self._known_window(candidate)
        if window is None:
            return False
        return any((self._known_window(other) or 0) > window for other in self._left)

    def note_answer(self, attempt: Attempt) -> None:
        """Releases the slot, and keeps the user with this provider if it stepped in for a busy one."""
        self._release()
        self.settle_evidence(attempt)
        before = takewhile(lambda candidate: candidate is not attempt.candidate, self.candidates)
        if self.spec.user is not None and any(candidate.provider.id in self._busy for candidate in before):
            self.recorder.keep_user(self.spec.user, attempt.candidate.provider.id)

    def exhausted(self) -> ProviderError:
        """Returns the error of a request that no candidate answered."""
        rejected = self._rejection()
        if rejected is not None and self.recourse.is_request_at_fault:
            return rejected
        if self._is_withheld:
            return ConsentNeeded()
        if rejected is not None:
            return rejected
        if any(fault is Fault.CONTEXT_WINDOW for _, fault in self._failed):
            return ContextWindowExceeded(self.failures)
        busy = [FailedAttempt(name, candidate.model, BUSY) for name, (candidate, _) in self._busy.items()]
        unpaid = [FailedAttempt(name, candidate.model, OVER_BUDGET) for name, (candidate, _) in self._unpaid.items()]
        attempts = (*self.failures, *busy, *unpaid)
        if self._unpaid and not self._failed and not self._busy:
            _, refusal = next(iter(self._unpaid.values()))
            log.info("provider.budget_exhausted", purpose=self.spec.purpose, budget=refusal.kind)
            return BudgetExhausted(refusal.kind, refusal.renews_at)
        log.error(
            "provider.all_failed",
            purpose=self.spec.purpose,
            attempts=[{"provider": attempt.provider, "reason": attempt.reason} for attempt in attempts],
        )
        if self._failed:
            # No candidate failed where all were merely busy.
            self.recorder.all_failed(attempts)
        return AllProvidersFailed(attempts)

    def _rejection(self) -> RequestRejected | None:
        """Returns the error of a request that is at fault: every candidate that was asked refused it."""
        unclear = self.recourse.unclear
        if not unclear or not (
            self.recourse.is_request_at_fault or all(fault is Fault.UNCLEAR for _, fault in self._failed)
        ):
            return None
        candidate, outcome = unclear[0]
        log.warning(
            "provider.request_rejected",
            purpose=self.spec.purpose,
            attempts=[{"provider": failed.provider, "reason": failed.reason} for failed in self.failures],
        )
        return RequestRejected(candidate.provider.id, outcome.reason)

    def close(self) -> None:
        """Cancels an attempt that is still in flight, and gives back its slot and a probe's lease."""
        if self._current is not None:
            self._current.cancel(lambda: used_by_prompt(self.messages))
        for candidate, outcome in self.recourse.take_unsettled():
            self.recorder.failed(candidate.provider, outcome, self.spec.purpose)
        self._release()
        self._return_lease()

    def _pop_next(self) -> Candidate | None:
        """Removes and returns the healthiest candidate as of now: others may have been found failing meanwhile."""
        if not self._left and self._passed:
            # No other candidate answered: wait in these queues however long they stand still.
            self._left.extend(self._passed)
            self._passed.clear()
            self._patience_s = None
        if not self._left:
            return None
        candidate = min(self._left, key=self._rank)
        self._left.remove(candidate)
        return candidate

    def _rank(self, candidate: Candidate) -> tuple[bool, float]:
        provider = candidate.provider.id
        is_ranked = candidate.by_order or provider in self._found_failing
        health = self.recorder.health_rank(provider) if is_ranked else 0.0
        # The probed provider comes first until another request has found it failing.
        is_probe = provider == self._probe and health == HALF_OPEN_RANK
        return candidate.misfit, 0.0 if is_probe else health

    async def _approach(self, candidate: Candidate) -> Attempt | None:
        """Waits for the place and the slot of a candidate; returns None where another one is to be asked first."""
        provider = candidate.provider
        health = self.recorder.health_rank(provider.id)
        place = await self._gates[provider.id].enter(self._person, self._gate_patience_s)
        if place is None and self.spec.stands_back:
            self._shed(candidate)
            return None
        if place is None:
            log.info("provider.queue_left", provider=provider.id, purpose=self.spec.purpose)
            self._passed.append(candidate)
            self.is_reordered = True
            return None
        slot: Slot | None = None
        attempt: Attempt | None = None
        try:
            slot = await self._limiter.take(provider, self._redis_patience, self._preempt)
            if slot is None:
                self._shed(candidate)
            elif await self._may_ask(candidate, health):
                attempt = await self._start(candidate, place, slot)
            return attempt
        finally:
            if attempt is None:
                place.leave()
                if slot is not None:
                    self._limiter.release(slot)

    async def _may_ask(self, candidate: Candidate, health: float) -> bool:
        """Takes the lease of a probe; returns False, with the candidate put back, if another is to be asked first.

        Args:
            candidate: the one that the request waited for.
            health: its rank before the wait.
        """
        provider = candidate.provider.id
        if provider == self._probe:
            holder = await self._probes.take(provider, self._redis_patience)
            if holder is not None:
                self._lease = (provider, holder)
                # It probes on behalf of all replicas, so it gets a second candidate in case the probe fails.
                self._max_hops = max(self._max_hops, 2)
            else:
                self._probe = None
        is_worse = self.recorder.health_rank(provider) > health
        if is_worse:
            self._found_failing.add(provider)
        if (is_worse or health > 0.0) and self._has_better(candidate):
            self._return_lease()
            self._left.appendleft(candidate)
            return False
        return True

    @property
    def _preempt(self) -> Callable[[], object] | None:
        """Cancels this request where it stands back."""
        task = asyncio.current_task()
        return task.cancel if self.spec.stands_back and task is not None else None

    @property
    def _gate_patience_s(self) -> float | None:
        if self.spec.stands_back:
            return 0.0
        return self._patience_s if self._has_healthy_alternative() else None

    def _has_healthy_alternative(self) -> bool:
        return any(
            self.recorder.health_rank(other.provider.id) == 0.0
            for other in self._left
            if other.provider.kind is not ProviderKind.DEMO and not other.misfit
        )

    def _has_better(self, candidate: Candidate) -> bool:
        rank = self._rank(candidate)
        others = (other for other in (*self._left, *self._passed) if other.provider.kind is not ProviderKind.DEMO)
        return any(self._rank(other) < rank for other in others)

    async def _wait_for_slot(self) -> Attempt | None:
        """Returns an attempt at the first busy candidate that has a slot and was not found failing meanwhile."""
        waiting = {name: each for name, (each, _) in self._busy.items() if not self._is_too_small(each)}
        health = {name: self.recorder.health_rank(name) for name in waiting}
        while waiting and not self._is_hop_limit_reached and not self.spec.stands_back:
            slot = await self._limiter.wait([each.provider for each in waiting.values()], self._redis_patience)
            if slot is None:
                break
            name = slot.provider.id
            attempt = await self._approach_busy(waiting.pop(name), slot, health)
            if attempt is not None:
                return attempt
        return None

    async def _try_last_resort(self) -> Attempt | None:
        resort = self.recourse.next_resort()
        while resort is not None:
            attempt = await self._ask_again(resort.candidate, resort)
            if attempt is not None:
                return attempt
            resort = self.recourse.next_resort()
        return None

    async def _await_loading(self) -> Attempt | None:
        """Asks a server again that loads its model, after a pause; None once its timeout has passed."""
        candidate = self.recourse.loading
        if candidate is None or self.spec.stands_back:
            return None
        left_s = self._began + candidate.provider.timeout_s - self.recorder.monotonic()
        if left_s <= self._loading_pause_s:
            return None
        await self.recorder.sleep(self._loading_pause_s)
        self._loading_pause_s = min(2 * self._loading_pause_s, self.recorder.timing.loading_poll_s[1])
        return await self._ask_again(candidate)

    async def _ask_again(self, candidate: Candidate, resort: LastResort | None = None) -> Attempt | None:
        """Returns an attempt at a candidate where no other one is left, after its waits; None without a slot."""
        slot = await self._limiter.take(candidate.provider, self._redis_patience, self._preempt)
        if slot is None and not self.spec.stands_back:
            slot = await self._limiter.wait([candidate.provider], self._redis_patience)
        if slot is None:
            return None
        place: GatePlace | None = None
        attempt: Attempt | None = None
        try:
            place = await self._gates[candidate.provider.id].enter(self._person)
            if place is not None:
                attempt = await self._start(candidate, place, slot, resort)
            return attempt
        finally:
            if attempt is None:
                self._limiter.release(slot)
                if place is not None:
                    place.leave()

    async def _approach_busy(self, candidate: Candidate, slot: Slot, health: Mapping[str, float]) -> Attempt | None:
        """Returns an attempt with a slot, once it has one; None where the provider fails and another is healthier."""
        name = candidate.provider.id
        attempt: Attempt | None = None
        place: GatePlace | None = None
        try:
            place = await self._gates[name].enter(self._person)
            rank = self.recorder.health_rank
            is_worse = rank(name) > health[name]
            if place is not None and not (is_worse and any(rank(other) < rank(name) for other in self._busy)):
                self.is_reordered = self._busy.pop(name)[1]
                attempt = await self._start(candidate, place, slot)
            return attempt
        finally:
            if attempt is None:
                self._limiter.release(slot)
                if place is not None:
                    place.leave()

    async def _wait_for_budget(self) -> Attempt | None:
        """Returns an attempt at a candidate with a budget held by requests in flight; None where they keep it."""
        while (waiting := self._waiting_for_budget()) and not self._is_hop_limit_reached:
            ends_at = self._began + max(each.provider.first_token_timeout_s for each in waiting)
            if self.spec.stands_back or self.recorder.monotonic() >= ends_at:
                break
            await self._budgets.wait()
            for candidate in waiting:
                attempt = await self._ask_again(candidate)
                if attempt is not None:
                    return attempt
        return None

    def _size(self) -> tuple[int, int]:
        sent, limit = self._shape.size()
        return sent or estimate_tokens(self.messages), limit

    def _waiting_for_budget(self) -> list[Candidate]:
        return [candidate for candidate, refusal in self._unpaid.values() if refusal.is_temporary]

    async def _start(
        self, candidate: Candidate, place: GatePlace, slot: Slot, resort: LastResort | None = None
    ) -> Attempt | None:
        """Returns an attempt once the budgets pay for it; None where one of them does not."""
        provider = candidate.provider
        paid = await self._budgets.reserve(Quote(provider, candidate.model, self.spec, self._size))
        if isinstance(paid, BudgetRefusal):
            if provider.id not in self._unpaid:
                log.info("provider.over_budget", provider=provider.id, budget=paid.kind, purpose=self.spec.purpose)
            self._unpaid[provider.id] = (candidate, paid)
            self.is_reordered = True
            self._return_lease()
            return None
        self._unpaid.pop(provider.id, None)
        if self._lease is not None and self._lease[0] == candidate.provider.id:
            self._probes.note_asked(candidate.provider.id)
        self._current = Attempt(self, candidate, place, slot, resort, paid)
        return self._current

    def _shed(self, candidate: Candidate) -> None:
        provider = candidate.provider.id
        log.info("provider.shed", provider=provider, purpose=self.spec.purpose)
        self.recorder.publish(Shed(provider))
        self._busy[provider] = (candidate, self.is_reordered)
        self.is_reordered = True

    def _release(self) -> None:
        if self._current is not None:
            self._current.release()
            self._limiter.release(self._current.slot)
            self._current = None

    def _return_lease(self) -> None:
        if self._lease is not None:
            self._probes.give_back(*self._lease)
            self._lease = None

    def _is_too_small(self, candidate: Candidate) -> bool:
        """Returns whether the candidate's window is known to be no larger than one that was too small."""
        if self._overflowed is None:
            return False
        known, window = self._known_window(self._overflowed), self._known_window(candidate)
        return known is not None and window is not None and window <= known

    def _known_window(self, candidate: Candidate) -> int | None:
        """Returns the window that the server named, else the one that its model is known to have."""
        return self.recorder.adaptation(candidate).window or self._window(candidate)
