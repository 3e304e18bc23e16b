"""Usage ledger: idempotent writes, outages, sums and retention."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

import pytest
from pydantic_ai.usage import RequestUsage
from sqlalchemy import Connection, func, select
from structlog.testing import capture_logs

from core.config.providers import Price, ProviderKind, ProviderSettings
from core.db.database import Database
from core.db.usage_tables import UsageDayRow, UsageRequestRow
from core.errors import StorageError
from services.llm.request import RequestSpec
from services.llm.usage import RequestEnd, RequestReport, TokenUse
from services.usage.ledger import REQUEST_RETENTION, SUM_RETENTION, WRITE_BATCH, LedgerTiming, UsageLedger
from services.usage.totals import UsageTotal, UsageTotals
from tests.support.clock import ManualClock
from tests.support.llm_harness import eventually

pytestmark = pytest.mark.integration

T = TypeVar("T")

PAID = ProviderSettings(
    id="paid",
    kind=ProviderKind.OPENAI_COMPATIBLE,
    models=("m",),
    base_url="https://llm.example.org/v1",
    prices={"m": Price(1.0, 10.0)},
)
OWN = ProviderSettings(id="own", kind=ProviderKind.OLLAMA, models=("m",), remote=False)
TODAY = date(2027, 1, 15)
TIMING = LedgerTiming()


def report(
    clock: ManualClock,
    provider: ProviderSettings = PAID,
    *,
    speaker: str | None = "telegram:7",
    chat: str | None = "telegram:7",
    tokens: tuple[int, int] = (100, 10),
    failed: bool = False,
    estimated: bool = False,
) -> RequestReport:
    usage = RequestUsage() if failed else RequestUsage(input_tokens=tokens[0], output_tokens=tokens[1])
    return RequestReport(
        at=clock.time(),
        provider=provider,
        model="m",
        spec=RequestSpec("chat", user=speaker, chat=chat),
        end=RequestEnd.FAILED if failed else RequestEnd.ANSWERED,
        is_failure=failed,
        used=TokenUse(usage, is_estimated=estimated, is_answer=not failed),
    )


async def requests(database: Database) -> int:
    async with database.reading() as session:
        return (await session.scalars(select(func.count()).select_from(UsageRequestRow))).one()


def stored_totals(database: Database, clock: ManualClock) -> UsageTotals:
    """Return the totals of the database, without the backlog of a ledger."""
    return UsageTotals(database, UsageLedger(database, clock), clock)


async def test_totals_sum_by_user_chat_and_provider(database: Database, clock: ManualClock) -> None:
    """Costs are exact."""
    ledger = UsageLedger(database, clock)
    ledger.count(report(clock))
    ledger.count(report(clock, chat="telegram:-100"))
    ledger.count(report(clock, OWN, speaker="telegram:8", chat="telegram:-100", estimated=True))
    ledger.count(report(clock, failed=True))
    ledger.count(report(clock, OWN, speaker=None, chat=None))
    assert await ledger.flush()
    read = stored_totals(database, clock)
    # 100 tokens at a dollar a million and 10 at ten dollars: 0.0002 dollars.
    assert await read.of_speaker("telegram:7", TODAY) == UsageTotal(3, 2, 1, 0, 0, 200, 20, 0.0004)
    assert await read.of_chat("telegram:-100", TODAY) == UsageTotal(2, 2, 0, 1, 0, 200, 20, 0.0002)
    assert await read.by_provider(TODAY) == {
        "paid": UsageTotal(3, 2, 1, 0, 0, 200, 20, 0.0004),
        "own": UsageTotal(2, 2, 0, 1, 0, 200, 20, 0.0),
    }
    assert await read.of_speaker("telegram:9", TODAY) == UsageTotal()
    assert await requests(database) == 5


async def test_cost_is_counted_once_a_request_is_written(database: Database, clock: ManualClock) -> None:
    """As far as its price is known."""
    counted: list[tuple[str, str, float]] = []
    ledger = UsageLedger(database, clock, count_cost=lambda *cost: counted.append(cost))
    for provider in (PAID, OWN, PAID):
        ledger.count(report(clock, provider))
    assert counted == []
    for _ in range(2):
        await ledger.flush()
    assert sorted(counted) == [("own", "m", 0.0), ("paid", "m", 0.0002), ("paid", "m", 0.0002)]


async def test_totals_are_split_by_utc_day(database: Database, clock: ManualClock) -> None:
    """A request counts for the day on which it ended."""
    ledger = UsageLedger(database, clock)
    ledger.count(report(clock))
    clock.shift(16 * 3600 - 1)  # 23:59:59
    ledger.count(report(clock))
    clock.shift(1)
    ledger.count(report(clock))
    await ledger.flush()
    read = stored_totals(database, clock)
    assert (await read.of_speaker("telegram:7", date(2027, 1, 16))).requests == 1
    assert (await read.of_speaker("telegram:7", TODAY)).requests == 3
    assert read.today == date(2027, 1, 16)


async def test_totals_are_split_at_midnight_of_the_time_zone(database: Database, clock: ManualClock) -> None:
    """It is 17:00 in Tokyo."""
    tokyo = ZoneInfo("Asia/Tokyo")
    ledger = UsageLedger(database, clock, zone=tokyo)
    clock.shift(7 * 3600 - 1)  # 23:59:59
    ledger.count(report(clock))
    clock.shift(1)
    ledger.count(report(clock))
    await ledger.flush()
    read = UsageTotals(database, ledger, clock, tokyo)
    assert (await read.of_speaker("telegram:7", date(2027, 1, 15))).requests == 2
    assert (await read.of_speaker("telegram:7", date(2027, 1, 16))).requests == 1
    assert read.today == date(2027, 1, 16)


async def test_concurrent_replicas_add_to_the_same_sums(
    database: Database, replica: Database, clock: ManualClock
) -> None:
    ledgers = [UsageLedger(database, clock), UsageLedger(replica, clock)]
    for _ in range(50):
        for ledger in ledgers:
            ledger.count(report(clock))
            ledger.count(report(clock, OWN, failed=True))
    assert all(await asyncio.gather(*(ledger.flush() for ledger in ledgers)))
    sums = await stored_totals(database, clock).by_provider(TODAY)
    assert (sums["paid"].requests, sums["own"].failures) == (100, 100)
    assert sums["paid"].cost_usd == pytest.approx(0.02)


def lose_confirmation(database: Database) -> None:
    """Commit the next transaction, and fail as if its confirmation were lost."""
    run = database.run

    async def lose(work: Callable[[Connection], T], *, urgent: bool = False, reading: bool = False) -> T:
        await run(work, urgent=urgent, reading=reading)
        database.run = run
        raise StorageError("the database failed: it is unreachable")

    database.run = lose


async def test_flush_counts_once_after_a_lost_commit_confirmation(database: Database, clock: ManualClock) -> None:
    """Entries are recognised by their ids."""
    ledger = UsageLedger(database, clock)
    lose_confirmation(database)
    ledger.count(report(clock))
    assert not await ledger.flush()
    ledger.count(report(clock))
    assert await ledger.flush()
    assert (await stored_totals(database, clock).of_speaker("telegram:7", TODAY)).requests == 2
    assert await requests(database) == 2


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[Database]:
    """A SQLite file with a short busy timeout."""
    database = Database(f"sqlite:///{tmp_path / 'test.db'}", busy_timeout_s=0.05)
    await database.start()
    yield database
    await database.close()


async def test_flush_keeps_the_backlog_during_an_outage(file: Database, tmp_path: Path, clock: ManualClock) -> None:
    """Counting goes on; failure and recovery are logged once."""
    ledger = UsageLedger(file, clock)
    with capture_logs() as logs, closing(sqlite3.connect(tmp_path / "test.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        ledger.count(report(clock))
        assert not await ledger.flush()
        ledger.count(report(clock))
        assert not await ledger.flush()
        other.rollback()
        assert await ledger.flush()
    assert [entry["event"] for entry in logs] == ["usage.write_failed", "usage.backlog_flushed"]
    assert (await stored_totals(file, clock).of_speaker("telegram:7", TODAY)).requests == 2


async def test_count_drops_the_oldest_beyond_the_limit(file: Database, clock: ManualClock) -> None:
    """The loss is logged."""
    ledger = UsageLedger(file, clock, limit=3)
    for number in range(5):
        ledger.count(report(clock, tokens=(number, 0)))
    with capture_logs() as logs:
        assert await ledger.flush()
    assert [(entry["event"], entry["requests"]) for entry in logs] == [("usage.lost", 2)]
    assert (await stored_totals(file, clock).of_speaker("telegram:7", TODAY)).input_tokens == 2 + 3 + 4


async def test_flush_writes_several_batches(file: Database, clock: ManualClock) -> None:
    """A statement takes a limited number of values."""
    ledger = UsageLedger(file, clock)
    for _ in range(2 * WRITE_BATCH + 1):
        ledger.count(report(clock))
    assert await ledger.flush()
    assert await requests(file) == 2 * WRITE_BATCH + 1


async def test_flush_drops_a_permanently_rejected_request(file: Database, tmp_path: Path, clock: ManualClock) -> None:
    """It is logged; the others of its batch are written."""
    with closing(sqlite3.connect(tmp_path / "test.db")) as other:
        other.execute(
            "CREATE TRIGGER never BEFORE INSERT ON usage_requests WHEN NEW.provider = 'own' "
            "BEGIN SELECT RAISE(ABORT, 'never'); END"
        )
    ledger = UsageLedger(file, clock)
    for provider in (PAID, OWN, PAID):
        ledger.count(report(clock, provider))
    with capture_logs() as logs:
        assert await ledger.flush()
    assert [entry["event"] for entry in logs] == ["usage.write_rejected"]
    assert (await stored_totals(file, clock).by_provider(TODAY)).keys() == {"paid"}


async def test_flush_clamps_counts_beyond_the_column(database: Database, clock: ManualClock) -> None:
    ledger = UsageLedger(database, clock)
    ledger.count(report(clock, tokens=(10**30, -5)))
    assert await ledger.flush()
    used = await stored_totals(database, clock).of_speaker("telegram:7", TODAY)
    assert used.requests == 1
    assert used.output_tokens == 0


async def test_background_task_writes_after_a_delay(file: Database, clock: ManualClock) -> None:
    """Requests of that period together."""
    ledger = UsageLedger(file, clock)
    await ledger.start()
    try:
        ledger.count(report(clock))
        ledger.count(report(clock))
        await clock.advance(TIMING.write_delay_s / 2)
        assert await requests(file) == 0
        await clock.advance(TIMING.write_delay_s)
        async with asyncio.timeout(5):
            while await requests(file) < 2:
                await asyncio.sleep(0.005)
    finally:
        await ledger.close()


async def test_background_task_resumes_after_an_outage(file: Database, tmp_path: Path, clock: ManualClock) -> None:
    """After a pause."""

    async def wait_for(event: str) -> None:
        async with asyncio.timeout(5):
            while not any(entry["event"] == event for entry in logs):
                await clock.advance(TIMING.write_delay_s)
                await asyncio.sleep(0.005)

    ledger = UsageLedger(file, clock)
    await ledger.start()
    with closing(sqlite3.connect(tmp_path / "test.db")) as other, capture_logs() as logs:
        other.execute("BEGIN EXCLUSIVE")
        ledger.count(report(clock))
        await wait_for("usage.write_failed")
        other.rollback()
        failed_at = clock.monotonic()
        await wait_for("usage.backlog_flushed")
        assert clock.monotonic() - failed_at >= TIMING.retry.first_s - TIMING.write_delay_s
    await ledger.close()
    assert await requests(file) == 1


async def test_close_writes_the_backlog_and_ends_the_tasks(file: Database, clock: ManualClock) -> None:
    ledger = UsageLedger(file, clock)
    await ledger.start()
    ledger.count(report(clock))
    await ledger.close()
    assert await requests(file) == 1
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("usage.")]


async def test_sweep_deletes_old_requests_and_keeps_sums(database: Database, clock: ManualClock) -> None:
    """Not before the end of their retention."""
    ledger = UsageLedger(database, clock)
    ledger.count(report(clock))
    clock.shift(1)
    ledger.count(report(clock))
    await ledger.flush()
    clock.shift(REQUEST_RETENTION.total_seconds())
    assert await ledger.sweep() == 1
    assert await ledger.sweep() == 0
    assert await requests(database) == 1
    async with database.reading() as session:
        assert (await session.scalars(select(UsageDayRow.requests))).all() == [2]


async def test_sweep_deletes_sums_after_400_days(database: Database, clock: ManualClock) -> None:
    """The rows per day, user, chat and model would grow without bound."""
    ledger = UsageLedger(database, clock)
    for _ in range(2):
        ledger.count(report(clock))
        await ledger.flush()
        clock.shift(timedelta(days=1).total_seconds())
    clock.shift((SUM_RETENTION - timedelta(days=1)).total_seconds())
    await ledger.sweep()
    async with database.reading() as session:
        assert (await session.scalars(select(UsageDayRow.day))).all() == [TODAY + timedelta(days=1)]


async def test_background_task_sweeps_at_start_and_daily(file: Database, clock: ManualClock) -> None:
    ledger = UsageLedger(file, clock)
    for _ in range(2):
        ledger.count(report(clock))
        await ledger.flush()
        clock.shift(TIMING.sweep_interval_s / 2)
    clock.shift(REQUEST_RETENTION.total_seconds() - 0.75 * TIMING.sweep_interval_s)
    with capture_logs() as logs:
        await ledger.start()
        await eventually(lambda: [e["requests"] for e in logs if e["event"] == "usage.swept"] == [1])
        await clock.advance(TIMING.sweep_interval_s)
        await eventually(lambda: [e["requests"] for e in logs if e["event"] == "usage.swept"] == [1, 1])
        await clock.advance(TIMING.sweep_interval_s)
        await ledger.close()
    # Nothing was left to delete, and nothing is said about it.
    assert [e["requests"] for e in logs if e["event"] == "usage.swept"] == [1, 1]


async def test_totals_include_the_backlog_of_this_replica(file: Database, clock: ManualClock) -> None:
    """Without waiting for the background task."""
    ledger = UsageLedger(file, clock)
    ledger.count(report(clock))
    assert (await UsageTotals(file, ledger, clock).of_speaker("telegram:7", TODAY)).answers == 1
