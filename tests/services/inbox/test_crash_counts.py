"""How often a job was begun, over all lives and replicas."""

import asyncio
from datetime import timedelta

from core.db.database import Database
from services.inbox.crash_counts import CrashCounter
from tests.support.clock import ManualClock


async def test_begun_again_and_alone_are_counted_apart(
    database: Database, replica: Database, clock: ManualClock
) -> None:
    first, second = CrashCounter(database, clock), CrashCounter(replica, clock)
    assert [await first.begin_again("job"), await second.begin_again("job")] == [1, 2]
    assert [await second.begin_alone("job"), await first.begin_alone("job")] == [1, 2]
    assert await first.begin_again("job") == 3
    assert await first.begin_again("another") == 1


async def test_at_once_none_is_left_out(database: Database, clock: ManualClock) -> None:
    attempts = CrashCounter(database, clock)
    counted = await asyncio.gather(*(attempts.begin_again("job") for _ in range(10)))
    assert sorted(counted) == list(range(1, 11))


async def test_one_that_came_to_its_end_is_forgotten(database: Database, clock: ManualClock) -> None:
    attempts = CrashCounter(database, clock)
    await attempts.begin_again("job")
    await attempts.forget("job")
    assert await attempts.begin_again("job") == 1


async def test_one_that_nobody_knows_is_alone_for_the_first_time(database: Database, clock: ManualClock) -> None:
    """The database failed when it was to be counted."""
    assert await CrashCounter(database, clock).begin_alone("job") == 1


async def test_what_nobody_begins_any_more_is_forgotten(database: Database, clock: ManualClock) -> None:
    attempts = CrashCounter(database, clock)
    await attempts.begin_again("old")
    await attempts.begin_again("old, but begun since")
    clock.shift(3600)
    await attempts.begin_again("old, but begun since")
    await attempts.forget_older(clock.now() - timedelta(minutes=1))
    assert await attempts.begin_again("old") == 1
    assert await attempts.begin_again("old, but begun since") == 3
