"""The inbox: takes jobs in, does them, tries again what fails, and gives up what never works."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Protocol

import structlog

from core.clock import Clock
from core.errors import StorageError
from services.inbox.album_parts import AlbumParts
from services.inbox.crash_counts import CrashCounter
from services.inbox.dbos_queue import JobQueue
from services.inbox.dead_letters import DeadLetter, DeadLetters
from services.inbox.job import Job
from services.inbox.sent_messages import SentMessages

log = structlog.get_logger()

PAUSES_S = (0.5, 2.0, 8.0, 30.0)
"""Before each further try of a job that failed; after the last one it is given up."""
TOGETHER = 2
"""How often a job is begun again beside others before it has to be done alone."""
ALONE = 3
"""How often it is begun alone before it is given up: each time the process died over it."""
FRESH_KEPT = 10_000
"""Jobs put by this process and not begun yet, of which it knows that nobody began them before."""
KEEP_FINISHED = timedelta(days=2)
"""Telegram repeats an update for a day at most; so long it must be known that it was done."""
KEEP_DEAD = timedelta(days=30)
HOUSEKEEPING_S = 3600.0
FIRST_HOUSEKEEPING_S = 60.0
"""After the start, when there is more urgent work."""
STRAYS_S = 5.0
"""How often jobs are looked for that were claimed and are not being done."""


class Worker(Protocol):
    """What does the jobs."""

    async def do(self, job: Job) -> None:
        """Do a job; whatever it raises means that it is to be tried again."""
        ...

    async def apologise(self, job: Job, error: Exception | None) -> None:
        """Tell whom it concerns that a job was given up; without an error the process died over it."""
        ...


class Inbox:
    """Jobs in order of their lanes, done at least once.

    Args:
        queue: makes the queue under it, given what does a job.
        attempts: counts what did not come to its end.
        dead_letters: keeps what was given up.
        said: what jobs have said.
        albums: the parts of albums.
        clock: what pauses are measured by.
    """

    def __init__(
        self,
        queue: Callable[[Callable[[Job], Awaitable[None]]], JobQueue],
        attempts: CrashCounter,
        dead_letters: DeadLetters,
        said: SentMessages,
        albums: AlbumParts,
        clock: Clock,
    ) -> None:
        self.queue = queue(self._do)
        self.dead_letters = dead_letters
        self.said = said
        self.albums = albums
        self._attempts = attempts
        self._clock = clock
        self._worker: Worker | None = None
        self._on_dead: Callable[[str], None] | None = None
        self._fresh: dict[str, None] = {}
        self._putting = 0
        self._overtook: set[str] = set()
        """Jobs that were begun before the call that put them has returned."""
        self._alone = asyncio.Lock()

    @property
    def running(self) -> int:
        """How many jobs are being done here."""
        return self.queue.running

    @property
    def waiting(self) -> int:
        """How many jobs were put here and are not begun yet, as far as this process knows."""
        return len(self._fresh)

    async def start(self) -> None:
        """Open the queue: from now on jobs are taken in.

        Raises:
            StartupError: its database cannot be used.
        """
        await self.queue.start()

    async def work(self, worker: Worker, on_dead: Callable[[str], None] | None = None) -> None:
        """Begin to do what is there and what comes.

        Args:
            worker: does it.
            on_dead: is told why a job became a dead letter; it must not block.
        """
        self._worker = worker
        self._on_dead = on_dead
        try:
            log.info("inbox.opened", unfinished=await self.queue.depth())
        except StorageError as error:
            # What is there is done when the database is back.
            log.warning("inbox.not_counted", error=str(error))
        await self.queue.work()

    async def put(self, jobs: Sequence[Job]) -> list[Job]:
        """Take jobs in: they are stored when this returns.

        Returns:
            Those that were turned away, because too many of their lane wait.

        Raises:
            StorageError: the database does not take them.
        """
        self._putting += 1
        new: frozenset[str] = frozenset()
        try:
            receipt = await self.queue.put(jobs)
            # Not one that was there: Telegram may repeat the very update that the process died over.
            new = receipt.new - self._overtook
        finally:
            self._putting -= 1
            if not self._putting:
                self._overtook.clear()
        self._fresh.update(dict.fromkeys(sorted(new)))
        while len(self._fresh) > FRESH_KEPT:
            del self._fresh[next(iter(self._fresh))]
        return list(receipt.refused)

    async def replay(self, letter: DeadLetter) -> None:
        """Do a dead letter's job once more; if that fails too it is a dead letter again.

        Raises:
            StorageError: the database does not answer; then the letter stays.
        """
        # The instant at which it failed makes it a job of its own.
        await self.put([letter.job.once_more(int(letter.failed_at.timestamp() * 1000))])
        await self.dead_letters.drop(letter.id)

    async def keep_house(self) -> None:
        """Delete what is done and old, every hour, until cancelled."""
        await self._clock.sleep(FIRST_HOUSEKEEPING_S)
        while True:
            try:
                await self._tidy()
            except StorageError as error:
                log.warning("inbox.not_tidied", error=str(error))
            await self._clock.sleep(HOUSEKEEPING_S)

    async def look_for_strays(self) -> None:
        """Put back into the queue what was claimed here and is not being done, until cancelled."""
        while True:
            await self._clock.sleep(STRAYS_S)
            try:
                if jobs := await self.queue.put_back_strays():
                    log.warning("inbox.strays_put_back", jobs=jobs)
            except StorageError as error:
                log.warning("inbox.strays_not_looked_for", error=str(error))

    async def _tidy(self) -> None:
        now = self._clock.now()
        finished = 0
        while deleted := await self.queue.purge(now - KEEP_FINISHED):
            finished += deleted
        await self.said.forget(now - KEEP_FINISHED)
        await self.albums.forget(now - KEEP_FINISHED)
        await self._attempts.forget_older(now - KEEP_FINISHED)
        await self.dead_letters.forget(now - KEEP_DEAD)
        log.info("inbox.tidied", finished=finished)

    async def _do(self, job: Job) -> None:
        """Do a job to its end, which may be the dead letters; a cancellation hands it back."""
        with structlog.contextvars.bound_contextvars(job=job.id):
            if self._fresh.pop(job.id, job.id) is None:
                await self._try(job)
            else:
                if self._putting:
                    self._overtook.add(job.id)
                await self._do_again(job)

    async def _do_again(self, job: Job) -> None:
        """Do a job that may have been begun before: by this process in an earlier life, or by another one."""
        begun = await self._counted(self._attempts.begin_again(job.id))
        log.info("inbox.begun_again", begun=begun)
        try:
            if begun <= TOGETHER:
                await self._try(job)
            else:
                async with self._alone:
                    await self._try_alone(job)
        except asyncio.CancelledError:
            # Handed back by a shutdown: nobody died over it, and a release a minute must not make it look so.
            await self._forget_attempts(self._attempts.take_back(job.id))
            raise
        await self._forget_attempts(self._attempts.forget(job.id))

    async def _try_alone(self, job: Job) -> None:
        if await self._counted(self._attempts.begin_alone(job.id)) > ALONE:
            await self._give_up(job, None)
            return
        try:
            await self._try(job)
        except asyncio.CancelledError:
            await self._forget_attempts(self._attempts.take_back_alone(job.id))
            raise

    async def _forget_attempts(self, forgetting: Awaitable[None]) -> None:
        try:
            await forgetting
        except StorageError as error:
            log.warning("inbox.attempts_not_forgotten", error=str(error))

    async def _counted(self, counting: Awaitable[int]) -> int:
        try:
            return await counting
        except StorageError as error:
            log.warning("inbox.attempt_not_counted", error=str(error))
            return 1

    async def _try(self, job: Job) -> None:
        if self._worker is None:
            raise RuntimeError("no job is begun before there is somebody to do it")
        for pause_s in (*PAUSES_S, None):
            try:
                with self.said.by(job.id):
                    await self._worker.do(job)
            except Exception as error:
                if pause_s is None:
                    log.exception("inbox.job_failed", again_in_s=None)
                    await self._give_up(job, error)
                else:
                    log.exception("inbox.job_failed", again_in_s=pause_s)
                    await self._clock.sleep(pause_s)
            else:
                return

    async def _give_up(self, job: Job, error: Exception | None) -> None:
        """To the dead letters with it, so that what waits behind it gets its turn."""
        reason = _reason(error)
        log.error("inbox.job_given_up", reason=reason)
        if self._worker is not None:
            try:
                # First, since the database that keeps dead letters may be what failed.
                with self.said.by(f"{job.id}!"):
                    await self._worker.apologise(job, error)
            except Exception:
                log.exception("inbox.not_apologised")
        while True:
            try:
                await self.dead_letters.add(job, reason)
            except StorageError as storage:
                # Nothing else would keep it.
                log.warning("inbox.dead_letter_not_kept", error=str(storage))
                await self._clock.sleep(PAUSES_S[-1])
            else:
                break
        if self._on_dead is not None:
            self._on_dead(reason)


def _reason(error: Exception | None) -> str:
    """What an admin reads: the kind of an error, and its own words only where they are ours and quote no message."""
    if error is None:
        return "the process died each time that this was begun"
    return str(error) if isinstance(error, StorageError) else type(error).__name__
