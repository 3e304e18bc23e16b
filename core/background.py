"""Background tasks: their owner, restarts, one report for each outage, cancellation at shutdown."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from core.clock import Backoff, Clock

log = structlog.get_logger()


class BackgroundTasks:
    """Owns the tasks of one component.

    A task that ends with an exception is logged as `task.died` and not restarted; `restart_on_error` does that.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Schedules a coroutine as a named task. The reference is kept until the task is done."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancels the tasks that are still running and waits for them. Safe to call twice."""
        await cancel_and_wait(*self._tasks)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("task.died", task=task.get_name(), exc_info=error)


RESTART_BACKOFF = Backoff(first_s=1.0, longest_s=60.0)


async def restart_on_error(
    work: Callable[[], Coroutine[Any, Any, Any]],
    name: str,
    clock: Clock,
    backoff: Backoff = RESTART_BACKOFF,
    *,
    fatal: tuple[type[Exception], ...] = (),
) -> None:
    """Runs work until it returns; after an exception, which is logged, it starts again after a pause.

    The pauses grow while the work fails within `backoff.longest_s` of its start.

    Args:
        fatal: exceptions that are raised instead.
    """
    failures = 0
    while True:
        began = clock.monotonic()
        try:
            await work()
        except fatal:
            raise
        except Exception:
            failures = failures + 1 if clock.monotonic() - began < backoff.longest_s else 1
            pause_s = backoff.pause_s(failures)
            log.exception("task.failed", task=name, restart_in_s=pause_s)
            await clock.sleep(pause_s)
        else:
            return


class Outage:
    """An outage of something that a loop tries again and again: it is reported once, not at each try."""

    def __init__(self) -> None:
        self._is_on = False

    def begins(self) -> bool:
        """Notes a failure. Returns whether it is the first one since the outage before ended."""
        was_on, self._is_on = self._is_on, True
        return not was_on

    def end(self) -> None:
        """Notes a success."""
        self._is_on = False


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks and waits until each has ended; results and exceptions stay with the tasks.

    On Python 3.11 `asyncio.wait_for` can swallow a cancellation that arrives together with its result, so a task that
    is still running after a second is cancelled again.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1.0)


async def wait_first(event: asyncio.Event, *tasks: asyncio.Task[Any]) -> None:
    """Returns when the event is set or one of the tasks is done, whichever comes first."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
