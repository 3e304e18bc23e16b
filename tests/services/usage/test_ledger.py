"""The usage ledger: everything once, whatever the database does, and never in anybody's way."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import date, timedelta
from pathlib import Path

import pytest
from pydantic_ai.usage import RequestUsage
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from core.config.providers import Price, ProviderKind, ProviderSettings
from core.db.database import Database
from core.db.tables import UsageDayRow, UsageRequestRow
from core.errors import StorageError
from services.llm.request import RequestSpec
from services.llm.usage.report import RequestEnd, RequestReport, TokenUse
from services.usage.ledger import REQUEST_RETENTION, SUM_RETENTION, WRITE_BATCH, LedgerTiming, UsageLedger
from services.usage.totals import UsageTotal, UsageTotals
from tests.support.clock import ManualClock
from tests.support.llm_harness import eventually

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


def accounts(database: Database, clock: ManualClock) -> UsageTotals:
    """What is in the database, and not in a ledger yet."""
    return UsageTotals(database, UsageLedger(database, clock), clock)


async def test_sums_of_askers_chats_and_providers(database: Database, clock: ManualClock) -> None:
    """On both engines; costs are exact."""
    ledger = UsageLedger(database, clock)
    ledger.count(report(clock))
    ledger.count(report(clock, chat="telegram:-100"))
    ledger.count(report(clock, OWN, speaker="telegram:8", chat="telegram:-100", estimated=True))
    ledger.count(report(clock, failed=True))
    ledger.count(report(clock, OWN, speaker=None, chat=None))
    assert await ledger.flush()
    read = accounts(database, clock)
    # 100 tokens at a dollar a million and 10 at ten dollars: 0.0002 dollars.
    assert await read.of_speaker("telegram:7", TODAY) == UsageTotal(3, 2, 1, 0, 0, 200, 20, 0.0004)
    assert await read.of_chat("telegram:-100", TODAY) == UsageTotal(2, 2, 0, 1, 0, 200, 20, 0.0002)
    assert await read.by_provider(TODAY) == {
        "paid": UsageTotal(3, 2, 1, 0, 0, 200, 20, 0.0004),
        "own": UsageTotal(2, 2, 0, 1, 0, 200, 20, 0.0),
    }
    assert await read.of_speaker("telegram:9", TODAY) == UsageTotal()
    assert await requests(database) == 5


async def test_days_are_apart(database: Database, clock: ManualClock) -> None:
    """Each is the day in UTC on which the request was over."""
    ledger = UsageLedger(database, clock)
    ledger.count(report(clock))
    clock.shift(16 * 3600 - 1)  # 23:59:59
    ledger.count(report(clock))
    clock.shift(1)
    ledger.count(report(clock))
    await ledger.flush()
    read = accounts(database, clock)
    assert (await read.of_speaker("telegram:7", date(2027, 1, 16))).requests == 1
    assert (await read.of_speaker("telegram:7", TODAY)).requests == 3
    assert read.today == date(2027, 1, 16)


async def test_replicas_add_up(database: Database, replica: Database, clock: ManualClock) -> None:
    """Both write the same rows at the same time."""
    ledgers = [UsageLedger(database, clock), UsageLedger(replica, clock)]
    for _ in range(50):
        for ledger in ledgers:
            ledger.count(report(clock))
            ledger.count(report(clock, OWN, failed=True))
    assert all(await asyncio.gather(*(ledger.flush() for ledger in ledgers)))
    sums = await accounts(database, clock).by_provider(TODAY)
    assert (sums["paid"].requests, sums["own"].failures) == (100, 100)
    assert sums["paid"].cost_usd == pytest.approx(0.02)


class Forgetful(Database):
    """A database whose answer to a commit is lost, once."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.forgets = True

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        async with super().session() as session:
            yield session
        if self.forgets:
            self.forgets = False
            raise StorageError("the database failed: it is unreachable")


async def test_a_commit_that_nobody_heard_of_counts_once(
    database: Database, database_url: str, clock: ManualClock
) -> None:
    """What is written again is recognised by its id."""
    forgetful = Forgetful(database_url)
    ledger = UsageLedger(forgetful, clock)
    ledger.count(report(clock))
    assert not await ledger.flush()
    ledger.count(report(clock))
    assert await ledger.flush()
    await forgetful.close()
    assert (await accounts(database, clock).of_speaker("telegram:7", TODAY)).requests == 2
    assert await requests(database) == 2


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[Database]:
    """A file that gives up soon when it is locked."""
    database = Database(f"sqlite:///{tmp_path / 'test.db'}", busy_timeout_s=0.05)
    await database.start()
    yield database
    await database.close()


async def test_what_a_database_does_not_take_waits_for_it(file: Database, tmp_path: Path, clock: ManualClock) -> None:
    """Counting goes on meanwhile; it is told once."""
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
    assert (await accounts(file, clock).of_speaker("telegram:7", TODAY)).requests == 2


