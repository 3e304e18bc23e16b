"""Durable inbox: stores jobs, runs them, retries failures, and moves jobs that never succeed to the dead letters."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from core.clock import Clock
from core.errors import StorageError
from services.inbox.album_parts import AlbumParts
from services.inbox.dbos_queue import JobQueue
from services.inbox.dead_letters import CrashCounter, DeadLetter, DeadLetters
from services.inbox.job import Job, JobHandler, JobPlaces, Unbounded
from services.inbox.sent_messages import SentMessages

log = structlog.get_logger()

MAX_SHARED_RESTARTS = 2
"""Restarts after a crash before a job runs in isolation."""
MAX_ISOLATED_RUNS = 3
"""Isolated runs before a job is given up; the process died in each of them."""
FRESH_LIMIT = 10_000
"""Jobs enqueued by this process and not started yet that are known to run for the first time."""


@dataclass(frozen=True, slots=True)
class InboxTiming:
    """Retry pauses, maintenance intervals and retention.

    Args:
        retry_pauses_s: pause before each retry of a failed job; after the last retry it is given up.
        orphan_scan_s: pause between two scans for claimed jobs that do not run.
        first_purge_s: delay of the first purge after the start, when there is more urgent work.
        purge_s: pause between two purges.
        keep_finished: retention of finished jobs. Telegram repeats an update for a day at most, and a repeated one
            must be recognised.
        keep_dead: retention of dead letters.
    """

    retry_pauses_s: tuple[float, ...] = (0.5, 2.0, 8.0, 30.0)
    orphan_scan_s: float = 5.0
    first_purge_s: float = 60.0
    purge_s: float = 3600.0
    keep_finished: timedelta = timedelta(days=2)
    keep_dead: timedelta = timedelta(days=30)


class Inbox:
    """Runs jobs in the order of their lanes, at least once.

    Args:
        create_queue: creates the queue, given the function that runs a job.
        crash_counts: counts unfinished runs.
        dead_letters: stores jobs that were given up.
        sent_messages: makes the sends of retried jobs idempotent.
        album_parts: stores albums until they are complete.
        clock: measures pauses.
        timing: pauses and retention.
    """

    def __init__(
        self,
        create_queue: Callable[[Callable[[Job], Awaitable[None]]], JobQueue],
        crash_counts: CrashCounter,
        dead_letters: DeadLetters,
        sent_messages: SentMessages,
        album_parts: AlbumParts,
        clock: Clock,
        timing: InboxTiming | None = None,
    ) -> None:
        self.queue = create_queue(self._run)
        self.dead_letters = dead_letters
        self.sent_messages = sent_messages
        self.album_parts = album_parts
        self._crash_counts = crash_counts
        self._clock = clock
        self._timing = timing or InboxTiming()
        self._handler: JobHandler | None = None
        self._places: JobPlaces = Unbounded()
        self._on_dead: Callable[[str], None] | None = None
        self._fresh: dict[str, None] = {}
        self._puts_in_flight = 0
        self._started_early: set[str] = set()
        """Jobs that started before the call that enqueued them returned."""
        self._isolation = asyncio.Lock()

    @property
    def running(self) -> int:
        """Number of jobs running in this process."""
        return self.queue.running

    @property
    def waiting(self) -> int:
        """Number of jobs enqueued by this process and not started yet, as far as it knows."""
        return len(self._fresh)

    async def work(
        self,
        handler: JobHandler,
        on_dead: Callable[[str], None] | None = None,
        places: JobPlaces | None = None,
    ) -> None:
        """Starts executing stored and new jobs.

        Args:
            handler: executes them.
            places: bounds how many run at once; None for no bound but the queue's.
            on_dead: called with the reason when a job becomes a dead letter; must not block.
        """
        self._handler = handler
        self._on_dead = on_dead
        self._places = places or self._places
        try:
            log.info("inbox.opened", unfinished=await self.queue.table.depth())
        except StorageError as error:
            # Stored jobs run once the database is back.
            log.warning("inbox.depth_unavailable", error=str(error))
        await self.queue.work()

    async def put(self, jobs: Sequence[Job]) -> list[Job]:
        """Enqueues jobs; they are durable when this returns.

        Returns:
            The jobs that were rejected because their lane is full.

        Raises:
            StorageError: the database is unavailable; no job was stored.
        """
        self._puts_in_flight += 1
        new: frozenset[str] = frozenset()
        try:
            receipt = await self.queue.put(jobs)
            # Only new ones: Telegram may repeat the very update that killed the process.
            new = receipt.new - self._started_early
        finally:
            self._puts_in_flight -= 1
            if not self._puts_in_flight:
                self._started_early.clear()
        self._fresh.update(dict.fromkeys(sorted(new)))
        while len(self._fresh) > FRESH_LIMIT:
            del self._fresh[next(iter(self._fresh))]
        return list(receipt.rejected)

    async def quarantine(self, job: Job, reason: str) -> None:
        """Stores a job that cannot be enqueued as a dead letter; idempotent.

        Raises:
            StorageError: the database is unavailable; the job was not stored.
        """
        if await self.dead_letters.add(job, reason) and self._on_dead is not None:
            self._on_dead(reason)

    async def replay(self, letter: DeadLetter) -> None:
        """Enqueues the job of a dead letter again; if it fails, it becomes a new dead letter.

        Raises:
            StorageError: the database is unavailable; the letter is kept.
        """
        # The time of the failure makes the id unique, and the same for repeated requests.
        await self.put([letter.job.replay(int(letter.failed_at.timestamp() * 1000))])
        await self.dead_letters.drop(letter.id)

    async def run_purge(self) -> None:
        """Deletes expired rows every hour until cancelled."""
        await self._clock.sleep(self._timing.first_purge_s)
        while True:
            try:
                await self._purge()
            except StorageError as error:
                log.warning("inbox.purge_failed", error=str(error))
            await self._clock.sleep(self._timing.purge_s)

    async def watch_health(self) -> None:
        """Checks the queue until cancelled.

        Raises:
            InboxError: the queue cannot work in this process any more.
        """
        await self.queue.health.watch(self._clock)

    async def run_orphan_scan(self) -> None:
        """Requeues jobs that are claimed but do not run, every few seconds until cancelled."""
        while True:
            await self._clock.sleep(self._timing.orphan_scan_s)
            try:
                if jobs := await self.queue.requeue_orphans():
                    log.warning("inbox.orphans_requeued", jobs=jobs)
                self.queue.health.record_success("orphan scan")
            except StorageError as error:
                log.warning("inbox.orphan_scan_failed", error=str(error))
                self.queue.health.record_failure("orphan scan", error)

    async def _purge(self) -> None:
        now = self._clock.now()
        finished_before = now - self._timing.keep_finished
        finished = 0
        while deleted := await self.queue.purge(finished_before):
            finished += deleted
        await self.sent_messages.purge(finished_before)
        await self.album_parts.purge(finished_before)
        await self._crash_counts.purge(finished_before)
        await self.dead_letters.purge(now - self._timing.keep_dead)
        log.info("inbox.purged", finished=finished)

    async def _run(self, job: Job) -> None:
        """Runs a job until it succeeds or is given up; a cancellation leaves it unfinished."""
        with structlog.contextvars.bound_contextvars(job=job.id):
            if self._fresh.pop(job.id, job.id) is None:
                await self._retry(job)
            else:
                if self._puts_in_flight:
                    self._started_early.add(job.id)
                await self._restart(job)

    async def _restart(self, job: Job) -> None:
        """Runs a job that an earlier process, or another replica, may have started before."""
        restarts = await self._count(self._crash_counts.count_restart(job.id))
        log.info("inbox.job_restarted", restarts=restarts)
        try:
            if restarts <= MAX_SHARED_RESTARTS:
                await self._retry(job)
            else:
                async with self._isolation:
                    await self._run_isolated(job)
        except asyncio.CancelledError:
            # Requeued by a shutdown, which is no crash: frequent deployments must not look like one.
            await self._clear_count(self._crash_counts.undo_restart(job.id))
            raise
        await self._clear_count(self._crash_counts.clear(job.id))

    async def _run_isolated(self, job: Job) -> None:
        if await self._count(self._crash_counts.count_isolated(job.id)) > MAX_ISOLATED_RUNS:
            await self._give_up(job, None)
            return
        try:
            await self._retry(job)
        except asyncio.CancelledError:
            await self._clear_count(self._crash_counts.undo_isolated(job.id))
            raise

    async def _clear_count(self, update: Awaitable[None]) -> None:
        try:
            await update
        except StorageError as error:
            log.warning("inbox.crash_count_not_cleared", error=str(error))

    async def _count(self, update: Awaitable[int]) -> int:
        try:
            return await update
        except StorageError as error:
            log.warning("inbox.crash_count_failed", error=str(error))
            return 1

    async def _retry(self, job: Job) -> None:
        """Runs a job, retrying after each failure from outside; a bug would fail each time."""
        if self._handler is None:
            raise RuntimeError("a job was started before its handler was set")
        for pause_s in (*self._timing.retry_pauses_s, None):
            try:
                # Given back while a failed job pauses.
                async with self._places.place(job):
                    with self.sent_messages.sent_by(job.id):
                        await self._handler.handle(job)
            except Exception as error:
                is_last = pause_s is None or not self._handler.is_outside_fault(error)
                log.exception("inbox.job_failed", retry_in_s=None if is_last else pause_s)
                if pause_s is None or is_last:
                    await self._give_up(job, error)
                    return
                await self._clock.sleep(pause_s)
            else:
                return

    async def _give_up(self, job: Job, error: Exception | None) -> None:
        """Moves a job to the dead letters, which unblocks its lane."""
        reason = _describe(error)
        log.error("inbox.job_dead_lettered", reason=reason)
        if self._handler is not None:
            try:
                # First, since the database that stores dead letters may be the cause.
                with self.sent_messages.sent_by(f"{job.id}!"):
                    await self._handler.notify_failure(job, error)
            except Exception:
                log.exception("inbox.failure_notice_failed")
        while True:
            try:
                await self.dead_letters.add(job, reason)
            except StorageError as storage_error:
                # Retried for as long as it takes: the job is stored nowhere else once it ends.
                log.warning("inbox.dead_letter_not_stored", error=str(storage_error))
                await self._clock.sleep(self._timing.retry_pauses_s[-1])
            else:
                break
        if self._on_dead is not None:
            self._on_dead(reason)


def _describe(error: Exception | None) -> str:
    """Returns the reason shown to admins: the text of our own errors, only the type of others: they may quote users."""
    if error is None:
        return "the process died each time this job ran"
    return str(error) if isinstance(error, StorageError) else type(error).__name__
