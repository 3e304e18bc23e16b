"""The requests that wait for a place at a provider's gate, in turn by person."""

import asyncio
from collections import OrderedDict, deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.llm.routing.admission.request_admission import GatePlace, ProviderGate


class GateQueue:
    """The queue at one gate; made by its first request that has to wait.

    Requests are served round robin over the persons, first in, first out for each.
    """

    def __init__(self, gate: "ProviderGate") -> None:
        self._gate = gate
        self._waiting: OrderedDict[str, deque[asyncio.Future[GatePlace]]] = OrderedDict()
        self._progress_at = 0.0
        """The event loop's time at which a place last became free."""

    async def wait(self, person: str, patience_s: float | None) -> "GatePlace | None":
        """Returns a place once it is the request's turn; None if the queue stood still for `patience_s`."""
        admitted: asyncio.Future[GatePlace] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(person, deque()).append(admitted)
        try:
            return await self._admission(admitted, patience_s)
        except BaseException:
            # Cancelled, perhaps in the moment of its admission.
            if admitted.done() and not admitted.cancelled():
                admitted.result().leave()
            raise
        finally:
            self._forget(person, admitted)

    def admit_next(self) -> None:
        """Admits requests while places are free, one person after the other."""
        if self._waiting:
            self._progress_at = asyncio.get_running_loop().time()
        while (person := next(filter(self._gate.has_place, self._waiting), None)) is not None:
            queue = self._waiting[person]
            admitted = queue.popleft()
            if queue:
                self._waiting.move_to_end(person)
            else:
                del self._waiting[person]
            place = None if admitted.done() else self._gate.take(person)
            if place is not None:
                admitted.set_result(place)

    async def _admission(self, admitted: "asyncio.Future[GatePlace]", patience_s: float | None) -> "GatePlace | None":
        if patience_s is None:
            return await admitted
        loop = asyncio.get_running_loop()
        joined = loop.time()
        while not admitted.done():
            left_s = max(joined, self._progress_at) + patience_s - loop.time()
            if left_s <= 0:
                return None
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await asyncio.shield(admitted)
        return admitted.result()

    def _forget(self, person: str, admitted: "asyncio.Future[GatePlace]") -> None:
        """Removes a request that is no longer waiting from the queue."""
        queue = self._waiting.get(person)
        if queue is not None and admitted in queue:
            queue.remove(admitted)
            if not queue:
                del self._waiting[person]
