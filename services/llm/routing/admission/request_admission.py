"""The remaining candidates of one request, and the place, slot and budget that it holds before one is asked.

A candidate is chosen when it is about to be asked. It needs a place at its gate, a slot, the lease of a probe and a
budget.

A gate bounds the requests that wait for a provider's first output. A thousand requests that begin at once, after an
outage for example, would keep the event loop from reading the answers in time, and the provider would be blamed for it.
Each provider has a gate of its own, so the queue of a silent provider delays no request for another one.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from core.config.providers import ProviderKind, ProviderSettings
from core.redis.guard import RedisPatience
from services.llm.request import Candidate, RequestSpec
from services.llm.routing.admission.budget_guard import BudgetRefusal, Quote, Reservation
from services.llm.routing.admission.gate_queue import GateQueue
from services.llm.routing.events import Shed
from services.llm.routing.recorder import HALF_OPEN_RANK, OutcomeRecorder

if TYPE_CHECKING:
    from services.llm.routing.admission.concurrency import SharedLimits

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class GatePlace:
    """A request's place at a gate, held until `leave`."""

    gate: "ProviderGate"
    person: str
    _is_held: bool = True

    def leave(self) -> None:
        """Gives the place to the next request. Safe to call twice."""
        if self._is_held:
            self._is_held = False
            self.gate.release(self.person)


