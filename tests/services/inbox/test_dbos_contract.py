"""Undocumented behaviour of DBOS that the inbox relies on: fails when a new version changes it."""

import asyncio
import inspect
import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from dbos._queue import queue_worker_thread
from dbos._sys_db import SystemDatabase, db_retry

from core.clock import SystemClock
from services.inbox.dbos_queue import JobQueue, Wakeup
from services.inbox.dbos_tables import COLUMNS, WorkflowTable
from services.inbox.job import Job
from services.inbox.queue_health import QueueHealth
from tests.services.inbox.conftest import OpenQueue
from tests.support.inbox_harness import RecordingRunner

SECRET = "what somebody wrote"


def job(number: int, lane: str = "lane") -> Job:
    return Job(f"job-{number}", lane, number, json.dumps({"text": SECRET}))


def rows(url: sa.URL, table: str = "workflow_status") -> list[dict[str, object]]:
    """Return all rows of a DBOS table."""
    schema = "" if url.get_backend_name() == "sqlite" else "dbos."
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            query = sa.text(f"SELECT * FROM {schema}{table} ORDER BY workflow_uuid")
            return [dict(row) for row in connection.execute(query).mappings()]
    finally:
        engine.dispose()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Everything that the library logs, with tracebacks."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter().format(record))

    listener = Listener()
    logger = logging.getLogger("dbos")
    logger.addHandler(listener)
    yield lines
    logger.removeHandler(listener)


def test_worker_loop_sleeps_in_the_wait_of_its_stop_event() -> None:
    """Wakeup relies on it."""
    assert list(inspect.signature(queue_worker_thread).parameters) == ["stop_event", "dbos", "queue"]
    source = inspect.getsource(queue_worker_thread)
    assert source.count("stop_event.wait(timeout=") == 1
    assert "time.sleep" not in source


def test_wakeup_is_a_stop_event_with_an_early_return() -> None:
    wakeup = Wakeup(QueueHealth())
    assert isinstance(wakeup, threading.Event)
    assert wakeup.wait(0) is False
    wakeup.notify()
    assert (wakeup.wait(60), wakeup.wait(0)) == (False, False)
    wakeup.set()
    assert (wakeup.wait(60), wakeup.is_set()) == (True, True)


async def test_unused_loops_of_the_library_do_not_run(queue: JobQueue, runner: RecordingRunner) -> None:
    """Those of its own queue, of delayed jobs, of schedules and of notifications: each would poll all the time."""
    await queue.put([job(1)])
    await queue.work()
    await runner.until(lambda: runner.finished)
    threads = queue._runtime._dbos._background_threads
    assert len(threads) == 5
    for thread in threads:
        await asyncio.to_thread(thread.join, 5)
    assert [thread.name for thread in threads if thread.is_alive()] == []
    assert [each.name for each in threading.enumerate() if each.name.startswith("queue-worker-")] == []


def test_client_signatures() -> None:
    assert list(inspect.signature(DBOSClient.enqueue_in_transaction).parameters)[:3] == [
        "self", "conn_or_session", "options",
    ]  # fmt: skip
    assert "workflow_ids" in inspect.signature(DBOSClient.delete_workflows).parameters


def test_endless_retries_are_disabled_by_an_attribute() -> None:
    """The library reads it after each connection error."""
    assert 'getattr(\n                        db, "_retry_connection_errors", True' in inspect.getsource(db_retry)
    assert "self._retry_connection_errors = retry_connection_errors" in inspect.getsource(SystemDatabase.__init__)


async def test_claimed_jobs_are_among_the_library_s_tasks(queue: JobQueue, runner: RecordingRunner) -> None:
    """A shutdown waits for these."""
    runner.gate.clear()
    await queue.put([job(1)])
    await queue.work()
    await runner.until(lambda: runner.started)
    assert queue._runtime._dbos._workflow_tasks == set(queue._running)
    assert queue._runtime._dbos._active_workflows_set.activeList() == ["job-1"]


