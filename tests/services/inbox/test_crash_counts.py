"""CrashCounter, over restarts and replicas."""

import asyncio
from datetime import timedelta

from core.db.database import Database
from services.inbox.crash_counts import CrashCounter
from tests.support.clock import ManualClock


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
