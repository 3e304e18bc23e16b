"""JobQueue: order per lane, capacity, idempotent enqueuing, shutdown, orphans, replicas."""

import asyncio
import contextlib
from datetime import timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from structlog.testing import capture_logs

from core.clock import SystemClock
from core.errors import StartupError, StorageError
from services.inbox.dbos_queue import CLAIM_ITERATIONS, MAX_WAITING, JobQueue, QueueTiming
from services.inbox.job import LARGEST_PRIORITY, Job
from tests.services.inbox.conftest import OpenQueue
from tests.support.clock import until
from tests.support.inbox_harness import RecordingRunner, lose_claim_reply, lose_outcomes
from tests.support.processes.postgres_server import PostgresServer
from tests.support.processes.queue_process import end_all, queue_processes, sync_url


def job(number: int, lane: str = "lane", *, payload: str = "{}", is_limited: bool = False) -> Job:
    return Job(f"job-{number:06d}", lane, max(number, 1), payload, is_limited)


def ids(*numbers: int) -> list[str]:
    return [job(number).id for number in numbers]


def statuses(url: sa.URL) -> dict[str, str]:
    """Return the DBOS status of each job."""
    schema = "" if url.get_backend_name() == "sqlite" else "dbos."
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(sa.text(f"SELECT workflow_uuid, status FROM {schema}workflow_status"))
            return {str(id_): str(status) for id_, status in rows}
    finally:
        engine.dispose()


def claim_as(url: sa.URL, replica: str, job_id: str) -> None:
    """Mark a job as claimed by a replica, as after its death."""
    schema = "" if url.get_backend_name() == "sqlite" else "dbos."
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                f"UPDATE {schema}workflow_status SET status = 'PENDING', executor_id = :replica "
                "WHERE workflow_uuid = :id"
            ),
            {"replica": replica, "id": job_id},
        )
    engine.dispose()


async def complete_iterations(queue: JobQueue) -> None:
    """Let the worker loop start everything that it has claimed."""
    before = queue._wakeup.iterations
    while queue._wakeup.iterations < before + CLAIM_ITERATIONS:
        queue._wakeup.notify()
        await asyncio.sleep(0.01)


class TestOrder:
    """Jobs of a lane run one at a time, lanes run concurrently."""

    async def test_lane_runs_by_priority(self, queue: JobQueue, runner: RecordingRunner) -> None:
        """Regardless of the order and batches of enqueuing, and for jobs stored before the worker starts."""
        await queue.put([job(number) for number in (3, LARGEST_PRIORITY, 1)])
        await queue.put([job(2)])
        await queue.work()
        await runner.until(lambda: len(runner.finished) == 4)
        assert runner.finished == ids(1, 2, 3, LARGEST_PRIORITY)

    async def test_lane_orders_jobs_that_arrive_while_one_runs(self, queue: JobQueue, runner: RecordingRunner) -> None:
        runner.gate.clear()
        await queue.work()
        await queue.put([job(5)])
        await runner.until(lambda: runner.started)
        for number in (9, 7, 8):
            await queue.put([job(number)])
        runner.gate.set()
        await runner.until(lambda: len(runner.finished) == 4)
        assert runner.finished == ids(5, 7, 8, 9)

    async def test_lanes_run_concurrently_one_job_each(self, queue: JobQueue, runner: RecordingRunner) -> None:
        runner.gate.clear()
        await queue.put([job(100 * round_ + lane, f"lane {lane}") for round_ in range(2) for lane in range(100)])
        await queue.work()
        await runner.until(lambda: len(runner.started) == 100)
        assert queue.running == 100
        runner.gate.set()
        await runner.until(lambda: len(runner.finished) == 200)
        assert runner.peak >= 100
        assert not runner.overlapping

    async def test_failed_job_does_not_block_its_lane(self, queue: JobQueue, runner: RecordingRunner) -> None:
        runner.failing = set(ids(1))
        await queue.put([job(1), job(2)])
        await queue.work()
        await runner.until(lambda: runner.finished)
        assert runner.started == ids(1, 2)


