"""The parts of albums: which job answers which of them, and when."""

import asyncio
from datetime import timedelta

from core.db.database import Database
from services.inbox.album_parts import LAST_PART_S, MOST_PARTS, AlbumPart, AlbumParts
from tests.support.clock import ManualClock, until


def part(number: int, album: str = "x", chat_id: int = 7) -> AlbumPart:
    return AlbumPart(chat_id, album, number, f"update {number} of {chat_id}")


async def taking(parts: AlbumParts, number: int, job: str, clock: ManualClock) -> list[str] | None:
    """What a job takes when the album is whole."""
    task = asyncio.create_task(parts.take(7, "x", number, job))
    while not task.done():
        await asyncio.sleep(0.005)
        await clock.advance(LAST_PART_S)
    return task.result()


async def test_an_album_is_whole_a_second_after_its_last_part(database: Database, clock: ManualClock) -> None:
    """Whatever came in which batch, and in which order."""
    parts = AlbumParts(database, clock)
    await parts.put([part(2)])
    whole = asyncio.create_task(parts.take(7, "x", 2, "job"))
    await until(lambda: clock._sleepers)
    await clock.advance(0.9 * LAST_PART_S)
    await parts.put([part(3), part(1)])
    await clock.advance(0.9 * LAST_PART_S)
    await asyncio.sleep(0.05)
    assert not whole.done()
    while not whole.done():
        await clock.advance(0.1 * LAST_PART_S)
        await asyncio.sleep(0.005)
    assert whole.result() == [part(number).update for number in (1, 2, 3)]


async def test_the_tenth_part_is_the_last(database: Database, clock: ManualClock) -> None:
    """Nothing is waited for then."""
    parts = AlbumParts(database, clock)
    await parts.put([part(number) for number in range(MOST_PARTS)])
    async with asyncio.timeout(5):
        taken = await parts.take(7, "x", 0, "job")
    assert taken is not None
    assert len(taken) == MOST_PARTS


async def test_one_job_answers_all_parts_and_the_others_none(
    database: Database, replica: Database, clock: ManualClock
) -> None:
    """Of two replicas at the same moment one."""
    one, two = AlbumParts(database, clock), AlbumParts(replica, clock)
    await one.put([part(1), part(2)])
    clock.shift(LAST_PART_S)
    taken = await asyncio.gather(one.take(7, "x", 1, "first"), two.take(7, "x", 2, "second"))
    assert sorted(map(len, filter(None, taken))) == [2]
    assert [] in taken


async def test_a_job_that_is_done_again_takes_the_same(
    database: Database, replica: Database, clock: ManualClock
) -> None:
    """And what came since, if nobody else has taken that."""
    parts = AlbumParts(database, clock)
    await parts.put([part(1), part(2)])
    assert await taking(parts, 1, "job", clock) == [part(1).update, part(2).update]
    await parts.put([part(2), part(3)])
    assert await taking(AlbumParts(replica, clock), 1, "job", clock) == [part(n).update for n in (1, 2, 3)]


async def test_a_part_that_comes_later_is_a_message_of_its_own(database: Database, clock: ManualClock) -> None:
    parts = AlbumParts(database, clock)
    await parts.put([part(1)])
    assert await taking(parts, 1, "first", clock) == [part(1).update]
    await parts.put([part(2)])
    assert await taking(parts, 2, "second", clock) == [part(2).update]


async def test_albums_of_two_chats_are_apart_whatever_their_name(database: Database, clock: ManualClock) -> None:
    parts = AlbumParts(database, clock)
    await parts.put([part(1), part(2, chat_id=8), part(3, "y")])
    await parts.put([])
    assert await taking(parts, 1, "job", clock) == [part(1).update]


async def test_what_is_old_is_forgotten_and_then_nobody_knows_of_it(database: Database, clock: ManualClock) -> None:
    parts = AlbumParts(database, clock)
    await parts.put([part(1)])
    clock.shift(3600)
    await parts.put([part(2)])
    await parts.forget(clock.now() - timedelta(minutes=1))
    assert await taking(parts, 1, "job", clock) is None
    assert await taking(parts, 2, "job", clock) == [part(2).update]
