"""The waits of one request before it asks a candidate: a place at its gate, a slot, the lease of a probe, a budget."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from core.redis.guard import RedisPatience
from services.llm.request import Candidate, RequestSpec
from services.llm.routing.admission.budget_guard import BudgetGuard, BudgetRefusal, Quote, Reservation
from services.llm.routing.admission.candidate_queue import CandidateQueue
from services.llm.routing.admission.concurrency import ConcurrencyLimiter, Slot
from services.llm.routing.admission.gates import GatePlace, ProviderGates
from services.llm.routing.admission.probes import ProbeLeases
from services.llm.routing.events import Shed
from services.llm.routing.recorder import OutcomeRecorder

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CandidateAdmission:
    """The limits that all requests share.

    Args:
        patience_s: how long the queue of a gate may stand still before a request goes on to another candidate.
    """

    limiter: ConcurrencyLimiter
    gates: ProviderGates
    probes: ProbeLeases
    patience_s: float
    budgets: BudgetGuard


@dataclass(frozen=True, slots=True)
class Admitted:
    """A candidate that may be asked now, with all that the request holds for it."""

    candidate: Candidate
    place: GatePlace
    slot: Slot
    reservation: Reservation | None


class RequestAdmission:
    """Admits one request to its candidates.

    After each wait the candidate is looked at again: one that others have found failing meanwhile is not asked while
    another one could answer.

    Args:
        size: returns the estimated tokens of the request and the limit of its answer.
    """

    def __init__(
        self,
        shared: CandidateAdmission,
        queue: CandidateQueue,
        recorder: OutcomeRecorder,
        spec: RequestSpec,
        size: Callable[[], tuple[int, int]],
        redis_patience: RedisPatience,
    ) -> None:
        self._shared = shared
        self._queue = queue
        self._recorder = recorder
        self._spec = spec
        self._size = size
        self._redis_patience = redis_patience
        self._began = recorder.clock.monotonic()
        self._person = spec.user or spec.chat or spec.purpose
        """Requests of one person share a queue at each gate."""
        self._lease: tuple[str, str] | None = None
        """The provider that this request probes, with the name of the lease's holder."""
        self.has_probed = False
        """True once this request has had the lease of a probe."""

    async def approach(self, candidate: Candidate) -> Admitted | None:
        """Waits for the place and the slot of a candidate; returns None where another one is to be asked first."""
        provider = candidate.provider
        health = self._recorder.health_rank(provider.id)
        place = await self._shared.gates[provider.id].enter(self._person, self._gate_patience_s)
        if place is None and self._spec.stands_back:
            self._shed(candidate)
            return None
        if place is None:
            log.info("provider.queue_left", provider=provider.id, purpose=self._spec.purpose)
            self._queue.pass_over(candidate)
            return None
        slot: Slot | None = None
        admitted: Admitted | None = None
        try:
            slot = await self._shared.limiter.take(provider, self._redis_patience, self._preempt)
            if slot is None:
                self._shed(candidate)
            elif await self._may_ask(candidate, health):
                admitted = await self._pay(candidate, place, slot)
            return admitted
        finally:
            if admitted is None:
                self._give_up(place, slot)

    async def wait_for_slot(self) -> Admitted | None:
        """Admits the request to the first busy candidate that has a slot and was not found failing meanwhile."""
        waiting = self._queue.waiting()
        health = {name: self._recorder.health_rank(name) for name in waiting}
        while waiting and not self._spec.stands_back:
            slot = await self._shared.limiter.wait([each.provider for each in waiting.values()], self._redis_patience)
            if slot is None:
                break
            admitted = await self._approach_busy(waiting.pop(slot.provider.id), slot, health)
            if admitted is not None:
                return admitted
        return None

    async def wait_for_budget(self) -> Admitted | None:
        """Admits the request to a candidate whose budget only requests in flight hold; None where they keep it."""
        while waiting := self._queue.waiting_for_budget():
            ends_at = self._began + max(each.provider.first_token_timeout_s for each in waiting)
            if self._spec.stands_back or self._recorder.clock.monotonic() >= ends_at:
                break
            await self._shared.budgets.wait()
            for candidate in waiting:
                admitted = await self.approach_again(candidate)
                if admitted is not None:
                    return admitted
        return None

    async def approach_again(self, candidate: Candidate) -> Admitted | None:
        """Admits the request where no other candidate is left, after its waits; None without a slot."""
        limiter = self._shared.limiter
        slot = await limiter.take(candidate.provider, self._redis_patience, self._preempt)
        if slot is None and not self._spec.stands_back:
            slot = await limiter.wait([candidate.provider], self._redis_patience)
        if slot is None:
            return None
        place: GatePlace | None = None
        admitted: Admitted | None = None
        try:
            place = await self._shared.gates[candidate.provider.id].enter(self._person)
            if place is not None:
                admitted = await self._pay(candidate, place, slot)
            return admitted
        finally:
            if admitted is None:
                self._give_up(place, slot)

    def extend(self, slot: Slot) -> None:
        """Keeps a slot for another request to the same candidate."""
        self._shared.limiter.extend(slot)

    def release(self, slot: Slot) -> None:
        """Gives a slot back."""
        self._shared.limiter.release(slot)

    def return_lease(self) -> None:
        """Gives the lease of a probe back without an outcome."""
        if self._lease is not None:
            self._shared.probes.give_back(*self._lease)
            self._lease = None

    async def _approach_busy(self, candidate: Candidate, slot: Slot, health: Mapping[str, float]) -> Admitted | None:
        """Uses a slot that was waited for; None where the provider fails and another is healthier."""
        name = candidate.provider.id
        admitted: Admitted | None = None
        place: GatePlace | None = None
        try:
            place = await self._shared.gates[name].enter(self._person)
            rank = self._recorder.health_rank
            is_worse = rank(name) > health[name]
            if place is not None and not (is_worse and any(rank(other) < rank(name) for other in self._queue.busy)):
                self._queue.take_busy(name)
                admitted = await self._pay(candidate, place, slot)
            return admitted
        finally:
            if admitted is None:
                self._give_up(place, slot)

    async def _may_ask(self, candidate: Candidate, health: float) -> bool:
        """Takes the lease of a probe; returns False, with the candidate put back, if another is to be asked first.

        Args:
            candidate: the one that the request waited for.
            health: its rank before the wait.
        """
        provider = candidate.provider.id
        if provider == self._queue.probe:
            holder = await self._shared.probes.take(provider, self._redis_patience)
            if holder is not None:
                self._lease = (provider, holder)
                self.has_probed = True
            else:
                self._queue.probe = None
        is_worse = self._recorder.health_rank(provider) > health
        if is_worse:
            self._queue.note_failing(provider)
        if (is_worse or health > 0.0) and self._queue.has_better(candidate):
            self.return_lease()
            self._queue.put_back(candidate, is_first=True)
            return False
        return True

    async def _pay(self, candidate: Candidate, place: GatePlace, slot: Slot) -> Admitted | None:
        """Reserves the cost of the request; returns None where a budget does not pay for it."""
        provider = candidate.provider
        paid = await self._shared.budgets.reserve(Quote(provider, candidate.model, self._spec, self._size))
        if isinstance(paid, BudgetRefusal):
            if provider.id not in self._queue.unpaid:
                log.info("provider.over_budget", provider=provider.id, budget=paid.kind, purpose=self._spec.purpose)
            self._queue.note_unpaid(candidate, paid)
            self.return_lease()
            return None
        self._queue.unpaid.pop(provider.id, None)
        if self._lease is not None and self._lease[0] == provider.id:
            self._shared.probes.note_asked(provider.id)
        return Admitted(candidate, place, slot, paid)

    def _shed(self, candidate: Candidate) -> None:
        provider = candidate.provider.id
        # A request of our own that stands back is shed at every try; its caller logs that it is put off.
        write = log.debug if self._spec.stands_back else log.info
        write("provider.shed", provider=provider, purpose=self._spec.purpose)
        self._recorder.publish(Shed(provider))
        self._queue.shed(candidate)

    def _give_up(self, place: GatePlace | None, slot: Slot | None) -> None:
        if place is not None:
            place.leave()
        if slot is not None:
            self._shared.limiter.release(slot)

    @property
    def _preempt(self) -> Callable[[], object] | None:
        """Cancels this request where it stands back."""
        task = asyncio.current_task()
        return task.cancel if self._spec.stands_back and task is not None else None

    @property
    def _gate_patience_s(self) -> float | None:
        if self._spec.stands_back:
            return 0.0
        return self._shared.patience_s if self._queue.has_healthy() and not self._queue.is_patient else None
