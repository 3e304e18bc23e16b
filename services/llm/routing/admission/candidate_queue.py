"""The candidates of one request that are left, and which of them is asked next."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from core.config.providers import ProviderKind
from services.llm.request import Candidate
from services.llm.routing.admission.budget_guard import BudgetRefusal
from services.llm.routing.recorder import HALF_OPEN_RANK, OutcomeRecorder


@dataclass(frozen=True, slots=True)
class Route:
    """The candidates of one request.

    Args:
        candidates: in the order in which they are asked.
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
        if self._is_too_small(candidate):
            self.is_reordered = True
            return self.pop()
        return candidate

    def put_back(self, candidate: Candidate, *, is_first: bool) -> None:
        """Asks a candidate before or after the others of its rank; one that cannot take the request comes last."""
        is_misfit = candidate.by_order and self._fits is not None and not self._fits(candidate)
        place = 0 if is_first else len(self._left)
        self._left.insert(place, replace(candidate, misfit=is_misfit))

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

    def waiting(self) -> dict[str, Candidate]:
        """Returns the busy candidates with windows that may be large enough, by provider."""
        return {name: each for name, (each, _) in self.busy.items() if not self._is_too_small(each)}

    def waiting_for_budget(self) -> list[Candidate]:
        """Returns the candidates with a budget that only requests in flight hold."""
        return [candidate for candidate, refusal in self.unpaid.values() if refusal.is_temporary]

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

    def _is_too_small(self, candidate: Candidate) -> bool:
        """Returns whether the candidate's window is known to be no larger than one that was too small."""
        if self.overflowed is None:
            return False
        known, window = self._known_window(self.overflowed), self._known_window(candidate)
        return known is not None and window is not None and window <= known

    def _known_window(self, candidate: Candidate) -> int | None:
        """Returns the window that the server named, else the one that its model is known to have."""
        return self._recorder.adaptation(candidate).window or self._window(candidate)


def _real(candidates: Iterable[Candidate]) -> Iterable[Candidate]:
    """Returns the candidates without the demo."""
    return (each for each in candidates if each.provider.kind is not ProviderKind.DEMO)
