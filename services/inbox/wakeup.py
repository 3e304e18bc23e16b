"""Wakes the worker loop of DBOS, which polls, as soon as there is work."""

import threading
from collections.abc import Callable


class Wakeup(threading.Event):
    """Stop event of the worker loop whose wait can be ended early by `notify`. Thread-safe.

    Args:
        on_iteration: called in the thread of the loop after each completed iteration.
    """

    def __init__(self, on_iteration: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._on_iteration = on_iteration
        self._notified = threading.Event()
        self.iterations = 0
        """Completed iterations of the loop."""

    def notify(self) -> None:
        """Make the loop poll now, or once more if it is polling."""
        self._notified.set()

    def set(self) -> None:
        """Stop the loop."""
        super().set()
        self._notified.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Return after `notify`, `set` or the timeout; True once the loop is stopped."""
        self.iterations += 1
        self._on_iteration()
        self._notified.wait(timeout)
        self._notified.clear()
        return self.is_set()
