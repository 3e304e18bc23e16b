"""The tries that are left to one request once no candidate can be asked at once.

It waits for a slot or a budget of those that were skipped, asks one of them for less, or waits for a server that loads
its model.
"""

from collections.abc import Mapping

from services.llm.request import Candidate
from services.llm.routing.admission.request_admission import Admitted, RequestAdmission, Slot
from services.llm.routing.recourse import LastResort
from services.llm.routing.request_failures import RequestFailures


class FurtherTries:
    """Finds the next candidate of a request whose queue is empty.

    Args:
        began: start of the request, by the monotonic clock.
    """

    def __init__(self, admission: RequestAdmission, failures: RequestFailures, began: float) -> None:
        self._admission = admission
        self._shared = admission.shared
        self._queue = admission.queue
        self._recorder = admission.recorder
        self._spec = admission.spec
        self._recourse = failures.recourse
        self._began = began
        self._loading_pause_s = self._recorder.timing.loading_poll_s[0]

    async def find(self, *, waits_for_busy: bool) -> tuple[Admitted, LastResort | None] | None:
        """Returns a candidate that may be asked now, with the reduced request if it gets one; None if none is left.

        Args:
            waits_for_busy: whether candidates may be asked that were busy, or over a budget.
        """
        if waits_for_busy and (admitted := await self._wait_for_slot() or await self._wait_for_budget()):
            return admitted, None
        while resort := self._recourse.next_resort():
            if admitted := await self._approach_again(resort.candidate):
                return admitted, resort
        admitted = await self._await_loading()
        return None if admitted is None else (admitted, None)

    async def _wait_for_slot(self) -> Admitted | None:
        """Admits the request to the first busy candidate that has a slot and was not found failing meanwhile."""
        is_too_small = self._queue.is_too_small
        busy = {
            name: each for name, (each, _) in self._queue.busy.items() if is_too_small is None or not is_too_small(each)
        }
        health = {name: self._recorder.health_rank(name) for name in busy}
        while busy and not self._spec.stands_back:
            providers = [each.provider for each in busy.values()]
            slot = await self._shared.limiter.wait(providers, self._admission.redis_patience)
            if slot is None:
                break
            admitted = await self._approach_busy(busy.pop(slot.provider.id), slot, health)
            if admitted is not None:
                return admitted
        return None

    async def _wait_for_budget(self) -> Admitted | None:
        """Admits the request to a candidate whose budget only requests in flight hold; None where they keep it."""
        while waiting := [each for each, refusal in self._queue.unpaid.values() if refusal.is_temporary]:
            ends_at = self._began + max(each.provider.first_token_timeout_s for each in waiting)
            if self._spec.stands_back or self._recorder.clock.monotonic() >= ends_at:
                break
            await self._shared.budgets.wait()
            for candidate in waiting:
                admitted = await self._approach_again(candidate)
                if admitted is not None:
                    return admitted
        return None

    async def _await_loading(self) -> Admitted | None:
        """Asks a server again that loads its model, after a pause; None once its timeout has passed.

        A request that was found to be at fault would be refused by that server as well.
        """
        candidate = self._recourse.loading
        if candidate is None or self._spec.stands_back or self._recourse.is_request_at_fault:
            return None
        left_s = self._began + candidate.provider.timeout_s - self._recorder.clock.monotonic()
        if left_s <= self._loading_pause_s:
            return None
        await self._recorder.clock.sleep(self._loading_pause_s)
        self._loading_pause_s = min(2 * self._loading_pause_s, self._recorder.timing.loading_poll_s[1])
        return await self._approach_again(candidate)

    async def _approach_again(self, candidate: Candidate) -> Admitted | None:
        """Admits the request to a candidate, after its waits; None without a slot."""
        limiter, patience = self._shared.limiter, self._admission.redis_patience
        slot = await limiter.take(candidate.provider, patience, self._admission.preempt)
        if slot is None and not self._spec.stands_back:
            slot = await limiter.wait([candidate.provider], patience)
        if slot is None:
            return None
        place = admitted = None
        try:
            place = await self._shared.gates[candidate.provider.id].enter(self._admission.person)
            if place is not None:
                admitted = await self._admission.pay(candidate, place, slot)
            return admitted
        finally:
            if admitted is None:
                self._admission.give_up(place, slot)

    async def _approach_busy(self, candidate: Candidate, slot: Slot, health: Mapping[str, float]) -> Admitted | None:
        """Uses a slot that was waited for; None where the provider fails and another is healthier."""
        name = candidate.provider.id
        place = admitted = None
        try:
            place = await self._shared.gates[name].enter(self._admission.person)
            rank = self._recorder.health_rank
            is_worse = rank(name) > health[name]
            if place is not None and not (is_worse and any(rank(other) < rank(name) for other in self._queue.busy)):
                self._queue.take_busy(name)
                admitted = await self._admission.pay(candidate, place, slot)
            return admitted
        finally:
            if admitted is None:
                self._admission.give_up(place, slot)
