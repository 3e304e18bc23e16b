"""A clock that only tests advance."""

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime


class ManualClock:
    """Time passes only in `advance`; sleepers wake in the order of their deadlines."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._now = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._now, UTC)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._now + seconds, self._count, future))
        await future

    def shift(self, seconds: float) -> None:
        """Advance the time without waking sleepers."""
        self._now += seconds

    async def advance(self, seconds: float) -> None:
        """Advance the time, waking each sleeper at its deadline and letting it run."""
        end = self._now + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not future.done():
                future.set_result(None)
            await settle()
        self._now = end
        await settle()


async def settle(rounds: int = 20) -> None:
    """Let all ready tasks run."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def until(predicate: Callable[[], object], within_s: float = 30) -> None:
    """Wait for a condition in real time: of another process, a thread or a database."""
    async with asyncio.timeout(within_s):
        while not predicate():
            await asyncio.sleep(0.005)
