"""One deadline that many short waits share: cheaper than an `asyncio.timeout` for each.

A timeout per wait arms and disarms a timer for every piece of a stream, which costs more than all else that the
fallback adds to one. Here a wait only writes down when it must end; the timer looks at that when it goes off, and
mostly finds that it has to go on sleeping.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType


class Deadline:
    """Ends waits that take too long, as `asyncio.timeout` does; for one wait at a time.

    Set `until`, then `with deadline:` around the wait. Between waits nothing can go off.

    Args:
        prolong: asked when a wait is due: until when it may go on after all, an instant that is past for no longer.
    """

    def __init__(self, prolong: Callable[[], float] | None = None) -> None:
        self._prolong = prolong
        self.until = 0.0
        """When the wait that comes must end, in the event loop's time."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task")
        self._cancelling = task.cancelling()
        self._waiting = task
        if self._timer is None or self._timer.when() > self.until:
            self._arm()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Turn the cancellation by this deadline into a TimeoutError; anybody else's stays what it is."""
        task, self._waiting = self._waiting, None
        if not self._expired or task is None:
            return
        self._expired = False
        # Whoever else cancelled the task meanwhile made the count higher than it was, and must be obeyed.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def close(self) -> None:
        """Put the timer away."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self.close()
        self._timer = self._loop.call_at(self.until, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._waiting is None:
            return
        if self._prolong is not None and self._loop.time() >= self.until:
            self.until = self._prolong()
        if self._loop.time() < self.until:
            self._arm()
            return
        self._expired = True
        self._waiting.cancel()
