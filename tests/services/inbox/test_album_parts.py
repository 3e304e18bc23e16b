"""AlbumParts: completeness, and assignment of parts to jobs."""

import asyncio
from datetime import timedelta

import pytest

from core.db.database import Database
from services.inbox.album_parts import MAX_PARTS, QUIET_S, AlbumPart, AlbumParts
from tests.support.clock import ManualClock, until

pytestmark = pytest.mark.integration


def part(number: int, album: str = "x", chat_id: int = 7) -> AlbumPart:
    return AlbumPart(chat_id, album, number, f"update {number} of {chat_id}")


async def taking(parts: AlbumParts, number: int, job: str, clock: ManualClock) -> list[str] | None:
    """Let a job take the album once it is complete."""
    task = asyncio.create_task(parts.take(7, "x", number, job))
    while not task.done():
        await asyncio.sleep(0.005)
        await clock.advance(QUIET_S)
    return task.result()


async def test_album_is_complete_a_second_after_its_last_part(database: Database, clock: ManualClock) -> None:
    """Regardless of batches and order."""
    parts = AlbumParts(database, clock)
    await parts.put([part(2)])
    whole = asyncio.create_task(parts.take(7, "x", 2, "job"))
    await until(lambda: clock._sleepers)
    await clock.advance(0.9 * QUIET_S)
    await parts.put([part(3), part(1)])
    await clock.advance(0.9 * QUIET_S)
    await asyncio.sleep(0.05)
    assert not whole.done()
    while not whole.done():
        await clock.advance(0.1 * QUIET_S)
        await asyncio.sleep(0.005)
    assert whole.result() == [part(number).update for number in (1, 2, 3)]


async def test_album_with_ten_parts_is_complete(database: Database, clock: ManualClock) -> None:
    """Without a pause."""
    parts = AlbumParts(database, clock)
    await parts.put([part(number) for number in range(MAX_PARTS)])
    async with asyncio.timeout(5):
        taken = await parts.take(7, "x", 0, "job")
    assert taken is not None
    assert len(taken) == MAX_PARTS


async def test_one_job_takes_all_parts(database: Database, replica: Database, clock: ManualClock) -> None:
    """Even when two replicas take at the same instant."""
    one, two = AlbumParts(database, clock), AlbumParts(replica, clock)
    await one.put([part(1), part(2)])
    clock.shift(QUIET_S)
    taken = await asyncio.gather(one.take(7, "x", 1, "first"), two.take(7, "x", 2, "second"))
    assert sorted(map(len, filter(None, taken))) == [2]
    assert [] in taken


async def test_retried_job_takes_the_same_parts(database: Database, replica: Database, clock: ManualClock) -> None:
    """And later parts that no other job has taken."""
    parts = AlbumParts(database, clock)
    await parts.put([part(1), part(2)])
    assert await taking(parts, 1, "job", clock) == [part(1).update, part(2).update]
    await parts.put([part(2), part(3)])
    assert await taking(AlbumParts(replica, clock), 1, "job", clock) == [part(n).update for n in (1, 2, 3)]


async def test_late_part_is_taken_by_its_own_job(database: Database, clock: ManualClock) -> None:
    parts = AlbumParts(database, clock)
    await parts.put([part(1)])
    assert await taking(parts, 1, "first", clock) == [part(1).update]
    await parts.put([part(2)])
    assert await taking(parts, 2, "second", clock) == [part(2).update]


async def test_albums_are_separated_by_chat_and_id(database: Database, clock: ManualClock) -> None:
    parts = AlbumParts(database, clock)
    await parts.put([part(1), part(2, chat_id=8), part(3, "y")])
    await parts.put([])
    assert await taking(parts, 1, "job", clock) == [part(1).update]


async def test_purge_deletes_old_parts(database: Database, clock: ManualClock) -> None:
    parts = AlbumParts(database, clock)
    await parts.put([part(1)])
    clock.shift(3600)
    await parts.put([part(2)])
    await parts.purge(clock.now() - timedelta(minutes=1))
    assert await taking(parts, 1, "job", clock) is None
    assert await taking(parts, 2, "job", clock) == [part(2).update]
