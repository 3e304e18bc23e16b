"""Gates: bound the requests that wait for a provider's first output, and admit the others in turn by person.

A thousand requests that begin at once, after an outage for example, would keep the event loop from reading the answers
in time, and the provider would be blamed for it. Each provider has a gate of its own, so the queue of a silent provider
delays no request for another one.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass


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

    Waiting requests are served round robin over the persons, first in, first out for each. A person holds at most
    `share` places, so that the requests of one leave room for the others.

    Args:
        limit: the number of places.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = max(1, limit // 2)
        self._held: Counter[str] = Counter()
        self._total = 0
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._progress_at = 0.0
        """The event loop's time at which a place last became free."""

    async def enter(self, person: str, patience_s: float | None = None) -> GatePlace | None:
        """Returns a place, in turn where none is free.

        Args:
            person: the requests of one person share a queue.
            patience_s: give up when no place became free for so long; None waits without a limit.

        Returns:
            None if the queue stood still for too long.
        """
        if self._admits(person):
            self._hold(person)
            return GatePlace(self, person)
        admitted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(person, deque()).append(admitted)
        try:
            is_admitted = await self._wait(admitted, patience_s)
            return GatePlace(self, person) if is_admitted else None
        except BaseException:
            # Cancelled, perhaps in the moment of its admission.
            if admitted.done() and not admitted.cancelled():
                self.release(person)
            raise
        finally:
            self._forget(person, admitted)

    def release(self, person: str) -> None:
        """Frees a place of a person, and admits the next request."""
        self._total -= 1
        self._held[person] -= 1
        if not self._held[person]:
            del self._held[person]
        if self._waiting:
            self._progress_at = asyncio.get_running_loop().time()
            self._admit_next()

    async def _wait(self, admitted: asyncio.Future[None], patience_s: float | None) -> bool:
        if patience_s is None:
            await admitted
            return True
        loop = asyncio.get_running_loop()
        joined = loop.time()
        while not admitted.done():
            left_s = max(joined, self._progress_at) + patience_s - loop.time()
            if left_s <= 0:
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await asyncio.shield(admitted)
        return True

    def _admits(self, person: str) -> bool:
        # A free place has no eligible request in the queue: `release` would have admitted it.
        return self._total < self._limit and self._held[person] < self._share

    def _hold(self, person: str) -> None:
        self._total += 1
        self._held[person] += 1

    def _admit_next(self) -> None:
        """Admits requests while places are free, one person after the other."""
        while self._total < self._limit:
            person = next((each for each in self._waiting if self._held[each] < self._share), None)
            if person is None:
                return
            queue = self._waiting[person]
            admitted = queue.popleft()
            if queue:
                self._waiting.move_to_end(person)
            else:
                del self._waiting[person]
            if not admitted.done():
                self._hold(person)
                admitted.set_result(None)

    def _forget(self, person: str, admitted: asyncio.Future[None]) -> None:
        """Removes a request that is no longer waiting from the queue."""
        queue = self._waiting.get(person)
        if queue is not None and admitted in queue:
            queue.remove(admitted)
            if not queue:
                del self._waiting[person]
