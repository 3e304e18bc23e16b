"""Time: an injected clock, exponential backoff, and a timeout that counts only time in which the event loop ran.

Production uses the system clock, tests one that they advance.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Protocol, Self

_JITTER: Final = random.SystemRandom()


class Clock(Protocol):
    """Source of time and pauses."""

    def time(self) -> float:
        """Returns seconds since the epoch, for values that are stored or shared between replicas."""
        ...

    def monotonic(self) -> float:
        """Returns seconds that never step back, for durations and deadlines."""
        ...

    def now(self) -> datetime:
        """Returns the same instant as `time`, as an aware datetime in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspends the current task."""
        ...


class SystemClock:
    """The system clock."""

    def time(self) -> float:
        """Returns seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Returns seconds that never step back."""
        return time.monotonic()

    def now(self) -> datetime:
        """Returns the current instant in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Suspends the current task."""
        await asyncio.sleep(seconds)


# 2.0**1024 overflows a float; every pause reaches its limit long before that.
_LARGEST_EXPONENT = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double from `first_s` up to `longest_s`, in seconds."""

    first_s: float
    longest_s: float

    def pause_s(self, failures: int) -> float:
        """Returns the pause after this many failures in a row, the first of which counts as 1."""
        return min(self.first_s * 2.0 ** min(max(failures - 1, 0), _LARGEST_EXPONENT), self.longest_s)


def draw_pause_s(shortest_s: float, longest_s: float) -> float:
    """Returns a random pause in seconds (jitter), so that those that wait for the same thing come one by one."""
    return _JITTER.uniform(shortest_s, longest_s)


STEPS = 4


class LoopTimeout:
    """Raises TimeoutError in its block after `seconds` of a running event loop.

    While the loop is blocked, or the machine sleeps, an answer may arrive and not be read. `asyncio.timeout` expires in
    the same iteration in which the loop resumes, before the task that waits sees the answer. Here the time is counted
    in steps, and a standstill costs one step however long it lasts.

    Args:
        on_slow: called once, after the first quarter.
    """

    def __init__(self, seconds: float, on_slow: Callable[[], None] | None = None) -> None:
        self._step_s = seconds / STEPS
        self._on_slow = on_slow
        self._steps = 0
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._arm()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._step_s, self._step)

    def _step(self) -> None:
        self._steps += 1
        if self._steps == 1 and self._on_slow is not None:
            self._on_slow()
        if self._steps < STEPS:
            self._arm()
        else:
            self._timer = None
            self._timeout.reschedule(asyncio.get_running_loop().time())
