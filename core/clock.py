"""Time: an injected clock, exponential backoff, and timeouts that allow for a standstill of the event loop.

Production uses the system clock, tests one that they advance.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
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

    async def sleep(self, seconds: float, /) -> None:
        """Suspends the current task."""
        ...


class SystemClock:
    """The system clock: each function itself, since the time is read dozens of times for a message."""

    monotonic = staticmethod(time.monotonic)
    now = staticmethod(partial(datetime.now, UTC))
    sleep = staticmethod(asyncio.sleep)
    time = staticmethod(time.time)


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


STANDSTILL_S = 0.1
"""Lateness of the event loop from which on a wait is prolonged by it."""
LONGEST_GRACE_S = 5.0
"""Longest such prolongation, after a machine has slept for hours."""


class Deadline:
    """Cancels waits that take too long, like `asyncio.timeout`; one wait at a time, and many short ones in all.

    A timeout per wait arms and cancels a timer for every piece of a stream, which costs more than everything else that
    the fallback adds. Here a wait only stores its end. The timer compares it when it fires, and mostly re-arms itself.

    Set `until`, then wrap the wait in `with deadline:`. Between waits the deadline has no effect. Close it after the
    last one.

    Args:
        prolong: called when a wait is due; returns its new end, or a past instant to let it expire. Dropped at the
            close: it is mostly a method of the deadline's owner, and the cycle would keep both until a collection.
    """

    def __init__(self, prolong: Callable[[], float] | None = None) -> None:
        self.prolong = prolong
        self.until = 0.0
        """The end of the next wait, in the event loop's time."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False
        self._due_at = 0.0

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a deadline needs a task")
        self._cancelling = task.cancelling()
        self._waiting = task
        if self._timer is None or self._due_at > self.until:
            self._arm()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Turns the cancellation by this deadline into a TimeoutError; other cancellations stay."""
        task, self._waiting = self._waiting, None
        if not self._expired or task is None:
            return
        self._expired = False
        # A higher count means that the task was cancelled from elsewhere too, which takes precedence.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def close(self) -> None:
        """Cancels the timer; no wait may follow."""
        self.prolong = None
        self._cancel_timer()

    def _arm(self) -> None:
        self._cancel_timer()
        self._due_at = self.until
        self._timer = self._loop.call_at(self.until, self._due)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        late_s = self._loop.time() - self._due_at
        self._timer = None
        if late_s > STANDSTILL_S:
            # The event loop stood still, or the machine slept: output that arrived meanwhile has not been read yet.
            self.until = self._loop.time() + min(late_s, LONGEST_GRACE_S)
        if self._waiting is None:
            return
        if self.prolong is not None and self._loop.time() >= self.until:
            self.until = self.prolong()
        if self._loop.time() < self.until:
            self._arm()
            return
        self._expired = True
        self._waiting.cancel()
