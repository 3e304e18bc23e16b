"""Inbox: retries, dead letters, crash counts, orphans, purge."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from core.db.database import Database
from core.errors import StorageError
from services.inbox import inbox as module
from services.inbox.album_parts import AlbumPart, AlbumParts
from services.inbox.dbos_queue import JobQueue
from services.inbox.dead_letters import CrashCounter, DeadLetters
from services.inbox.inbox import FRESH_LIMIT, MAX_ISOLATED_RUNS, MAX_SHARED_RESTARTS, Inbox, InboxTiming
from services.inbox.job import Job
from services.inbox.sent_messages import SentMessages
from tests.support.clock import ManualClock
from tests.support.inbox_harness import lose_claim_reply, lose_outcomes
from tests.support.processes.queue_process import QUEUE

pytestmark = pytest.mark.integration

TIMING = InboxTiming()
DIED = "the process died each time this job ran"


def job(number: int, lane: str = "lane") -> Job:
    return Job(f"job-{number:06d}", lane, number, f'{{"number": {number}}}')


class RecordingHandler:
    """Handles jobs as a test demands, and records them."""

    def __init__(self) -> None:
        self.handled: list[str] = []
        self.attempts: list[str] = []
        self.notices: list[tuple[str, str]] = []
        self.failures: dict[str, list[Exception]] = {}
        """Exceptions to raise, one per attempt."""
        self.gates: dict[str, asyncio.Event] = {}
        self.on_notice: Callable[[], Awaitable[None]] | None = None
        self.running: set[str] = set()
        self.concurrent: set[frozenset[str]] = set()

    async def handle(self, job: Job) -> None:
        self.attempts.append(job.id)
        self.running.add(job.id)
        self.concurrent.add(frozenset(self.running))
        try:
            if job.id in self.gates:
                await self.gates[job.id].wait()
            if faults := self.failures.get(job.id):
                raise faults.pop(0)
        finally:
            self.running.discard(job.id)
        self.handled.append(job.id)

    def is_outside_fault(self, error: Exception) -> bool:
        return isinstance(error, StorageError)

    async def notify_failure(self, job: Job, error: Exception | None) -> None:
        self.notices.append((job.id, type(error).__name__))
        if self.on_notice is not None:
            await self.on_notice()


class InboxRun:
    """An inbox with its handler and clock."""

    def __init__(self, inbox: Inbox, handler: RecordingHandler, clock: ManualClock) -> None:
        self.inbox, self.handler, self.clock = inbox, handler, clock
        self.reasons: list[str] = []

    async def until(self, predicate: Callable[[], object], *, passing_s: float = 0.0) -> None:
        """Wait for a condition, advancing the clock by `passing_s` between two checks."""
        async with asyncio.timeout(15):
            while not predicate():
                await asyncio.sleep(0.002)
                if passing_s:
                    await self.clock.advance(passing_s)

    async def work(self) -> None:
        await self.inbox.work(self.handler, self.reasons.append)

    async def letters(self) -> list[tuple[str, str]]:
        return [(each.job.id, each.reason) for each in await self.inbox.dead_letters.newest()]


@pytest.fixture
async def run(file: Database, tmp_path: Path, clock: ManualClock) -> AsyncIterator[InboxRun]:
    """An inbox whose worker is not running."""
    url = sa.URL.create("sqlite", database=str(tmp_path / "inbox.db"))
    async with opened(file, url, clock) as run:
        yield run


@asynccontextmanager
async def opened(database: Database, url: sa.URL, clock: ManualClock) -> AsyncIterator[InboxRun]:
    inbox = Inbox(
        lambda run: JobQueue(url, QUEUE, "local", run),
        CrashCounter(database, clock),
        DeadLetters(database, clock),
        SentMessages(database, clock),
        AlbumParts(database, clock),
        clock,
    )
    await inbox.queue.start()
    try:
        yield InboxRun(inbox, RecordingHandler(), clock)
    finally:
        await inbox.queue.drain(0)
        await inbox.queue.close()


async def stored(database: Database, table: str) -> int:
    async with database.engine.connect() as connection:
        return (await connection.exec_driver_sql(f"SELECT count(*) FROM {table}")).scalar() or 0


class TestOrphanScan:
    """Claimed jobs that do not run."""

    async def test_orphan_scan_runs_a_job_whose_claim_was_lost(self, run: InboxRun) -> None:
        """And its successors, without a restart."""
        lost = lose_claim_reply(run.inbox.queue)
        await run.inbox.put([job(1), job(2)])
        await run.work()
        await lost.wait()
        await self._both_handled(run)
        assert run.handler.handled == [job(1).id, job(2).id]

    async def test_orphan_scan_does_not_run_a_finished_job_again(self, run: InboxRun) -> None:
        lose_outcomes(run.inbox.queue)
        await run.inbox.put([job(1), job(2)])
        await run.work()
        await self._both_handled(run)
        assert run.handler.attempts == [job(1).id, job(2).id]

    async def _both_handled(self, run: InboxRun) -> None:
        """Wait for two jobs while the scan runs."""
        scan = asyncio.create_task(run.inbox.run_orphan_scan())
        try:
            await run.until(lambda: len(run.handler.handled) == 2, passing_s=TIMING.orphan_scan_s)
        finally:
            scan.cancel()

    async def test_orphan_scan_survives_a_database_failure(
        self, run: InboxRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = iter([StorageError("the database failed: gone"), 0])

        async def requeue() -> int:
            answer = next(answers)
            if isinstance(answer, StorageError):
                raise answer
            scan.cancel()
            return answer

        monkeypatch.setattr(run.inbox.queue, "requeue_orphans", requeue)
        scan = asyncio.create_task(run.inbox.run_orphan_scan())
        with capture_logs() as logs:
            await run.until(scan.done, passing_s=TIMING.orphan_scan_s)
        assert [entry["event"] for entry in logs] == ["inbox.orphan_scan_failed"]


class TestRetries:
    """Jobs whose handler raises."""

    async def test_failed_job_is_retried_with_growing_pauses(self, run: InboxRun) -> None:
        """Its lane waits, others do not; a success notifies neither user nor admin."""
        run.handler.failures[job(1).id] = [StorageError("the database failed: locked")] * len(TIMING.retry_pauses_s)
        await run.work()
        await run.inbox.put([job(1), job(2), job(3, "other")])
        await run.until(lambda: run.handler.handled)
        for tries, pause_s in enumerate(TIMING.retry_pauses_s, 1):
            await run.until(lambda: run.clock._sleepers)
            assert run.handler.attempts.count(job(1).id) == tries
            await run.clock.advance(pause_s - 0.01)
            assert run.handler.attempts.count(job(1).id) == tries
            await run.clock.advance(0.01)
        await run.until(lambda: len(run.handler.handled) == 3)
        assert run.handler.handled == [job(n).id for n in (3, 1, 2)]
        assert (run.handler.notices, run.reasons, await run.letters()) == ([], [], [])

    async def test_job_that_fails_each_time_is_given_up_after_its_retries(self, run: InboxRun) -> None:
        run.handler.failures[job(1).id] = [StorageError("the database failed: gone") for _ in range(20)]
        await run.work()
        await run.inbox.put([job(1), job(2)])
        await run.until(lambda: run.handler.handled, passing_s=5)
        assert run.handler.attempts.count(job(1).id) == len(TIMING.retry_pauses_s) + 1
        assert await run.letters() == [(job(1).id, "the database failed: gone")]

    async def test_bug_becomes_a_dead_letter_at_once(self, run: InboxRun, file: Database) -> None:
        """Stored with the reason; user and admin are notified once; its lane continues."""
        run.handler.failures[job(1).id] = [ValueError("what somebody wrote") for _ in range(20)]
        await run.work()
        await run.inbox.put([job(1), job(2)])
        await run.until(lambda: run.handler.handled)
        assert run.handler.handled == [job(2).id]
        assert run.handler.attempts.count(job(1).id) == 1
        assert run.handler.notices == [(job(1).id, "ValueError")]
        assert run.reasons == ["ValueError"]
        assert await run.letters() == [(job(1).id, "ValueError")]
        [letter] = await run.inbox.dead_letters.newest()
        assert letter.job == job(1)
        await run.inbox.put([job(1)])
        assert await stored(file, "dead_letters") == 1

    async def test_dead_letter_keeps_the_text_of_a_storage_error(self, run: InboxRun) -> None:
        """Texts of other errors may quote a message and are not kept."""
        run.handler.failures[job(1).id] = [StorageError("the database failed: full") for _ in range(5)]
        await run.work()
        await run.inbox.put([job(1)])
        await run.until(lambda: run.reasons, passing_s=5)
        assert run.reasons == ["the database failed: full"]

    async def test_failed_notice_does_not_prevent_the_dead_letter(self, run: InboxRun) -> None:
        async def fail() -> None:
            raise TypeError("out of tune")

        run.handler.on_notice = fail
        run.handler.failures[job(1).id] = [ValueError("x")] * 5
        await run.work()
        await run.inbox.put([job(1), job(2)])
        await run.until(lambda: run.handler.handled, passing_s=5)
        assert await run.letters() == [(job(1).id, "ValueError")]

    async def test_failure_notice_is_sent_once(self, run: InboxRun) -> None:
        """The process may die between the notice and the dead letter."""
        sent: list[str] = []

        async def send() -> int:
            sent.append("sorry")
            return 1

        async def notify() -> None:
            await run.inbox.sent_messages.send_once(7, send)

        run.handler.on_notice = notify
        await run.work()
        for _ in range(2):
            await run.inbox._give_up(job(1), None)
        assert sent == ["sorry"]
        assert await run.letters() == [(job(1).id, DIED)]

    async def test_dead_letter_waits_for_the_database(self, run: InboxRun, file: Database) -> None:
        """It is stored nowhere else."""
        async with file.session() as session:
            await (await session.connection()).exec_driver_sql("ALTER TABLE dead_letters RENAME TO away")
        run.handler.failures[job(1).id] = [ValueError("x")] * 5
        await run.work()
        await run.inbox.put([job(1)])
        with capture_logs() as logs:
            await run.until(lambda: "inbox.dead_letter_not_stored" in str(logs), passing_s=5)
        async with file.session() as session:
            await (await session.connection()).exec_driver_sql("ALTER TABLE away RENAME TO dead_letters")
        await run.until(lambda: run.reasons, passing_s=5)
        assert await run.letters() == [(job(1).id, "ValueError")]
        assert len(run.handler.notices) == 1


class TestReplay:
    """Dead letters run again."""

    async def test_replay_runs_a_new_job(self, run: InboxRun) -> None:
        run.handler.failures[job(1).id] = [ValueError("x")] * 5
        await run.work()
        await run.inbox.put([job(1)])
        await run.until(lambda: run.reasons, passing_s=5)
        [letter] = await run.inbox.dead_letters.newest()
        await run.inbox.replay(letter)
        await run.until(lambda: run.handler.handled)
        [done] = run.handler.handled
        assert done != job(1).id
        assert letter.job.replay(int(letter.failed_at.timestamp() * 1000)).origin == job(1).id == job(1).origin
        assert await run.letters() == []

    async def test_replay_that_fails_becomes_a_new_dead_letter(self, run: InboxRun) -> None:
        """Requested twice it runs once; each letter has a new number, and the job id does not grow."""
        numbers: set[int] = set()
        await run.work()
        await run.inbox._give_up(job(1), ValueError("x"))
        for _ in range(3):
            [letter] = await run.inbox.dead_letters.newest()
            numbers.add(letter.id)
            again = letter.job.replay(int(letter.failed_at.timestamp() * 1000))
            run.handler.failures[again.id] = [StorageError("x")] * 5
            known = len(run.reasons)
            await run.inbox.replay(letter)
            await run.inbox.replay(letter)
            await run.until(lambda known=known: len(run.reasons) > known, passing_s=5)
        assert len({id_ for id_, _ in run.handler.notices}) == 4
        # A button under an old list must not refer to another letter.
        assert len(numbers) == 3
        assert max(len(id_) for id_, _ in run.handler.notices) <= len(job(1).id) + 14


class TestCrashCounts:
    """Jobs that an earlier process started and did not finish."""

    async def crash(self, run: InboxRun, *jobs: Job) -> None:
        """Count these jobs as restarted but not finished."""
        for each in jobs:
            await run.inbox._crash_counts.count_restart(each.id)

    async def test_new_job_is_not_counted(self, run: InboxRun, file: Database) -> None:
        run.handler.gates[job(1).id] = asyncio.Event()
        await run.work()
        await run.inbox.put([job(1)])
        await run.until(lambda: run.handler.attempts)
        assert await stored(file, "job_attempts") == 0
        assert not run.inbox._fresh
        run.handler.gates[job(1).id].set()
        await run.until(lambda: run.handler.handled)

    async def test_stored_job_enqueued_again_is_counted_as_restarted(self, run: InboxRun, file: Database) -> None:
        """Telegram repeats updates that were not confirmed before a crash."""
        await run.inbox.put([job(1)])
        run.inbox._fresh.clear()
        run.handler.gates[job(1).id] = asyncio.Event()
        await run.inbox.put([job(1)])
        await run.work()
        await run.until(lambda: run.handler.attempts)
        assert await stored(file, "job_attempts") == 1
        run.handler.gates[job(1).id].set()
        await run.until(lambda: run.handler.handled)

    async def test_restarted_jobs_run_concurrently_at_first(self, run: InboxRun, file: Database) -> None:
        """Any of them may be innocent; finished jobs leave no counts."""
        jobs = [job(number, f"lane {number}") for number in (1, 2, 3)]
        await run.inbox.put(jobs)
        run.inbox._fresh.clear()
        for _ in range(MAX_SHARED_RESTARTS - 1):
            await self.crash(run, *jobs)
        gate = asyncio.Event()
        run.handler.gates = {each.id: gate for each in jobs}
        await run.work()
        await run.until(lambda: len(run.handler.running) == 3)
        gate.set()
        await run.until(lambda: len(run.handler.handled) == 3)
        await run.inbox.queue.drain(5)
        assert await stored(file, "job_attempts") == 0

    async def test_jobs_restarted_too_often_run_one_at_a_time(self, run: InboxRun) -> None:
        jobs = [job(number, f"lane {number}") for number in (1, 2, 3)]
        await run.inbox.put(jobs)
        run.inbox._fresh.clear()
        for _ in range(MAX_SHARED_RESTARTS):
            await self.crash(run, *jobs)
        fresh = job(9, "lane 9")
        run.handler.gates = {fresh.id: asyncio.Event()}
        await run.work()
        await run.inbox.put([fresh])
        await run.until(lambda: len(run.handler.handled) == 3)
        suspects = {each.id for each in jobs}
        assert all(len(each & suspects) <= 1 for each in run.handler.concurrent)
        run.handler.gates[fresh.id].set()
        await run.until(lambda: fresh.id in run.handler.handled)

    async def test_job_that_kills_the_process_is_given_up(
        self, file: Database, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whenever the killer starts, the process dies with everything in flight; the other jobs succeed."""

        async def do_nothing(*_: object) -> None:
            """A crash, unlike a shutdown, does not undo counts."""

        monkeypatch.setattr(CrashCounter, "undo_restart", do_nothing)
        monkeypatch.setattr(CrashCounter, "undo_isolated", do_nothing)
        url = sa.URL.create("sqlite", database=str(tmp_path / "inbox.db"))
        jobs = [job(number, f"lane {number}") for number in range(1, 6)]
        killer = jobs[2]
        done: list[str] = []
        notices: list[tuple[str, str]] = []
        lives = 0
        while not {killer.id} <= {id_ for id_, _ in notices}:
            lives += 1
            assert lives <= 1 + MAX_SHARED_RESTARTS + MAX_ISOLATED_RUNS + 1
            async with opened(file, url, clock) as run:
                if lives == 1:
                    await run.inbox.put(jobs)
                # While the jobs run concurrently, the crash interrupts all of them.
                together = {each.id for each in jobs} if lives <= 1 + MAX_SHARED_RESTARTS else {killer.id}
                run.handler.gates = {id_: asyncio.Event() for id_ in together}
                await run.work()
                await run.until(
                    lambda run=run, together=together: together <= run.handler.running or run.handler.notices
                )
                done += run.handler.handled
                notices += run.handler.notices
        async with opened(file, url, clock) as run:
            await run.work()
            await run.until(lambda: len({*done, *run.handler.handled}) == len(jobs) - 1)
            done += run.handler.handled
            assert await run.letters() == [(killer.id, DIED)]
        assert notices == [(killer.id, "NoneType")]
        assert set(done) == {each.id for each in jobs if each is not killer}
        assert lives == 1 + MAX_SHARED_RESTARTS + MAX_ISOLATED_RUNS + 1

    async def test_jobs_run_when_crash_counts_are_unavailable(self, run: InboxRun, file: Database) -> None:
        await run.inbox.put([job(1)])
        run.inbox._fresh.clear()
        async with file.session() as session:
            await (await session.connection()).exec_driver_sql("DROP TABLE job_attempts")
        with capture_logs() as logs:
            await run.work()
            await run.until(lambda: "inbox.crash_count_not_cleared" in str(logs))
        assert run.handler.handled == [job(1).id]
        assert "inbox.crash_count_failed" in {entry["event"] for entry in logs}

    async def test_number_of_known_new_jobs_is_bounded(self, run: InboxRun, monkeypatch: pytest.MonkeyPatch) -> None:
        assert FRESH_LIMIT >= 1000
        monkeypatch.setattr(module, "FRESH_LIMIT", 3)
        await run.inbox.put([job(number) for number in range(1, 6)])
        assert len(run.inbox._fresh) == 3


