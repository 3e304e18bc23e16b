"""Enqueues due schedules as jobs of the inbox, on every replica; the job id makes each run once."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from core.clock import Clock
from core.errors import StorageError
from services.inbox.job import Job, JobSink
from services.schedule.schedules import Schedule, Schedules

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DispatchTiming:
    """Intervals of the dispatcher.

    Args:
        longest_s: maximum polling interval; below `ScheduleLimits.soonest`, so that entries stored by other replicas
            are seen before they are due.
        batch: entries enqueued per transaction.
    """

    longest_s: float = 15.0
    batch: int = 100


class ScheduleDispatcher:
    """Moves due entries to the inbox.

    Args:
        to_job: builds the job of a due entry; its id depends on the entry and its time only.
        may_run: whether the user may still use the bot; an entry that may not run is left out.
    """

    def __init__(
        self,
        schedules: Schedules,
        inbox: JobSink,
        clock: Clock,
        to_job: Callable[[Schedule], Job],
        may_run: Callable[[Schedule], bool] = lambda _: True,
        timing: DispatchTiming | None = None,
    ) -> None:
        self._schedules = schedules
        self._inbox = inbox
        self._clock = clock
        self._to_job = to_job
        self._may_run = may_run
        self._timing = timing or DispatchTiming()

    async def run(self) -> None:
        """Enqueues entries when they are due, until cancelled."""
        while True:
            pause_s = self._timing.longest_s
            try:
                while await self.enqueue_due():
                    pass
                next_at = await self._schedules.next_at()
                if next_at is not None:
                    pause_s = min(pause_s, max((next_at - self._clock.now()).total_seconds(), 0.0) + 0.01)
            except StorageError as error:
                log.warning("schedule.dispatch_failed", error=str(error))
            await self._clock.sleep(pause_s)

    async def enqueue_due(self) -> int:
        """Enqueues a batch of due entries. Returns their number.

        The jobs are durable before the entries move on: a process that dies in between leaves them to the next look,
        which enqueues the same ids.

        Raises:
            StorageError: the database is unavailable.
        """
        due = await self._schedules.due(self._timing.batch)
        admitted = [schedule for schedule in due if self._may_run(schedule)]
        if admitted:
            await self._inbox.put([self._to_job(schedule) for schedule in admitted])
        for schedule in due:
            await self._schedules.advance(schedule)
        if due:
            log.info("schedule.enqueued", due=len(due), left_out=len(due) - len(admitted))
        return len(due)
