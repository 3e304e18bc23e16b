"""DeadLetters and CrashCounter, over restarts and replicas."""

import asyncio
from datetime import timedelta

import pytest

from core.db.database import Database
from services.inbox.dead_letters import CrashCounter, DeadLetters
from services.inbox.job import LARGEST_PRIORITY, Job
from tests.support.clock import ManualClock

pytestmark = pytest.mark.integration


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


async def test_restarts_and_isolated_runs_are_counted_separately(
    database: Database, replica: Database, clock: ManualClock
) -> None:
    first, second = CrashCounter(database, clock), CrashCounter(replica, clock)
    assert [await first.count_restart("job"), await second.count_restart("job")] == [1, 2]
    assert [await second.count_isolated("job"), await first.count_isolated("job")] == [1, 2]
    assert await first.count_restart("job") == 3
    assert await first.count_restart("another") == 1


async def test_concurrent_restarts_are_all_counted(database: Database, clock: ManualClock) -> None:
    counts = CrashCounter(database, clock)
    counted = await asyncio.gather(*(counts.count_restart("job") for _ in range(10)))
    assert sorted(counted) == list(range(1, 11))


async def test_clear_resets_the_count(database: Database, clock: ManualClock) -> None:
    counts = CrashCounter(database, clock)
    await counts.count_restart("job")
    await counts.clear("job")
    assert await counts.count_restart("job") == 1


async def test_isolated_run_of_an_uncounted_job_is_the_first(database: Database, clock: ManualClock) -> None:
    """Its restart could not be counted because the database was unavailable."""
    assert await CrashCounter(database, clock).count_isolated("job") == 1


async def test_purge_deletes_counts_that_stopped_changing(database: Database, clock: ManualClock) -> None:
    counts = CrashCounter(database, clock)
    await counts.count_restart("old")
    await counts.count_restart("old, but restarted since")
    clock.shift(3600)
    await counts.count_restart("old, but restarted since")
    await counts.purge(clock.now() - timedelta(minutes=1))
    assert await counts.count_restart("old") == 1
    assert await counts.count_restart("old, but restarted since") == 3