async def test_workflow_table_has_the_columns_used(queue: JobQueue, queue_url: sa.URL) -> None:
    """The status names are the documented ones."""
    await queue.put([job(1)])
    [row] = rows(queue_url)
    assert {*COLUMNS, "executor_id"} <= row.keys()
    assert (row["status"], row["queue_partition_key"], row["priority"]) == ("ENQUEUED", "lane", 1)
    assert abs(int(str(row["created_at"])) / 1000 - SystemClock().time()) < 60


async def test_jobs_are_stored_as_json(queue: JobQueue, runner: RecordingRunner, queue_url: sa.URL) -> None:
    """Inputs and outputs, of finished and failed jobs: never pickle."""
    runner.failing = {"job-2"}
    await queue.put([job(1), job(2), job(3)])
    await queue.work()
    await runner.until(lambda: "job-3" in runner.finished)
    await queue.drain(5)
    stored = rows(queue_url)
    assert [(row["status"], row["serialization"]) for row in stored] == [
        (status, "portable_json") for status in ("SUCCESS", "ERROR", "SUCCESS")
    ]
    inputs = [json.loads(str(row["inputs"])) for row in rows(queue_url, "workflow_input")]
    assert [each["positionalArgs"] for each in inputs] == [["lane", n, job(n).payload] for n in (1, 2, 3)]
    outputs = [row["error"] or row["output"] for row in rows(queue_url, "workflow_output")]
    assert [json.loads(str(each)) is None for each in outputs] == [True, False, True]


async def test_purge_deletes_inputs_and_outputs(queue: JobQueue, runner: RecordingRunner, queue_url: sa.URL) -> None:
    """Users' messages are stored in tables of their own."""
    await queue.put([job(1), job(2)])
    await queue.work()
    await runner.until(lambda: len(runner.finished) == 2)
    await queue.drain(5)
    assert await queue.purge(SystemClock().now() + timedelta(minutes=1)) == 2
    tables = ("workflow_status", "workflow_input", "workflow_output", "operation_outputs")
    assert [rows(queue_url, table) for table in tables] == [[], [], [], []]


async def test_cancelled_job_stays_claimed(open_queue: OpenQueue, runner: RecordingRunner, queue_url: sa.URL) -> None:
    """A shutdown cancels it; its replica or another one requeues it."""
    async with open_queue() as queue:
        runner.gate.clear()
        await queue.put([job(1)])
        await queue.work()
        await runner.until(lambda: runner.started)
        await queue.drain(0)
        assert runner.cancelled == ["job-1"]
        [row] = rows(queue_url)
        assert (row["status"], row["executor_id"]) == ("PENDING", "local")


async def test_library_logs_quote_no_message(open_queue: OpenQueue, runner: RecordingRunner, lines: list[str]) -> None:
    """For jobs that finish, fail, are cancelled, enqueued twice, or requeued."""
    runner.failing = {"job-2"}
    async with open_queue() as queue:
        await queue.put([job(1), job(2), job(3)])
        await queue.put([job(1)])
        await queue.work()
        await runner.until(lambda: "job-3" in runner.finished)
        runner.gate.clear()
        await queue.put([job(4)])
        await runner.until(lambda: "job-4" in runner.started)
        await queue.drain(0)
        assert runner.cancelled == ["job-4"]
        await queue.recover("local")
    assert SECRET not in "\n".join(lines)
    assert "text" not in "\n".join(lines)
    assert [line for line in lines if "cancelled" in line] == []


def test_sqlite_knows_the_clock_of_the_library(tmp_path: Path) -> None:
    """DBOS writes `unixepoch('subsec')` on Python 3.12 and newer; SQLite before 3.42 would store NULL."""
    table = WorkflowTable(sa.URL.create("sqlite", database=str(tmp_path / "inbox.db")), "inbox-1")
    with table.engine.connect() as connection:
        now = connection.scalar(sa.func.unixepoch("subsec"))
    table.engine.dispose()
    assert now == pytest.approx(time.time(), abs=10)