class TestPut:
    """Enqueuing: payloads, idempotency, capacity, atomicity."""

    async def test_put_preserves_the_payload(self, queue: JobQueue, runner: RecordingRunner) -> None:
        payload = '{"text": "\\ud83d \\u0000 ' + "🎭" * 5000 + '"}'
        await queue.put([job(1, payload=payload)])
        await queue.work()
        await runner.until(lambda: runner.finished)
        assert runner.payloads == [payload]

    async def test_put_is_idempotent(self, queue: JobQueue, runner: RecordingRunner) -> None:
        """Ten times at once, twice in a batch, while the job runs, and after it finished."""
        runner.gate.clear()
        receipts = await asyncio.gather(*(queue.put([job(1)]) for _ in range(10)))
        # On PostgreSQL two calls at the same instant may both report the job as new.
        assert any(receipt.new for receipt in receipts)
        await queue.work()
        await runner.until(lambda: runner.started)
        assert (await queue.put([job(1), job(2), job(2)])).new == frozenset(ids(2))
        runner.gate.set()
        await runner.until(lambda: len(runner.finished) == 2)
        assert await queue.put([job(1)]) == await queue.put([])
        await queue.put([job(3)])
        await runner.until(lambda: len(runner.finished) == 3)
        assert runner.started == ids(1, 2, 3)

    async def test_put_rejects_limited_jobs_of_a_full_lane(self, queue: JobQueue, runner: RecordingRunner) -> None:
        """Counted behind the running job; other lanes and unlimited jobs are unaffected."""
        runner.gate.clear()
        await queue.work()
        await queue.put([job(1, is_limited=True)])
        await runner.until(lambda: runner.started)
        refused: list[Job] = []
        for number in range(2, 25):
            refused += (await queue.put([job(number, is_limited=True)])).rejected
        assert [each.id for each in refused] == ids(22, 23, 24)
        assert not (await queue.put([job(30, "another", is_limited=True), job(31)])).rejected
        # A stored job is not rejected when it is enqueued again.
        assert not (await queue.put([job(2, is_limited=True)])).rejected
        runner.gate.set()
        await runner.until(lambda: len(runner.finished) == MAX_WAITING + 3)
        assert not (await queue.put([job(22, is_limited=True)])).rejected

    async def test_put_limits_a_lane_within_one_batch(self, queue: JobQueue) -> None:
        receipt = await queue.put([job(number, is_limited=True) for number in range(1, 31)])
        assert [each.id for each in receipt.rejected] == ids(*range(MAX_WAITING + 2, 31))
        assert await queue.table.depth() == len(receipt.new) == MAX_WAITING + 1

    async def test_put_limits_a_lane_across_concurrent_calls(self, queue: JobQueue) -> None:
        receipts = await asyncio.gather(*(queue.put([job(number, is_limited=True)]) for number in range(1, 41)))
        assert sum(len(receipt.new) for receipt in receipts) == await queue.table.depth() == MAX_WAITING + 1

    async def test_put_stores_a_batch_atomically(self, queue: JobQueue) -> None:
        """No database accepts a lone surrogate as a lane."""
        with contextlib.suppress(StorageError, UnicodeError):
            await queue.put([job(1), job(2, "\ud83d"), job(3)])
        assert await queue.table.depth() == 0
        assert not queue._local_jobs
        assert (await queue.put([job(1)])).new == frozenset(ids(1))

    async def test_put_wakes_the_worker(self, open_queue: OpenQueue, runner: RecordingRunner) -> None:
        """With a poll interval of a minute: new jobs, their successors, and jobs stored before."""
        async with open_queue(timing=QueueTiming(poll_s=60.0)) as queue:
            await queue.put([job(1)])
            await queue.work()
            await runner.until(lambda: len(runner.finished) == 1, within_s=5)
            await queue.put([job(2), job(3), job(4)])
            await runner.until(lambda: len(runner.finished) == 4, within_s=5)
            for number in range(5, 9):
                await queue.put([job(number)])
                await runner.until(lambda number=number: len(runner.finished) == number, within_s=5)

    async def test_finished_jobs_leave_no_state_in_memory(self, queue: JobQueue, runner: RecordingRunner) -> None:
        await queue.put([job(number, f"lane {number % 7}") for number in range(50)])
        await queue.work()
        await runner.until(lambda: len(runner.finished) == 50)
        await queue.put([job(number, f"lane {number % 7}") for number in range(50)])
        await queue.drain(5)
        assert not queue._local_jobs
        assert not queue._running

    async def test_queues_of_bots_in_one_database_are_separate(
        self, open_queue: OpenQueue, runner: RecordingRunner, queue_url: sa.URL
    ) -> None:
        async with open_queue(name="inbox-1") as first:
            await first.put([job(number, is_limited=True) for number in range(1, 22)])
        async with open_queue(name="inbox-2") as second:
            await second.work()
            assert await second.table.depth() == 0
            assert not (await second.put([job(100, is_limited=True)])).rejected
            await runner.until(lambda: runner.finished)
            await second.drain(1)
        assert runner.started == ids(100)
        assert list(statuses(queue_url).values()).count("ENQUEUED") == 21


