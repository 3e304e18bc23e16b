"""Writes that go together."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from core.db.database import Database
from core.db.group_commit import GroupCommit
from core.db.tables import SentMessageRow
from core.errors import StorageError

MANY = 40


def said(database: Database, place: int | None) -> Any:  # noqa: ANN401 - a statement of either dialect
    """A small write; one without a place is refused."""
    row = {"job_id": "j", "chat_id": 7, "place": place, "message_id": place, "created_at": datetime.now(UTC)}
    return database.insert(SentMessageRow).values(row).on_conflict_do_nothing()


async def places(database: Database) -> list[int]:
    async with database.reading() as session:
        return list(await session.scalars(select(SentMessageRow.place).order_by(SentMessageRow.place)))


async def test_what_comes_at_once_is_written_in_few_transactions(database: Database) -> None:
    commits = 0

    def count(_connection: object) -> None:
        nonlocal commits
        commits += 1

    event.listen(database.engine.sync_engine, "commit", count)
    group = GroupCommit(database)
    await asyncio.gather(*(group.execute(said(database, place)) for place in range(MANY)))
    assert commits == 2, "the first one alone, the others while it was written"
    assert await places(database) == list(range(MANY))


async def test_one_that_is_refused_takes_no_other_along(database: Database) -> None:
    group = GroupCommit(database)
    wanted = [0, None, 2, None, 4]
    done = await asyncio.gather(*(group.execute(said(database, each)) for each in wanted), return_exceptions=True)
    assert [isinstance(each, StorageError) for each in done] == [False, True, False, True, False]
    assert await places(database) == [0, 2, 4]


async def test_a_caller_that_is_cancelled_leaves_the_others_their_writes(database: Database) -> None:
    group = GroupCommit(database)
    tasks = [asyncio.create_task(group.execute(said(database, place))) for place in range(MANY)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [None] * (MANY - 1)
    assert set(await places(database)) >= set(range(1, MANY))


async def test_a_caller_that_is_cancelled_among_refused_ones_leaves_them_their_writes(database: Database) -> None:
    """While it writes the others one by one, since one of them was refused."""
    group = GroupCommit(database)
    commits = 0

    def cancel(_connection: object) -> None:
        nonlocal commits
        commits += 1
        if commits == 2:
            # Its own is the first that went through alone.
            tasks[0].cancel()

    event.listen(database.engine.sync_engine, "commit", cancel)
    async with database.session():
        tasks = [asyncio.create_task(group.execute(said(database, place))) for place in (0, None, 2, 3)]
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[1], StorageError)
    assert done[2:] == [None, None]
    assert set(await places(database)) >= {2, 3}


async def test_a_long_queue_that_moves_is_no_locked_database(tmp_path: Path) -> None:
    """Its last one waits longer than for somebody else's lock, which nobody has."""
    database = Database(f"sqlite:///{tmp_path / 'understudy.db'}", busy_timeout_s=0.3)
    await database.start()

    async def write(place: int) -> None:
        async with database.session() as session:
            await session.execute(said(database, place))
            await asyncio.sleep(0.05)

    await asyncio.gather(*(write(place) for place in range(20)))
    assert await places(database) == list(range(20))
    await database.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_it_goes_before_other_writers_that_wait(database: Database) -> None:
    """SQLite has one writer at a time; with PostgreSQL nobody waits for another."""
    order: list[str] = []

    async def write(name: str, *, first: bool) -> None:
        async with database.session(first=first):
            order.append(name)
            await asyncio.sleep(0)

    async with database.session():
        tasks = [asyncio.create_task(write(f"other {number}", first=False)) for number in range(3)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(write("first", first=True)))
        given_up = asyncio.create_task(write("given up", first=True))
        await asyncio.sleep(0)
        given_up.cancel()
    await asyncio.gather(*tasks)
    assert order == ["first", "other 0", "other 1", "other 2"]
    async with database.session():
        order.append("free again")
