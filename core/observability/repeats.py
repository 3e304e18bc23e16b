"""Keeps a warning that repeats from filling the log."""

import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import cast

from cachetools import LRUCache

MAX_LINES = 1_000


class RepeatFilter(logging.Filter):
    """Drops a warning or error that was logged word by word a moment ago; the next one says how many were dropped.

    During an outage many tasks retry each second, and fail alike each time. Thread-safe.

    Args:
        window_s: time after a line in which its repetitions are dropped.
        now: a monotonic clock.
    """

    def __init__(self, window_s: float = 60.0, now: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._window_s = window_s
        self._now = now
        self._lock = threading.Lock()
        self._logged: LRUCache[int, tuple[float, int]] = LRUCache(MAX_LINES)
        """The instant of each line, and the number of its repetitions since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a record is written."""
        if record.levelno < logging.WARNING:
            return True
        key, now = _key(record), self._now()
        with self._lock:
            logged_at, dropped = self._logged.get(key, (float("-inf"), 0))
            is_repeated = now - logged_at < self._window_s
            self._logged[key] = (logged_at, dropped + 1) if is_repeated else (now, 0)
        if not is_repeated and dropped:
            _count(record, dropped)
        return not is_repeated


def _key(record: logging.LogRecord) -> int:
    """Returns a hash of everything but the time; no text is kept."""
    if isinstance(record.msg, dict):
        event = cast("Mapping[str, object]", record.msg)  # an event of structlog, whose exception is text by now
        return hash(tuple(sorted((name, repr(value)) for name, value in event.items() if name != "timestamp")))
    error = record.exc_info[1] if record.exc_info else None
    return hash((record.name, record.levelno, str(record.msg), repr(record.args), repr(error)))


def _count(record: logging.LogRecord, dropped: int) -> None:
    if isinstance(record.msg, dict):
        record.msg = {**cast("Mapping[str, object]", record.msg), "repeated": dropped}
    else:
        record.msg = f"{record.msg} (repeated: {dropped})"