class TestShutdownAndRecovery:
    """Unfinished jobs after a shutdown, a crash or a lost reply."""

    async def test_drain_finishes_running_jobs_and_starts_none(
        self, open_queue: OpenQueue, runner: RecordingRunner, queue_url: sa.URL
    ) -> None:
        """Neither successors nor new jobs; the next process runs them."""
        async with open_queue() as queue:
            runner.gate.clear()
            await queue.put([job(1), job(2), job(3, "other")])
            await queue.work()
            await runner.until(lambda: len(runner.started) == 2)
            draining = asyncio.create_task(queue.drain(10))
            await asyncio.sleep(0.05)
            await queue.put([job(4, "third")])
            runner.gate.set()
            await draining
            assert sorted(runner.finished) == ids(1, 3)
            assert sorted(runner.started) == ids(1, 3)
        async with open_queue() as queue:
            await queue.work()
            await runner.until(lambda: len(runner.finished) == 4)
        assert sorted(runner.started) == ids(1, 2, 3, 4)
        assert set(statuses(queue_url).values()) == {"SUCCESS"}

    async def test_drain_requeues_jobs_that_exceed_the_timeout(
        self, open_queue: OpenQueue, runner: RecordingRunner, queue_url: sa.URL
    ) -> None:
        """Immediately, on PostgreSQL for any replica; the job keeps its place in the lane."""
        async with open_queue(replica="one") as queue:
            runner.gate.clear()
            await queue.put([job(1), job(2)])
            await queue.work()
            await runner.until(lambda: runner.started)
            with capture_logs() as logs:
                await queue.drain(0.05)
            assert runner.cancelled == ids(1)
        assert [(entry["event"], entry["jobs"]) for entry in logs] == [("inbox.jobs_interrupted", 1)]
        assert set(statuses(queue_url).values()) == {"ENQUEUED"}
        async with open_queue(replica="two") as queue:
            await queue.work()
            await runner.until(lambda: len(runner.finished) == 2)
        assert runner.finished == ids(1, 2)

    async def test_restart_resumes_its_claimed_jobs(
        self, open_queue: OpenQueue, runner: RecordingRunner, queue_url: sa.URL
    ) -> None:
        """The interrupted job runs before its successors."""
        async with open_queue() as queue:
            await queue.put([job(1), job(2)])
        claim_as(queue_url, "local", job(1).id)
        async with open_queue() as queue:
            await queue.work()
            await runner.until(lambda: len(runner.finished) == 2)
        assert runner.finished == ids(1, 2)

    async def test_recover_requeues_jobs_of_a_dead_replica(
        self, queue: JobQueue, runner: RecordingRunner, queue_url: sa.URL
    ) -> None:
        """Only lanes with a claimed job wait until then."""
        await queue.put([job(1), job(2), job(3, "other")])
        claim_as(queue_url, "dead", job(1).id)
        await queue.work()
        await runner.until(lambda: runner.finished)
        await queue.put([job(4, "other")])
        await runner.until(lambda: len(runner.finished) == 2)
        assert runner.finished == ids(3, 4)
        assert await queue.recover("another one") == 0
        assert await queue.recover("dead") == 1
        await runner.until(lambda: len(runner.finished) == 4)
        assert runner.finished[2:] == ids(1, 2)
        assert await queue.recover("dead") == 0

    async def test_requeue_orphans_finds_a_claim_whose_reply_was_lost(
        self, queue: JobQueue, runner: RecordingRunner
    ) -> None:
        """Without the scan, a committed claim that the process never learned of blocks its lane for ever."""
        lost = lose_claim_reply(queue)
        await queue.put([job(1), job(2)])
        await queue.work()
        await lost.wait()
        runner.gate.clear()
        assert await queue.requeue_orphans() == 0, "the job may be about to start"
        await complete_iterations(queue)
        assert await queue.requeue_orphans() == 1
        await runner.until(lambda: runner.started == ids(1))

        # A running job is no orphan.
        for _ in range(2):
            await complete_iterations(queue)
            assert await queue.requeue_orphans() == 0
        runner.gate.set()
        await runner.until(lambda: runner.finished == ids(1, 2))

    async def test_requeue_orphans_records_a_lost_outcome_without_a_second_run(
        self, queue: JobQueue, runner: RecordingRunner
    ) -> None:
        """The lane continues."""
        lose_outcomes(queue)
        with capture_logs() as logs:
            await queue.put([job(1), job(2)])
            await queue.work()
            await until(lambda: [entry for entry in logs if entry["event"] == "inbox.outcome_not_recorded"])
        assert runner.started == ids(1)
        assert await queue.requeue_orphans() == 1
        await runner.until(lambda: runner.finished == ids(1, 2))
        assert runner.started == ids(1, 2)

    async def test_purge_spares_other_queues(
        self, open_queue: OpenQueue, runner: RecordingRunner, queue_url: sa.URL
    ) -> None:
        """Other bots and other DBOS applications may share the tables."""
        async with open_queue(name="theirs") as queue:
            await queue.put([job(1)])
            await queue.work()
            await runner.until(lambda: runner.finished)
        async with open_queue() as queue:
            assert await queue.purge(SystemClock().now() + timedelta(minutes=1)) == 0
        assert statuses(queue_url) == {job(1).id: "SUCCESS"}

    async def test_purge_deletes_finished_jobs_in_batches(
        self, queue: JobQueue, runner: RecordingRunner, queue_url: sa.URL
    ) -> None:
        """Unfinished jobs stay."""
        runner.failing = set(ids(2))
        await queue.put([job(number, f"lane {number}") for number in (1, 2, 3)])
        await queue.work()
        await runner.until(lambda: len(runner.finished) == 2 and not runner.running.total())
        runner.gate.clear()
        await queue.put([job(4), job(5)])
        await runner.until(lambda: job(4).id in runner.started)
        now = SystemClock().now()
        await until(lambda: not set(ids(1, 2, 3)) & {id_ for id_, st in statuses(queue_url).items() if st == "PENDING"})
        assert await queue.purge(now - timedelta(minutes=1)) == 0
        later = now + timedelta(minutes=1)
        assert [await queue.purge(later, limit=2) for _ in range(3)] == [2, 1, 0]
        assert sorted(statuses(queue_url)) == ids(4, 5)

    async def test_start_reports_an_unreachable_database(self) -> None:
        queue = JobQueue(sync_url("postgresql://nobody@127.0.0.1:1/nothing"), "x", "x", RecordingRunner().run)
        with pytest.raises(StartupError, match="the inbox cannot be opened in its database"):
            await queue.start()