class ProviderGate:
    """The places of one provider, for requests of this process.

    A person holds at most half of the places, so that the requests of one leave room for the others.

    Args:
        limit: the number of places.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = max(1, limit // 2)
        self._held: Counter[str] = Counter()
        self._total = 0
        self._queue: GateQueue | None = None

    async def enter(self, person: str, patience_s: float | None = None) -> GatePlace | None:
        """Returns a place, in turn where none is free; None if none became free for `patience_s`."""
        # A free place has no eligible request in the queue: `release` would have admitted it.
        place = self.take(person)
        if place is not None:
            return place
        if self._queue is None:
            self._queue = GateQueue(self)
        return await self._queue.wait(person, patience_s)

    def take(self, person: str) -> GatePlace | None:
        """Returns a place that is free for a person."""
        if not self.has_place(person):
            return None
        self._total += 1
        self._held[person] += 1
        return GatePlace(self, person)

    def has_place(self, person: str) -> bool:
        """Returns whether a place is free for a person."""
        return self._total < self._limit and self._held[person] < self._share

    def release(self, person: str) -> None:
        """Frees a place of a person, and admits the next request."""
        self._total -= 1
        self._held[person] -= 1
        if not self._held[person]:
            del self._held[person]
        if self._queue is not None:
            self._queue.admit_next()


@dataclass(slots=True, eq=False)
class Slot:
    """The right to have one request in flight, held until `release`. At a provider without a limit it only counts.

    Args:
        in_flight: the requests of this process in flight, by provider.
    """

    provider: ProviderSettings
    in_flight: Counter[str]

    def __post_init__(self) -> None:
        self.in_flight[self.provider.id] += 1

    def extend(self) -> None:
        """Keeps the slot for longer: the same provider is asked once more, or its answer takes long."""

    def release(self) -> None:
        """Ends the request."""
        self.in_flight[self.provider.id] -= 1


@dataclass(frozen=True, slots=True)
class Admitted:
    """A candidate that may be asked now, with all that the request holds for it."""

    candidate: Candidate
    place: GatePlace
    slot: Slot
    reservation: Reservation | None


class CandidateQueue:
    """The candidates that were not asked, and those that wait for something.

    Args:
        candidates: all candidates in the order of asking.
        probe: the half-open provider that the request probes if it gets the lease.
        fits: returns whether a candidate can take the request as it is; None where every one can.
        is_reordered: a provider that would come first cannot take the request.
        is_withheld: remote providers were excluded because the chat has not consented to them.
    """

    def __init__(
        self,
        recorder: OutcomeRecorder,
        candidates: Sequence[Candidate],
        probe: str | None,
        fits: Callable[[Candidate], bool] | None,
        *,
        is_reordered: bool,
        is_withheld: bool,
    ) -> None:
        self._recorder = recorder
        self._fits = fits
        self.candidates = candidates
        self.is_withheld = is_withheld
        self.left = deque(candidates)
        """Candidates that were not asked, without those that were passed over."""
        self._passed: list[Candidate] = []
        """Candidates with a gate that stood still."""
        self._found_failing: set[str] = set()
        """Providers that failed elsewhere while this request waited for them."""
        self.probe = probe
        self.is_reordered = is_reordered
        """True if an earlier candidate was skipped, so that an answer says nothing about which one should lead."""
        self.is_patient = False
        """True once no other candidate is left: the request waits in the queues however long they stand still."""
        self.busy: dict[str, tuple[Candidate, bool]] = {}
        """Candidates at their concurrency limit, each with `is_reordered` as of when it was skipped."""
        self.unpaid: dict[str, tuple[Candidate, BudgetRefusal]] = {}
        """Candidates that a budget does not pay for, with the reason."""
        self.is_too_small: Callable[[Candidate], bool] | None = None
        """Returns whether a candidate cannot take a request of this length; set once one has refused it."""

    @property
    def is_empty(self) -> bool:
        """True if every candidate was asked."""
        return not (self.left or self._passed)

    def pop(self) -> Candidate | None:
        """Removes and returns the healthiest candidate as of now: others may have been found failing meanwhile."""
        if not self.left and self._passed:
            # No other candidate answered.
            self.left.extend(self._passed)
            self._passed.clear()
            self.is_patient = True
        if not self.left:
            return None
        candidate = min(self.left, key=self._rank)
        self.left.remove(candidate)
        if self.is_too_small is not None and self.is_too_small(candidate):
            self.is_reordered = True
            return self.pop()
        return candidate

    def put_back(self, candidate: Candidate, *, is_first: bool) -> None:
        """Asks a candidate before or after the others of its rank; one that cannot take the request comes last."""
        is_misfit = candidate.by_order and not self.fits(candidate)
        place = 0 if is_first else len(self.left)
        self.left.insert(place, replace(candidate, misfit=is_misfit))

    def fits(self, candidate: Candidate) -> bool:
        """Returns whether a candidate can take the request as it is."""
        return self._fits is None or self._fits(candidate)

    def pass_over(self, candidate: Candidate) -> None:
        """Asks a candidate with a queue that stands still after the others."""
        self._passed.append(candidate)
        self.is_reordered = True

    def shed(self, candidate: Candidate) -> None:
        """Keeps a candidate at its concurrency limit until it has a slot."""
        self.busy[candidate.provider.id] = (candidate, self.is_reordered)
        self.is_reordered = True

    def take_busy(self, provider: str) -> None:
        """Removes a candidate that has a slot now; its answer counts as if it had never been skipped."""
        self.is_reordered = self.busy.pop(provider)[1]

    def note_unpaid(self, candidate: Candidate, refusal: BudgetRefusal) -> None:
        """Keeps a candidate that a budget does not pay for."""
        self.unpaid[candidate.provider.id] = (candidate, refusal)
        self.is_reordered = True

    def note_failing(self, provider: str) -> None:
        """Ranks a provider by its health from now on, even where it was forced or chosen."""
        self._found_failing.add(provider)

    def keep_demo(self) -> None:
        """Drops the candidates except for the demo, which makes no request and explains how to configure a provider."""
        self.left = deque(each for each in self.left if each.provider.kind is ProviderKind.DEMO)
        self._passed.clear()

    def clear(self) -> None:
        """Drops the candidates that were not asked, or are busy."""
        self.left.clear()
        self.busy.clear()

    def has_healthy(self) -> bool:
        """Returns whether a healthy candidate was not asked."""
        return any(
            self._recorder.health_rank(other.provider.id) == 0.0 for other in _real(self.left) if not other.misfit
        )

    def has_better(self, candidate: Candidate) -> bool:
        """Returns whether a candidate that was not asked ranks before this one."""
        rank = self._rank(candidate)
        return any(self._rank(other) < rank for other in _real((*self.left, *self._passed)))

    def _rank(self, candidate: Candidate) -> tuple[bool, float]:
        provider = candidate.provider.id
        is_ranked = candidate.by_order or provider in self._found_failing
        health = self._recorder.health_rank(provider) if is_ranked else 0.0
        # The probed provider comes first until another request has found it failing.
        is_probe = provider == self.probe and health == HALF_OPEN_RANK
        return candidate.misfit, 0.0 if is_probe else health


class RequestAdmission:
    """Admits one request to its candidates.

    After each wait the candidate is looked at again: one that others have found failing meanwhile is not asked while
    another one could answer.

    Args:
        size: returns the estimated tokens of the request and the limit of its answer.
    """

    def __init__(
        self,
        shared: "SharedLimits",
        queue: CandidateQueue,
        recorder: OutcomeRecorder,
        spec: RequestSpec,
        size: Callable[[], tuple[int, int]],
        redis_patience: RedisPatience,
    ) -> None:
        self.shared = shared
        self.queue = queue
        self.recorder = recorder
        self.spec = spec
        self._size = size
        self.redis_patience = redis_patience
        self.person = spec.user or spec.chat or spec.purpose
        """Requests of one person share a queue at each gate."""
        self._lease: tuple[str, str] | None = None
        """The provider that this request probes, with the name of the lease's holder."""
        self.has_probed = False
        """True once this request has had the lease of a probe."""

    async def approach(self, candidate: Candidate) -> Admitted | None:
        """Waits for the place and the slot of a candidate; returns None where another one is to be asked first."""
        provider = candidate.provider
        health = self.recorder.health_rank(provider.id)
        place = await self.shared.gates[provider.id].enter(self.person, self._gate_patience_s)
        if place is None and self.spec.stands_back:
            self._shed(candidate)
            return None
        if place is None:
            log.info("provider.queue_left", provider=provider.id, purpose=self.spec.purpose)
            self.queue.pass_over(candidate)
            return None
        slot: Slot | None = None
        admitted: Admitted | None = None
        try:
            slot = await self._take_slot(provider)
            if slot is None:
                self._shed(candidate)
            elif await self._may_ask(candidate, health):
                admitted = await self.pay(candidate, place, slot)
            return admitted
        finally:
            if admitted is None:
                self.give_up(place, slot)

    def return_lease(self) -> None:
        """Gives the lease of a probe back without an outcome."""
        if self._lease is not None:
            self.shared.probes.give_back(*self._lease)
            self._lease = None

    async def _take_slot(self, provider: ProviderSettings) -> Slot | None:
        limiter = self.shared.limiter
        if provider.max_concurrency is None and not self.spec.stands_back and provider.id not in limiter.background:
            return Slot(provider, limiter.in_flight)
        return await limiter.take(provider, self.redis_patience, self.preempt)

    async def _may_ask(self, candidate: Candidate, health: float) -> bool:
        """Takes the lease of a probe; returns False, with the candidate put back, if another is to be asked first.

        Args:
            candidate: the one that the request waited for.
            health: the provider's rank before the wait.
        """
        provider = candidate.provider.id
        if provider == self.queue.probe:
            holder = await self.shared.probes.take(provider, self.redis_patience)
            if holder is not None:
                self._lease = (provider, holder)
                self.has_probed = True
            else:
                self.queue.probe = None
        is_worse = self.recorder.health_rank(provider) > health
        if is_worse:
            self.queue.note_failing(provider)
        if (is_worse or health > 0.0) and self.queue.has_better(candidate):
            self.return_lease()
            self.queue.put_back(candidate, is_first=True)
            return False
        return True

    async def pay(self, candidate: Candidate, place: GatePlace, slot: Slot) -> Admitted | None:
        """Reserves the cost of the request; returns None where a budget does not pay for it."""
        provider, budgets = candidate.provider, self.shared.budgets
        paid = None
        if not budgets.is_empty or provider.budget_day_usd is not None:
            paid = await budgets.reserve(Quote(provider, candidate.model, self.spec, self._size))
        if isinstance(paid, BudgetRefusal):
            if provider.id not in self.queue.unpaid:
                log.info("provider.over_budget", provider=provider.id, budget=paid.kind, purpose=self.spec.purpose)
            self.queue.note_unpaid(candidate, paid)
            self.return_lease()
            return None
        self.queue.unpaid.pop(provider.id, None)
        if self._lease is not None and self._lease[0] == provider.id:
            self.shared.probes.note_asked(provider.id)
        return Admitted(candidate, place, slot, paid)

    def _shed(self, candidate: Candidate) -> None:
        provider = candidate.provider.id
        # A request of our own that stands back is shed at every try; its caller logs that it is put off.
        write = log.debug if self.spec.stands_back else log.info
        write("provider.shed", provider=provider, purpose=self.spec.purpose)
        self.recorder.publish(Shed(provider))
        self.queue.shed(candidate)

    def give_up(self, place: GatePlace | None, slot: Slot | None) -> None:
        """Gives back what the request holds for a candidate that it does not ask."""
        if place is not None:
            place.leave()
        if slot is not None:
            slot.release()

    @property
    def preempt(self) -> Callable[[], object] | None:
        """Cancels this request where it stands back."""
        task = asyncio.current_task()
        return task.cancel if self.spec.stands_back and task is not None else None

    @property
    def _gate_patience_s(self) -> float | None:
        if self.spec.stands_back:
            return 0.0
        return self.shared.patience_s if self.queue.has_healthy() and not self.queue.is_patient else None


def _real(candidates: Iterable[Candidate]) -> Iterable[Candidate]:
    """Returns the candidates without the demo."""
    return (each for each in candidates if each.provider.kind is not ProviderKind.DEMO)
