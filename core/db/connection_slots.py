"""The queue for a connection of the pool. Under load of our own a request waits, however long it is."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class ConnectionSlots:
    """As many slots as the pool has connections, given out first in, first out; for one event loop.

    The pool itself fails every request that has waited for its timeout, so that of thousands at one instant most would
    fail although the database answers. Here only a standstill fails.

    Args:
        count: connections of the pool.
        standstill_s: the longest wait without any connection coming free.
    """

    def __init__(self, count: int, standstill_s: float) -> None:
        self._free = count
        self._standstill_s = standstill_s
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._releases = 0

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiters)

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None]:
        """Holds a slot while the context lasts.

        Raises:
            TimeoutError: no connection came free for `standstill_s`.
        """
        await self._acquire()
        try:
            yield
        finally:
            self._release()

    async def _acquire(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            while not turn.done():
                releases = self._releases
                await asyncio.wait([turn], timeout=self._standstill_s)
                if not turn.done() and self._releases == releases:
                    turn.cancel()
                    raise TimeoutError
        except asyncio.CancelledError:
            if turn.done():
                # Given out at the moment of the cancellation.
                self._release()
            turn.cancel()
            raise

    def _release(self) -> None:
        self._releases += 1
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
