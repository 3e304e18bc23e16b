"""GroupCommit and the write lock."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from core.db.database import Database
from core.db.job_tables import SentMessageRow
from core.db.queues import GroupCommit
from core.errors import StorageError

MANY = 40


def insert_sent(database: Database, place: int | None) -> Any:
    """Return a small INSERT; without a place it violates NOT NULL."""
    row = {"job_id": "j", "chat_id": 7, "place": place, "message_id": place, "created_at": datetime.now(UTC)}
    return database.insert(SentMessageRow).values(row).on_conflict_do_nothing()


async def places(database: Database) -> list[int]:
    async with database.reading() as session:
        return list(await session.scalars(select(SentMessageRow.place).order_by(SentMessageRow.place)))


async def test_group_commit_batches_concurrent_statements(database: Database) -> None:
    commits = 0

    def count(_connection: object) -> None:
        nonlocal commits
        commits += 1

    for engine in database.engines:
        event.listen(engine, "commit", count)
    group = GroupCommit(database)
    await asyncio.gather(*(group.execute(insert_sent(database, place)) for place in range(MANY)))
    assert commits == 2, "the first alone, the others together"
    assert await places(database) == list(range(MANY))


async def test_group_commit_fails_only_the_rejected_statement(database: Database) -> None:
    group = GroupCommit(database)
    wanted = [0, None, 2, None, 4]
    done = await asyncio.gather(
        *(group.execute(insert_sent(database, each)) for each in wanted), return_exceptions=True
    )
    assert [isinstance(each, StorageError) for each in done] == [False, True, False, True, False]
    assert await places(database) == [0, 2, 4]


async def test_group_commit_survives_a_cancelled_caller(database: Database) -> None:
    group = GroupCommit(database)
    tasks = [asyncio.create_task(group.execute(insert_sent(database, place))) for place in range(MANY)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [None] * (MANY - 1)
    assert set(await places(database)) >= set(range(1, MANY))


async def test_group_commit_survives_cancellation_during_one_by_one_commits(database: Database) -> None:
    """The caller that commits a rejected batch statement by statement is cancelled."""
    group = GroupCommit(database)
    loop = asyncio.get_running_loop()
    commits = 0

    def cancel(_connection: object) -> None:
        nonlocal commits
        commits += 1
        if commits == 2:
            # The first single commit is the caller's own.
            loop.call_soon_threadsafe(tasks[0].cancel)

    for engine in database.engines:
        event.listen(engine, "commit", cancel)
    async with database.session():
        tasks = [asyncio.create_task(group.execute(insert_sent(database, place))) for place in (0, None, 2, 3)]
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[1], StorageError)
    assert done[2:] == [None, None]
    assert set(await places(database)) >= {2, 3}


async def test_write_lock_does_not_time_out_while_the_queue_progresses(tmp_path: Path) -> None:
    """The last writer waits longer than the busy timeout."""
    database = Database(f"sqlite:///{tmp_path / 'understudy.db'}", busy_timeout_s=0.3)
    await database.start()

    async def write(place: int) -> None:
        async with database.session() as session:
            await session.execute(insert_sent(database, place))
            await asyncio.sleep(0.05)

    await asyncio.gather(*(write(place) for place in range(20)))
    assert await places(database) == list(range(20))
    await database.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_urgent_session_overtakes_waiting_writers(database: Database) -> None:
    """Only SQLite serialises writers."""
    order: list[str] = []

    async def write(name: str, *, urgent: bool) -> None:
        async with database.session(urgent=urgent):
            order.append(name)
            await asyncio.sleep(0)

    async with database.session():
        tasks = [asyncio.create_task(write(f"other {number}", urgent=False)) for number in range(3)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(write("urgent", urgent=True)))
        cancelled = asyncio.create_task(write("cancelled", urgent=True))
        await asyncio.sleep(0)
        cancelled.cancel()
    await asyncio.gather(*tasks)
    assert order == ["urgent", "other 0", "other 1", "other 2"]
    async with database.session():
        order.append("released")
