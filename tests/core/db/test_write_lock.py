"""The write lock of SQLite."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from core.db.database import Database
from core.db.job_tables import SentMessageRow

pytestmark = pytest.mark.integration


def insert_sent(database: Database, place: int) -> Any:
    """Return a small INSERT."""
    row = {"job_id": "j", "chat_id": 7, "place": place, "message_id": place, "created_at": datetime.now(UTC)}
    return database.insert(SentMessageRow).values(row).on_conflict_do_nothing()


async def places(database: Database) -> list[int]:
    async with database.reading() as session:
        return list(await session.scalars(select(SentMessageRow.place).order_by(SentMessageRow.place)))


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
