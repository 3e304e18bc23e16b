"""Jobs that were given up."""

from datetime import timedelta

import pytest

from core.db.database import Database
from services.inbox import dead_letters as module
from services.inbox.dead_letters import DeadLetters
from services.inbox.job import LARGEST_PRIORITY, Job
from tests.support.clock import ManualClock


def job(number: int) -> Job:
    return Job(f"tg-42-{number:012d}", "telegram:7", number, '{"text": "\\u0000 \\ud83d"}')


async def test_a_letter_is_kept_as_the_job_was(database: Database, replica: Database, clock: ManualClock) -> None:
    """Once, whoever gives it up, and seen from every replica."""
    first, second = DeadLetters(database, clock), DeadLetters(replica, clock)
    kept = job(LARGEST_PRIORITY)
    assert await first.add(kept, "ValueError")
    assert not await second.add(kept, "TypeError")
    [letter] = await second.newest()
    assert (letter.job, letter.reason, letter.failed_at) == (kept, "ValueError", clock.now())
    assert await first.get(letter.id) == letter
    assert await first.get(letter.id + 1) is None


async def test_the_newest_come_first(database: Database, clock: ManualClock) -> None:
    letters = DeadLetters(database, clock)
    for number in range(1, 6):
        await letters.add(job(number), "ValueError")
    assert [each.job.priority for each in await letters.newest(3)] == [5, 4, 3]


async def test_one_is_dropped_once(database: Database, clock: ManualClock) -> None:
    letters = DeadLetters(database, clock)
    await letters.add(job(1), "ValueError")
    [letter] = await letters.newest()
    assert [await letters.drop(letter.id), await letters.drop(letter.id)] == [True, False]
    assert await letters.newest() == []


async def test_the_old_and_those_beyond_so_many_are_forgotten(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 3)
    letters = DeadLetters(database, clock)
    await letters.add(job(1), "ValueError")
    clock.shift(3600)
    for number in (2, 3):
        await letters.add(job(number), "ValueError")
    await letters.forget(clock.now() - timedelta(minutes=1))
    assert [each.job.priority for each in await letters.newest()] == [3, 2]
    for number in (4, 5):
        await letters.add(job(number), "ValueError")
    await letters.forget(clock.now() - timedelta(minutes=1))
    assert [each.job.priority for each in await letters.newest()] == [5, 4, 3]
