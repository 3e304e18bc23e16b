"""What the queue relies on of the library under it, and is no promise of that: a new version says here what changed."""

import inspect
import json
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from dbos._queue import queue_worker_thread
from dbos._sys_db import SystemDatabase, db_retry

from core.clock import SystemClock
from services.inbox import dbos_queue as module
from services.inbox.dbos_queue import JobQueue, Wakeup
from services.inbox.job import Job
from tests.services.inbox.conftest import OpenQueue, Workshop

SECRET = "what somebody wrote"


def job(number: int, lane: str = "lane") -> Job:
    return Job(f"job-{number}", lane, number, json.dumps({"text": SECRET}))


def rows(url: sa.URL, table: str = "workflow_status") -> list[dict[str, object]]:
    """A table of the library's, as it stands."""
    schema = "" if url.get_backend_name() == "sqlite" else "dbos."
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            query = sa.text(f"SELECT * FROM {schema}{table} ORDER BY workflow_uuid")  # noqa: S608
            return [dict(row) for row in connection.execute(query).mappings()]
    finally:
        engine.dispose()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Everything that the library logs, with its tracebacks."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(logging.Formatter().format(record))

    listener = Listener()
    logger = logging.getLogger("dbos")
    logger.addHandler(listener)
    yield said
    logger.removeHandler(listener)


def test_the_worker_loop_takes_a_stop_event_and_sleeps_in_its_wait() -> None:
    """That is where the bell wakes it."""
    assert list(inspect.signature(queue_worker_thread).parameters) == ["stop_event", "dbos", "queue"]
    source = inspect.getsource(queue_worker_thread)
    assert source.count("stop_event.wait(timeout=") == 1
    assert "time.sleep" not in source


def test_the_bell_is_a_stop_event_that_can_be_rung() -> None:
    bell = Wakeup()
    assert isinstance(bell, threading.Event)
    assert bell.wait(0) is False
    bell.ring()
    assert (bell.wait(60), bell.wait(0)) == (False, False)
    bell.set()
    assert (bell.wait(60), bell.is_set()) == (True, True)


def test_the_calls_have_the_shape_that_is_relied_on() -> None:
    assert list(inspect.signature(DBOSClient.enqueue_in_transaction).parameters)[:3] == [
        "self", "conn_or_session", "options",
    ]  # fmt: skip
    assert "workflow_ids" in inspect.signature(DBOSClient.delete_workflows).parameters


def test_that_it_need_not_try_again_for_ever_is_asked_of_an_attribute() -> None:
    """Each time that its database is gone; the attribute is set when it runs."""
    assert 'getattr(\n                        db, "_retry_connection_errors", True' in inspect.getsource(db_retry)
    assert "self._retry_connection_errors = retry_connection_errors" in inspect.getsource(SystemDatabase.__init__)


async def test_what_is_about_to_begin_is_among_its_tasks(queue: JobQueue, shop: Workshop) -> None:
    """Where a shutdown looks for it."""
    shop.gate.clear()
    await queue.put([job(1)])
    await queue.work()
    await shop.until(lambda: shop.begun)
    assert queue._dbos._workflow_tasks == set(queue._running)
    assert queue._dbos._active_workflows_set.activeList() == ["job-1"]


async def test_the_table_has_the_columns_that_are_read(queue: JobQueue, queue_url: sa.URL) -> None:
    """And the states have their names."""
    await queue.put([job(1)])
    [row] = rows(queue_url)
    assert {*module._COLUMNS, "executor_id"} <= row.keys()
    assert (row["status"], row["queue_partition_key"], row["priority"]) == ("ENQUEUED", "lane", 1)
    assert abs(int(str(row["created_at"])) / 1000 - SystemClock().time()) < 60


async def test_what_is_stored_is_json_and_never_pickle(queue: JobQueue, shop: Workshop, queue_url: sa.URL) -> None:
    """What went in, and what came out, of one that was done and of one that failed."""
    shop.failing = {"job-2"}
    await queue.put([job(1), job(2), job(3)])
    await queue.work()
    await shop.until(lambda: "job-3" in shop.done)
    await queue.drain(5)
    stored = rows(queue_url)
    assert [(row["status"], row["serialization"]) for row in stored] == [
        (status, "portable_json") for status in ("SUCCESS", "ERROR", "SUCCESS")
    ]
    inputs = [json.loads(str(row["inputs"])) for row in rows(queue_url, "workflow_input")]
    assert [each["positionalArgs"] for each in inputs] == [["lane", n, job(n).payload] for n in (1, 2, 3)]
    outputs = [row["error"] or row["output"] for row in rows(queue_url, "workflow_output")]
    assert [json.loads(str(each)) is None for each in outputs] == [True, False, True]


async def test_nothing_is_left_of_what_is_deleted(queue: JobQueue, shop: Workshop, queue_url: sa.URL) -> None:
    """What people wrote is in tables of its own, and goes too."""
    await queue.put([job(1), job(2)])
    await queue.work()
    await shop.until(lambda: len(shop.done) == 2)
    await queue.drain(5)
    assert await queue.purge(SystemClock().now() + timedelta(minutes=1)) == 2
    tables = ("workflow_status", "workflow_input", "workflow_output", "operation_outputs")
    assert [rows(queue_url, table) for table in tables] == [[], [], [], []]


async def test_one_that_is_cancelled_is_not_taken_for_done(
    open_queue: OpenQueue, shop: Workshop, queue_url: sa.URL
) -> None:
    """A shutdown cancels it; it stays with its replica until that, or another one, puts it back."""
    async with open_queue() as queue:
        shop.gate.clear()
        await queue.put([job(1)])
        await queue.work()
        await shop.until(lambda: shop.begun)
        await queue.drain(0)
        assert shop.broken_off == ["job-1"]
        [row] = rows(queue_url)
        assert (row["status"], row["executor_id"]) == ("PENDING", "local")


async def test_no_line_of_the_library_quotes_a_message(open_queue: OpenQueue, shop: Workshop, lines: list[str]) -> None:
    """Whatever becomes of a job: done, failed, cancelled, put twice, put back."""
    shop.failing = {"job-2"}
    async with open_queue() as queue:
        await queue.put([job(1), job(2), job(3)])
        await queue.put([job(1)])
        await queue.work()
        await shop.until(lambda: "job-3" in shop.done)
        shop.gate.clear()
        await queue.put([job(4)])
        await shop.until(lambda: "job-4" in shop.begun)
        await queue.drain(0)
        assert shop.broken_off == ["job-4"]
        await queue.recover("local")
    assert SECRET not in "\n".join(lines)
    assert "text" not in "\n".join(lines)
