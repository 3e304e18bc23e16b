"""A queue whose worker loop fails: noticed on both databases, and told from an outage."""

import asyncio

import pytest
import sqlalchemy as sa

from services.inbox.dbos_queue import JobQueue, QueueTiming
from services.inbox.job import Job
from services.inbox.queue_health import HealthLimits
from tests.services.inbox.conftest import OpenQueue
from tests.support.clock import until
from tests.support.inbox_harness import RecordingRunner
from tests.support.processes.postgres_server import PostgresServer
from tests.support.processes.queue_process import sync_url

pytestmark = pytest.mark.integration

TIMING = QueueTiming(poll_s=0.05)
LIMITS = HealthLimits(fatal_after_s=0.3)


def job(number: int) -> Job:
    return Job(f"job-{number}", f"lane {number}", number, "{}")


def execute(url: sa.URL, *statements: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def refuse_claims(url: sa.URL) -> None:
    """Let the database refuse each claim of a job."""
    if url.get_backend_name() == "sqlite":
        execute(url, "CREATE TRIGGER broken BEFORE UPDATE ON workflow_status BEGIN SELECT RAISE(ABORT, 'no'); END")
        return
    execute(
        url,
        "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE 'no' USING ERRCODE = '23502'; END $$ "
        "LANGUAGE plpgsql",
        "CREATE TRIGGER broken BEFORE UPDATE ON dbos.workflow_status FOR EACH ROW EXECUTE FUNCTION refuse()",
    )


async def test_refused_claims_are_a_fatal_problem(open_queue: OpenQueue, queue_url: sa.URL) -> None:
    async with open_queue(timing=TIMING, limits=LIMITS) as queue:
        await queue.work()
        refuse_claims(queue_url)
        await queue.put([job(1)])
        await until(lambda: queue.health.fatal_problem)
        assert "poll failed" in str(queue.health.problem)
        assert "it refused the statement" in str(queue.health.problem)


async def test_refused_outcomes_are_reported(open_queue: OpenQueue, queue_url: sa.URL) -> None:
    """The job has run; without its outcome it would block its lane for ever."""
    runner = RecordingRunner()
    runner.gate.clear()
    async with open_queue(runner.run, timing=TIMING, limits=LIMITS) as queue:
        await queue.put([job(1), job(2)])
        await queue.work()
        await runner.until(lambda: len(runner.started) == 2)
        refuse_claims(queue_url)
        runner.gate.set()
        await until(lambda: "outcome failed" in (queue.health.problem or ""))


async def test_queue_without_jobs_is_healthy(open_queue: OpenQueue) -> None:
    async with open_queue(timing=TIMING, limits=LIMITS) as queue:
        await queue.work()
        await until(lambda: queue._wakeup.iterations > 3)
        assert queue.health.problem is None


async def test_worker_that_loses_its_queue_is_a_fatal_problem(open_queue: OpenQueue, queue_url: sa.URL) -> None:
    """The library ends its loop without an error when another program deletes the queue."""
    async with open_queue(timing=TIMING, limits=LIMITS) as queue:
        await queue.work()
        schema = "" if queue_url.get_backend_name() == "sqlite" else "dbos."
        execute(queue_url, f"DELETE FROM {schema}queues")
        await until(lambda: queue.health.fatal_problem)
        assert queue.health.problem == "its worker ended: the queue is gone from the database"


async def test_postgresql_outage_is_no_fatal_problem(
    postgres: PostgresServer, postgres_url: str, runner: RecordingRunner
) -> None:
    queue = JobQueue(sync_url(postgres_url), "inbox", "one", runner.run, TIMING, HealthLimits(fatal_after_s=0.1))
    await queue.start()
    try:
        await queue.work()
        await asyncio.to_thread(postgres.stop)
        await until(lambda: queue.health.problem)
        iterations = queue._wakeup.iterations
        await until(lambda: queue._wakeup.iterations > iterations + 10)
        assert queue.health.fatal_problem is None
        await asyncio.to_thread(postgres.start)
        await queue.put([job(1)])
        await runner.until(lambda: runner.finished == ["job-1"])
        await until(lambda: queue.health.problem is None)
    finally:
        await queue.drain(5)
        await queue.close()
