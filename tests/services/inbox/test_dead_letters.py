"""DeadLetters."""

from datetime import timedelta

from core.db.database import Database
from services.inbox.dead_letters import DeadLetters
from services.inbox.job import LARGEST_PRIORITY, Job
from tests.support.clock import ManualClock


def job(number: int) -> Job:
    return Job(f"tg-42-{number:012d}", "telegram:7", number, '{"text": "\\u0000 \\ud83d"}')


async def test_add_stores_the_job_once(database: Database, replica: Database, clock: ManualClock) -> None:
    """Every replica sees it."""
    first, second = DeadLetters(database, clock), DeadLetters(replica, clock)
    dead = job(LARGEST_PRIORITY)
    assert await first.add(dead, "ValueError")
    assert not await second.add(dead, "TypeError")
    [letter] = await second.newest()
    assert (letter.job, letter.reason, letter.failed_at) == (dead, "ValueError", clock.now())
    assert await first.get(letter.id) == letter
    assert await first.get(letter.id + 1) is None


async def test_newest_come_first(database: Database, clock: ManualClock) -> None:
    letters = DeadLetters(database, clock)
    for number in range(1, 6):
        await letters.add(job(number), "ValueError")
    assert [each.job.priority for each in await letters.newest(3)] == [5, 4, 3]


async def test_drop_deletes_once(database: Database, clock: ManualClock) -> None:
    letters = DeadLetters(database, clock)
    await letters.add(job(1), "ValueError")
    [letter] = await letters.newest()
    assert [await letters.drop(letter.id), await letters.drop(letter.id)] == [True, False]
    assert await letters.newest() == []


async def test_purge_deletes_expired_and_excess_letters(database: Database, clock: ManualClock) -> None:
    letters = DeadLetters(database, clock, limit=3)
    await letters.add(job(1), "ValueError")
    clock.shift(3600)
    for number in (2, 3):
        await letters.add(job(number), "ValueError")
    await letters.purge(clock.now() - timedelta(minutes=1))
    assert [each.job.priority for each in await letters.newest()] == [3, 2]
    for number in (4, 5):
        await letters.add(job(number), "ValueError")
    await letters.purge(clock.now() - timedelta(minutes=1))
    assert [each.job.priority for each in await letters.newest()] == [5, 4, 3]
