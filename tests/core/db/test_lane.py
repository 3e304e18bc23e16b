"""Transactions in one hop to a thread: shared commits, faults, cancellation, and the calls of a turn."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import connect

import pytest
from sqlalchemy import Connection, event, select

from core.db.database import Database
from core.db.job_tables import SentMessageRow
from core.db.lane import LaneThreads
from core.errors import StorageError

MANY = 40


def insert(database: Database, place: int | None) -> Callable[[Connection], int | None]:
    """Return a transaction; without a place it violates NOT NULL."""
    row = {"job_id": "j", "chat_id": 7, "place": place, "message_id": 1, "created_at": datetime.now(UTC)}
    statement = database.insert(SentMessageRow).values(row)

    def work(connection: Connection) -> int | None:
        connection.execute(statement)
        return place

    return work


def places(connection: Connection) -> list[int]:
    return list(connection.scalars(select(SentMessageRow.place).order_by(SentMessageRow.place)))


async def test_run_returns_the_result_of_a_committed_transaction(database: Database, replica: Database) -> None:
    assert await database.run(insert(database, 3)) == 3
    assert await replica.run(places, reading=True) == [3]


async def test_run_executes_off_the_event_loop(database: Database) -> None:
    assert await database.run(lambda _: threading.get_ident()) != threading.get_ident()
    assert await database.run(lambda _: threading.get_ident(), reading=True) != threading.get_ident()


async def test_waiting_transactions_share_a_commit_on_sqlite(file: Database) -> None:
    seen: list[int] = []
    event.listen(file.engines[1], "commit", lambda _: seen.append(1))
    await asyncio.gather(*(file.run(insert(file, place)) for place in range(MANY)))
    assert len(seen) <= 2, "those that came while the lock was taken together"
    assert await file.run(places) == list(range(MANY))


async def test_rejected_transaction_takes_no_other_along(database: Database) -> None:
    wanted = [0, None, 2, None, 4]
    done = await asyncio.gather(*(database.run(insert(database, each)) for each in wanted), return_exceptions=True)
    assert [isinstance(each, StorageError) for each in done] == [False, True, False, True, False]
    assert all(each.permanent for each in done if isinstance(each, StorageError))
    assert await database.run(places) == [0, 2, 4]


async def test_exception_of_a_transaction_rolls_it_back_and_is_raised(database: Database) -> None:
    def fail(connection: Connection) -> None:
        insert(database, 1)(connection)
        raise ZeroDivisionError

    done = await asyncio.gather(
        database.run(insert(database, 0)), database.run(fail), database.run(insert(database, 2)), return_exceptions=True
    )
    assert isinstance(done[1], ZeroDivisionError)
    assert await database.run(places) == [0, 2]


async def test_cancelled_caller_takes_no_other_along(database: Database) -> None:
    tasks = [asyncio.create_task(database.run(insert(database, place))) for place in range(MANY)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == list(range(1, MANY))
    assert set(await database.run(places)) >= set(range(1, MANY))


async def test_outage_fails_all_waiting_transactions_at_once(file: Database) -> None:
    """Each alone would wait for the whole busy timeout."""
    with closing(connect(file.name, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        done = await asyncio.gather(*(file.run(insert(file, place)) for place in range(MANY)), return_exceptions=True)
        seconds = time.monotonic() - began
    assert all(isinstance(each, StorageError) and not each.permanent for each in done)
    assert seconds < 0.2 * MANY / 4
    assert await file.run(insert(file, 1)) == 1


async def test_reading_does_not_wait_for_a_writer_on_sqlite(file: Database) -> None:
    await file.run(insert(file, 1))
    async with file.session() as session, asyncio.timeout(5):
        await session.run_sync(lambda each: insert(file, 2)(each.connection()))
        assert await file.run(places, reading=True) == [1]


async def test_transactions_that_read_before_they_write_take_turns_over_replicas(
    database: Database, replica: Database
) -> None:
    """On SQLite one that has read may not write once another has: it takes the write lock first."""

    def read_then_insert(place: int) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            places(connection)
            time.sleep(0.05)
            insert(database, place)(connection)

        return work

    await asyncio.gather(database.run(read_then_insert(1)), replica.run(read_then_insert(2)))
    assert await database.run(places) == [1, 2]


async def test_writers_of_sessions_and_of_the_lane_take_turns(file: Database) -> None:
    async def write(place: int) -> None:
        async with file.session() as session:
            await session.run_sync(lambda each: insert(file, place)(each.connection()))

    await asyncio.gather(
        *(write(place) for place in range(0, 20, 2)), *(file.run(insert(file, place)) for place in range(1, 20, 2))
    )
    assert await file.run(places) == list(range(20))


async def test_run_works_again_after_close(database: Database) -> None:
    await database.run(insert(database, 1))
    await database.close()
    assert await database.run(places) == [1]


@pytest.mark.parametrize("reading", [False, True])
async def test_close_waits_for_a_transaction_whose_caller_was_cancelled(database: Database, *, reading: bool) -> None:
    """A connection that is in use when the pool is disposed of would stay open."""
    open_connections: set[object] = set()
    event.listen(database.engines[1], "connect", lambda connection, _: open_connections.add(connection))
    event.listen(database.engines[1], "close", lambda connection, _: open_connections.discard(connection))
    is_executing, may_end = threading.Event(), threading.Event()

    def work(_: Connection) -> None:
        is_executing.set()
        may_end.wait(10)

    task = asyncio.create_task(database.run(work, reading=reading))
    await asyncio.to_thread(is_executing.wait, 10)
    assert open_connections
    task.cancel()
    closing_task = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    assert not closing_task.done()
    may_end.set()
    await closing_task
    assert not open_connections
    gc.collect()  # drivers warn of an open connection that is collected, and a warning is an error


async def test_backlog_counts_waiting_transactions(file: Database) -> None:
    async with file.session():
        tasks = [asyncio.create_task(file.run(insert(file, place))) for place in range(3)]
        await asyncio.sleep(0.01)
        assert file.backlog >= 3
    await asyncio.gather(*tasks)
    assert file.backlog == 0


async def test_work_after_the_end_of_a_thread_that_hung_is_executed() -> None:
    threads, released = LaneThreads(1), threading.Event()
    hanging = threads.submit(lambda: released.wait(60))
    await threads.stop(0.01)
    async with asyncio.timeout(10):
        assert await threads.submit(lambda: "done") == "done"
        released.set()
        assert await hanging
        await threads.stop(10)


@pytest.mark.integration
def test_process_ends_although_a_transaction_hangs(tmp_path: Path) -> None:
    async def hang() -> None:
        database = Database(f"sqlite:///{tmp_path / 'understudy.db'}")
        await database.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await database.run(lambda _: released.wait(60), reading=True)
        await database.close()

    released = threading.Event()
    began = time.monotonic()
    asyncio.run(hang())
    assert time.monotonic() - began < 30
    released.set()
