"""Health of the queue: tells an outage of the database, which passes, from a queue that cannot work.

A database that is unreachable, locked or full makes the process unready, and the queue keeps trying. An error that
repeats although the database answers (a refused statement, a missing privilege, a bug) does not pass: the process has
to end, so that its supervisor and its operators see it.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from core.clock import Clock
from core.db.driver_errors import DAMAGED, FORBIDDEN, REFUSED, describe_storage_error
from core.errors import InboxError, StorageError

log = structlog.get_logger()


PERMANENT = frozenset({REFUSED, FORBIDDEN, DAMAGED})
"""Descriptions of errors that a database which can be reached returns for good."""


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """Limits from which a failing queue is reported, and given up.

    Args:
        check_s: pause between two checks while an operation fails.
        unready_failures: consecutive failures of one operation after which the process is not ready.
        fatal_failures: consecutive permanent failures after which the process ends.
        fatal_after_s: and for how long they have to have lasted; a burst of wakeups is no proof.
        stall_s: time without a completed poll after which the process is not ready.
    """

    check_s: float = 1.0
    unready_failures: int = 2
    fatal_failures: int = 5
    fatal_after_s: float = 4.0
    stall_s: float = 30.0


@dataclass(slots=True)
class FailureStreak:
    """Consecutive failures of one operation."""

    failures: int = 0
    permanent: int = 0
    permanent_since: float = 0.0
    reason: str = ""


class QueueHealth:
    """Counts consecutive failures by operation. Thread-safe: each operation is reported by one thread.

    Args:
        limits: when failures are reported, and when they are fatal.
        monotonic: seconds that never step back.
    """

    def __init__(self, limits: HealthLimits | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or HealthLimits()
        self.monotonic = monotonic
        self.failing: dict[str, FailureStreak] = {}
        """The operations whose last call failed."""
        self.polled_at: float | None = None
        """The instant at which the worker loop last completed a poll."""
        self._poll_failed = False
        self._ended: str | None = None
        self._on_failure: Callable[[], object] = _ignore

    def record_failure(self, operation: str, error: BaseException) -> None:
        """Counts a failure of an operation."""
        streak = self.failing.setdefault(operation, FailureStreak())
        streak.failures += 1
        streak.reason = _describe(error)
        if _is_permanent(error):
            if not streak.permanent:
                streak.permanent_since = self.monotonic()
            streak.permanent += 1
        else:
            streak.permanent = 0
        if streak.failures == self._limits.unready_failures:
            log.error("inbox.queue_failing", operation=operation, failures=streak.failures, reason=streak.reason)
        self._on_failure()

    def record_success(self, operation: str) -> None:
        """Ends the streak of an operation's failures."""
        streak = self.failing.pop(operation, None)
        if streak is not None and streak.failures >= self._limits.unready_failures:
            log.info("inbox.queue_recovered", operation=operation, failures=streak.failures)

    def record_poll_error(self, error: BaseException) -> None:
        """Counts an error of the worker loop, once per poll however many steps of it fail."""
        if not self._poll_failed:
            self._poll_failed = True
            self.record_failure("poll", error)

    def complete_poll(self) -> None:
        """Ends the streak of failed polls, unless this one failed as well; called while any operation fails."""
        if not self._poll_failed:
            self.record_success("poll")
        self._poll_failed = False

    def end_worker(self, reason: str) -> None:
        """Notes that the worker loop has ended although nothing stopped it."""
        self._ended = reason
        self._on_failure()

    @property
    def problem(self) -> str | None:
        """The reason why the queue does not work now, or None."""
        if self._ended is not None:
            return self._ended
        for operation, streak in list(self.failing.items()):
            if streak.failures >= self._limits.unready_failures:
                return f"{operation} failed {streak.failures} times in a row: {streak.reason}"
        if self.polled_at is not None and self.monotonic() - self.polled_at > self._limits.stall_s:
            return f"no poll was completed within {self._limits.stall_s:g} s"
        return None

    @property
    def fatal_problem(self) -> str | None:
        """The reason why the queue will not work again in this process, or None."""
        if self._ended is not None:
            return self._ended
        now, limits = self.monotonic(), self._limits
        for operation, streak in list(self.failing.items()):
            is_repeated = streak.permanent >= limits.fatal_failures
            if is_repeated and now - streak.permanent_since >= limits.fatal_after_s:
                return f"{operation} failed {streak.permanent} times in a row: {streak.reason}"
        return None

    async def watch(self, clock: Clock) -> None:
        """Checks while an operation fails, until cancelled.

        Raises:
            InboxError: the queue cannot work in this process.
        """
        failed = asyncio.Event()
        self._on_failure = partial(asyncio.get_running_loop().call_soon_threadsafe, failed.set)
        try:
            while (problem := self.fatal_problem) is None:
                if self.failing:
                    await clock.sleep(self._limits.check_s)
                else:
                    failed.clear()
                    await failed.wait()
        finally:
            self._on_failure = _ignore  # the loop may be closed when the next one is reported
        raise InboxError(f"the inbox cannot work, so no message would be answered: {problem}")


def _ignore() -> None:
    """Is called for failures while nothing watches for them."""


def _is_permanent(error: BaseException) -> bool:
    if isinstance(error, StorageError):
        cause = error.__cause__
        return cause is not None and _is_permanent(cause)
    if isinstance(error, DBAPIError) and (error.connection_invalidated or isinstance(error.orig, OSError)):
        return False
    if isinstance(error, DBAPIError | PoolTimeoutError | sqlite3.Error):
        return describe_storage_error(error) in PERMANENT
    return not isinstance(error, OSError | TimeoutError)


def _describe(error: BaseException) -> str:
    """Returns a reason without stored data: the driver's own text may quote a message."""
    if isinstance(error, StorageError) and error.__cause__ is not None:
        return _describe(error.__cause__)
    fault = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if not isinstance(error, DBAPIError | PoolTimeoutError | sqlite3.Error):
        return type(error).__name__
    code = getattr(fault, "sqlstate", None) or getattr(fault, "sqlite_errorname", None)
    names = ", ".join(filter(None, (type(fault).__name__, code)))
    return f"the database failed: {describe_storage_error(error)} ({names})"


PAUSE_S = 1800.0
"""Time until operators are notified again while a supervisor keeps restarting the process."""


class FailureStamp:
    """A file that holds the time of the last notice.

    Args:
        path: the file; it exists only after a failure.
        pause_s: time until another notice is due.
    """

    def __init__(self, path: Path, pause_s: float = PAUSE_S) -> None:
        self._path = path
        self._pause_s = pause_s

    def is_due(self, now: float) -> bool:
        """Returns whether a notice is due at an instant of `Clock.time`; also where the file cannot be read."""
        try:
            return not 0 <= now - float(self._path.read_text()) < self._pause_s
        except (OSError, ValueError):
            return True

    def write(self, now: float) -> None:
        """Notes that a notice was sent. A directory that is not writable costs a repeated notice."""
        try:
            self._path.touch(mode=0o600)
            self._path.write_text(str(now))
        except OSError:
            return
