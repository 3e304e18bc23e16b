"""Wakes the worker loop of DBOS, which polls, as soon as there is work."""

import threading


class Wakeup(threading.Event):
    """Stop event of the worker loop whose wait can be ended early by `notify`. Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
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
        self._notified.wait(timeout)
        self._notified.clear()
        return self.is_set()