class TestReplicas:
    """Several processes on one PostgreSQL database."""

    async def test_start_does_not_deadlock_with_an_open_transaction(self, postgres_url: str) -> None:
        """Creating indexes waits for all transactions; one of this process ends only while its event loop runs."""
        queue = JobQueue(sync_url(postgres_url), "x", "x", RecordingRunner().run)
        engine = create_async_engine(postgres_url, isolation_level="REPEATABLE READ")
        try:
            async with engine.connect() as connection:
                await connection.execute(sa.text("SELECT 1"))
                starting = asyncio.create_task(queue.start())
                waiting = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'virtualxid' AND NOT granted")
                while not await connection.scalar(waiting):
                    assert not starting.done()
                    await asyncio.sleep(0.05)
            async with asyncio.timeout(30):
                await starting
        finally:
            await engine.dispose()
            await queue.close()

    async def test_replicas_share_the_work(self, postgres_url: str) -> None:
        """All start at once on an empty database and enqueue the same jobs: each runs once, lanes keep their order."""
        jobs = [[f"job-{number:04d}", f"lane {number % 12}", number + 1, False] for number in range(120)]
        async with queue_processes(postgres_url, "one", "two", "three") as replicas:
            for each in replicas:
                each.send(work=0.02)
            # One job per lane at a time, so that every replica gets some.
            for first in range(0, len(jobs), 12):
                for each in replicas:
                    each.send(put=jobs[first : first + 12])
            async with asyncio.timeout(30):
                while sum(len(each.done) for each in replicas) < len(jobs):
                    receiving = [asyncio.create_task(each.receive("ran")) for each in replicas]
                    await asyncio.wait(receiving, return_when=asyncio.FIRST_COMPLETED, timeout=1)
                    for task in receiving:
                        task.cancel()
                    await asyncio.gather(*receiving, return_exceptions=True)
            ran = await end_all(replicas)
            assert sum(bool(each.done) for each in replicas) >= 2
        assert sorted(each["ran"] for each in ran) == [id_ for id_, *_ in jobs]
        for lane in range(12):
            of_lane = [each for each in ran if each["lane"] == f"lane {lane}"]
            assert [each["ran"] for each in of_lane] == sorted(each["ran"] for each in of_lane)
            for before, after in pairwise(of_lane):
                assert before["ended"] <= after["started"]

    async def test_replicas_share_the_capacity_of_a_lane(self, postgres_url: str) -> None:
        async with queue_processes(postgres_url, "one", "two") as replicas:
            for number in range(30):
                for which, each in enumerate(replicas):
                    each.send(put=[[f"job-{which}-{number}", "lane", number + 1, True]])
            taken = 0
            for _ in range(30):
                taken += sum([(await each.receive("new"))["new"] for each in replicas])
            await end_all(replicas)
        assert taken == MAX_WAITING + 1

    async def test_queue_survives_a_database_restart(self, postgres: PostgresServer, postgres_url: str) -> None:
        runner = RecordingRunner()
        queue = JobQueue(sync_url(postgres_url), "inbox", "one", runner.run)
        await queue.start()
        try:
            await queue.work()
            runner.gate.clear()
            await queue.put([job(1), job(2)])
            await runner.until(lambda: runner.started)
            await asyncio.to_thread(postgres.stop)
            try:
                with pytest.raises(StorageError):
                    await queue.put([job(3)])
            finally:
                await asyncio.to_thread(postgres.start)
            runner.gate.set()
            await queue.put([job(3)])
            await runner.until(lambda: len(runner.finished) == 3)
            assert runner.finished == ids(1, 2, 3)
        finally:
            await queue.drain(5)
            await queue.close()

    async def test_shutdown_does_not_wait_for_an_unreachable_database(
        self, postgres: PostgresServer, postgres_url: str
    ) -> None:
        runner = RecordingRunner()
        queue = JobQueue(sync_url(postgres_url), "inbox", "one", runner.run)
        await queue.start()
        await queue.work()
        runner.gate.clear()
        await queue.put([job(1)])
        await runner.until(lambda: runner.started)
        await asyncio.to_thread(postgres.stop)
        try:
            with capture_logs() as logs:
                async with asyncio.timeout(20):
                    await queue.drain(0.1)
                    await queue.close()
            assert "inbox.requeue_failed" in {entry["event"] for entry in logs}
        finally:
            await asyncio.to_thread(postgres.start)
