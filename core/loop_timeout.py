"""A timeout that counts only time in which the event loop ran.

While the loop is blocked, or the machine sleeps, an answer may arrive and not be read. `asyncio.timeout` expires in the
same iteration in which the loop resumes, before the task that waits sees the answer. Here the time is counted in steps,
and a standstill costs one step however long it lasts.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

STEPS = 4


class LoopTimeout:
    """Raises TimeoutError in its block after `seconds` of a running event loop.

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
