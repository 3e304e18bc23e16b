"""The candidates of one request that are left, and the waits before one of them is asked.

A candidate is chosen when it is about to be asked. It needs a place at its gate, a slot, the lease of a probe and a
budget.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import structlog

from core.config.providers import ProviderKind
from core.redis.guard import RedisPatience
from services.llm.request import Candidate, RequestSpec
from services.llm.routing.admission.budget_guard import BudgetGuard, BudgetRefusal, Quote, Reservation
from services.llm.routing.admission.concurrency import ConcurrencyLimiter, Slot
from services.llm.routing.admission.gates import GatePlace, ProviderGate
from services.llm.routing.admission.probes import ProbeLeases
from services.llm.routing.events import Shed
from services.llm.routing.recorder import HALF_OPEN_RANK, OutcomeRecorder

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Route:
    """The candidates of one request.

    Args:
        candidates: candidates in the order of asking.
        probe: the half-open provider that this request probes if it gets the lease.
        is_reordered: a provider that would come first cannot take the request, so an answer of another one does not
            make that one preferred.
        is_withheld: remote providers were excluded because the chat has not consented to them.
        fits: returns whether a candidate can take the request as it is; None where every one can.
    """

    candidates: tuple[Candidate, ...]
    probe: str | None = None
    is_reordered: bool = False
    is_withheld: bool = False
    fits: Callable[[Candidate], bool] | None = None


class CandidateQueue:
    """The candidates that were not asked, and those that wait for something.

    Args:
        window: returns the context window that a model is known to have.
    """

    def __init__(self, recorder: OutcomeRecorder, route: Route, window: Callable[[Candidate], int | None]) -> None:
        self._recorder = recorder
        self._window = window
        self._fits = route.fits
        self._left = deque(route.candidates)
        self._passed: list[Candidate] = []
        """Candidates with a gate that stood still."""
        self._found_failing: set[str] = set()
        """Providers that failed elsewhere while this request waited for them."""
        self.probe = route.probe
        self.is_reordered = route.is_reordered
        """True if an earlier candidate was skipped, so that an answer says nothing about which one should lead."""
        self.is_patient = False
        """True once no other candidate is left: the request waits in the queues however long they stand still."""
        self.busy: dict[str, tuple[Candidate, bool]] = {}
        """Candidates at their concurrency limit, each with `is_reordered` as of when it was skipped."""
        self.unpaid: dict[str, tuple[Candidate, BudgetRefusal]] = {}
        """Candidates that a budget does not pay for, with the reason."""
        self.overflowed: Candidate | None = None
        """The last candidate with too small a context window."""

    @property
    def is_empty(self) -> bool:
        """True if every candidate was asked."""
        return not (self._left or self._passed)

    def pop(self) -> Candidate | None:
        """Removes and returns the healthiest candidate as of now: others may have been found failing meanwhile."""
        if not self._left and self._passed:
            # No other candidate answered.
            self._left.extend(self._passed)
            self._passed.clear()
            self.is_patient = True
        if not self._left:
            return None
        candidate = min(self._left, key=self._rank)
        self._left.remove(candidate)
        if self.is_too_small(candidate):
            self.is_reordered = True
            return self.pop()
        return candidate

    def put_back(self, candidate: Candidate, *, is_first: bool) -> None:
        """Asks a candidate before or after the others of its rank; one that cannot take the request comes last."""
        is_misfit = candidate.by_order and not self.fits(candidate)
        place = 0 if is_first else len(self._left)
        self._left.insert(place, replace(candidate, misfit=is_misfit))

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
        self._left = deque(each for each in self._left if each.provider.kind is ProviderKind.DEMO)
        self._passed.clear()

    def clear(self) -> None:
        """Drops the candidates that were not asked, or are busy."""
        self._left.clear()
        self.busy.clear()

    def has_healthy(self) -> bool:
        """Returns whether a healthy candidate was not asked."""
        return any(
            self._recorder.health_rank(other.provider.id) == 0.0 for other in _real(self._left) if not other.misfit
        )

    def has_better(self, candidate: Candidate) -> bool:
        """Returns whether a candidate that was not asked ranks before this one."""
        rank = self._rank(candidate)
        return any(self._rank(other) < rank for other in _real((*self._left, *self._passed)))

    def is_larger_window_left(self, candidate: Candidate, named: int | None) -> bool:
        """Returns whether a candidate that was not asked is known to have a larger window."""
        window = named or self._known_window(candidate)
        return window is not None and any((self._known_window(other) or 0) > window for other in self._left)

    def _rank(self, candidate: Candidate) -> tuple[bool, float]:
        provider = candidate.provider.id
        is_ranked = candidate.by_order or provider in self._found_failing
        health = self._recorder.health_rank(provider) if is_ranked else 0.0
        # The probed provider comes first until another request has found it failing.
        is_probe = provider == self.probe and health == HALF_OPEN_RANK
        return candidate.misfit, 0.0 if is_probe else health

    def is_too_small(self, candidate: Candidate) -> bool:
        """Returns whether the candidate's window is known to be no larger than one that was too small."""
        if self.overflowed is None:
            return False
        known, window = self._known_window(self.overflowed), self._known_window(candidate)
        return known is not None and window is not None and window <= known

    def _known_window(self, candidate: Candidate) -> int | None:
        """Returns the window that the server named, else the one that its model is known to have."""
        return self._recorder.adaptation(candidate).window or self._window(candidate)


@dataclass(frozen=True, slots=True)
class CandidateAdmission:
    """The limits that all requests share.

    Args:
        gates: by provider; made on first use.
        patience_s: how long the queue of a gate may stand still before a request goes on to another candidate.
    """

    limiter: ConcurrencyLimiter
    gates: Mapping[str, ProviderGate]
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
            slot = await self.shared.limiter.take(provider, self.redis_patience, self.preempt)
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
            self.shared.limiter.release(slot)

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
