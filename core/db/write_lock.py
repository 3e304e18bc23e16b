"""In-process write lock for SQLite, which allows one writer at a time."""

import asyncio
from collections import deque


class WriteLock:
    """FIFO lock with a priority lane. Not reentrant; for one event loop."""

    def __init__(self) -> None:
        self._is_locked = False
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._commits = 0

    @property
    def waiting(self) -> int:
        """Transactions that wait for the lock."""
        return len(self._urgent) + len(self._waiters)

    async def acquire(self, timeout_s: float, *, urgent: bool) -> None:
        """Acquire the lock.

        Args:
            timeout_s: the longest wait without a commit by any holder; a long queue that progresses never times out.
            urgent: whether to be served before waiters that are not.

        Raises:
            TimeoutError: no holder committed for `timeout_s`.
        """
        if not self._is_locked:
            self._is_locked = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._urgent if urgent else self._waiters).append(turn)
        try:
            while not turn.done():
                commits = self._commits
                await asyncio.wait([turn], timeout=timeout_s)
                if not turn.done() and self._commits == commits:
                    turn.cancel()
                    raise TimeoutError
        except asyncio.CancelledError:
            if turn.done():
                # Acquired at the moment of the cancellation.
                self.release(committed=False)
            turn.cancel()
            raise

    def release(self, *, committed: bool) -> None:
        """Release the lock to the next waiter."""
        self._commits += committed
        for waiters in (self._urgent, self._waiters):
            while waiters:
                turn = waiters.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._is_locked = False