async def test_what_waits_is_bounded(file: Database, clock: ManualClock) -> None:
    """The oldest give way, and that is said."""
    ledger = UsageLedger(file, clock, limit=3)
    for number in range(5):
        ledger.count(report(clock, tokens=(number, 0)))
    with capture_logs() as logs:
        assert await ledger.flush()
    assert [(entry["event"], entry["requests"]) for entry in logs] == [("usage.lost", 2)]
    assert (await accounts(file, clock).of_speaker("telegram:7", TODAY)).input_tokens == 2 + 3 + 4


async def test_more_than_a_batch_is_written(file: Database, clock: ManualClock) -> None:
    """In several statements, since one takes only so many values."""
    ledger = UsageLedger(file, clock)
    for _ in range(2 * WRITE_BATCH + 1):
        ledger.count(report(clock))
    assert await ledger.flush()
    assert await requests(file) == 2 * WRITE_BATCH + 1


async def test_what_a_database_never_takes_does_not_keep_the_rest_waiting(
    file: Database, tmp_path: Path, clock: ManualClock
) -> None:
    """One request is dropped, which is said; the others of its batch are written."""
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
    assert (await accounts(file, clock).by_provider(TODAY)).keys() == {"paid"}


async def test_absurd_counts_of_a_server_are_taken(database: Database, clock: ManualClock) -> None:
    """No column holds them."""
    ledger = UsageLedger(database, clock)
    ledger.count(report(clock, tokens=(10**30, -5)))
    assert await ledger.flush()
    used = await accounts(database, clock).of_speaker("telegram:7", TODAY)
    assert used.requests == 1
    assert used.output_tokens == 0


async def test_it_is_written_behind(file: Database, clock: ManualClock) -> None:
    """By its own task, a moment later and together."""
    ledger = UsageLedger(file, clock)
    await ledger.start()
    try:
        ledger.count(report(clock))
        ledger.count(report(clock))
        await clock.advance(TIMING.write_delay_s / 2)
        assert await requests(file) == 0
        await clock.advance(TIMING.write_delay_s)
        async with asyncio.timeout(5):
            while await requests(file) < 2:  # noqa: ASYNC110 - a database has no event for it
                await asyncio.sleep(0.005)
    finally:
        await ledger.close()


async def test_it_comes_back_by_itself_when_the_database_does(
    file: Database, tmp_path: Path, clock: ManualClock
) -> None:
    """After a rest."""

    async def told(event: str) -> None:
        async with asyncio.timeout(5):
            while not any(entry["event"] == event for entry in logs):
                await clock.advance(TIMING.write_delay_s)
                await asyncio.sleep(0.005)

    ledger = UsageLedger(file, clock)
    await ledger.start()
    with closing(sqlite3.connect(tmp_path / "test.db")) as other, capture_logs() as logs:
        other.execute("BEGIN EXCLUSIVE")
        ledger.count(report(clock))
        await told("usage.write_failed")
        other.rollback()
        failed_at = clock.monotonic()
        await told("usage.backlog_flushed")
        assert clock.monotonic() - failed_at >= TIMING.retry.first_s - TIMING.write_delay_s
    await ledger.close()
    assert await requests(file) == 1


async def test_a_shutdown_writes_what_waits(file: Database, clock: ManualClock) -> None:
    """And ends both tasks."""
    ledger = UsageLedger(file, clock)
    await ledger.start()
    ledger.count(report(clock))
    await ledger.close()
    assert await requests(file) == 1
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("usage.")]


async def test_single_requests_are_swept_and_sums_are_kept(database: Database, clock: ManualClock) -> None:
    """After their time, and not before."""
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


async def test_sums_of_a_day_are_kept_for_more_than_a_year(database: Database, clock: ManualClock) -> None:
    """Otherwise a row a day for each person, chat and model would stay for ever."""
    ledger = UsageLedger(database, clock)
    for _ in range(2):
        ledger.count(report(clock))
        await ledger.flush()
        clock.shift(timedelta(days=1).total_seconds())
    clock.shift((SUM_RETENTION - timedelta(days=1)).total_seconds())
    await ledger.sweep()
    async with database.reading() as session:
        assert (await session.scalars(select(UsageDayRow.day))).all() == [TODAY + timedelta(days=1)]


async def test_it_sweeps_by_itself_once_a_day(file: Database, clock: ManualClock) -> None:
    """At its start, and a day later."""
    ledger = UsageLedger(file, clock)
    with capture_logs() as logs:
        await ledger.start()
        swept = [entry for entry in logs if entry["event"] == "usage.swept"]
        await eventually(lambda: len([e for e in logs if e["event"] == "usage.swept"]) == 1)
        await clock.advance(TIMING.sweep_interval_s)
        await eventually(lambda: len([e for e in logs if e["event"] == "usage.swept"]) == 2)
        await ledger.close()
    assert swept == []


async def test_who_asks_reads_what_was_counted_a_moment_ago(file: Database, clock: ManualClock) -> None:
    """Without waiting for the task."""
    ledger = UsageLedger(file, clock)
    ledger.count(report(clock))
    assert (await UsageTotals(file, ledger, clock).of_speaker("telegram:7", TODAY)).answers == 1