class TestPurge:
    """Expired rows are deleted."""

    async def test_purge_deletes_rows_older_than_two_days(self, run: InboxRun, file: Database) -> None:
        """Dead letters are kept for a month, unfinished jobs for ever."""
        past = run.clock.now() - timedelta(days=1)
        await run.work()
        await run.inbox.put([job(1), job(2)])
        await run.until(lambda: len(run.handler.handled) == 2)
        await run.inbox.queue.drain(5)
        await run.inbox.put([job(3)])
        await run.inbox.album_parts.put([AlbumPart(7, "x", 1, "{}")])
        await run.inbox._crash_counts.count_restart("gone")
        await run.inbox.dead_letters.add(job(9), "ValueError")
        assert past < run.clock.now()
        purge = asyncio.create_task(run.inbox.run_purge())
        try:
            for _ in range(3):
                await run.until(lambda: run.clock._sleepers)
                await run.clock.advance(3600)
                await asyncio.sleep(0.05)
            assert await stored(file, "album_parts") == 1
            # DBOS stamps jobs with the system time; this clock is ahead of it.
            with capture_logs() as logs:
                run.clock.shift(timedelta(days=3).total_seconds())
                await run.until(lambda: any(entry["event"] == "inbox.purged" for entry in logs), passing_s=600)
            tables = ("album_parts", "job_attempts", "said", "dead_letters")
            assert [await stored(file, table) for table in tables] == [0, 0, 0, 1]
            assert await run.inbox.queue.table.depth() == 1
            with capture_logs() as logs:
                run.clock.shift(timedelta(days=30).total_seconds())
                await run.until(lambda: any(entry["event"] == "inbox.purged" for entry in logs), passing_s=600)
            assert await stored(file, "dead_letters") == 0
        finally:
            purge.cancel()
            await asyncio.wait([purge])

    async def test_purge_survives_a_database_failure(self, run: InboxRun, file: Database) -> None:
        async with file.session() as session:
            await (await session.connection()).exec_driver_sql("DROP TABLE said")
        purge = asyncio.create_task(run.inbox.run_purge())
        try:
            with capture_logs() as logs:
                await run.until(lambda: len(logs) >= 2, passing_s=600)
            assert {entry["event"] for entry in logs} == {"inbox.purge_failed"}
        finally:
            purge.cancel()
            await asyncio.wait([purge])
