"""Usage ledger: records each request to a provider once, written in the background so that no answer waits for it."""

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import count

import structlog
from sqlalchemy import Connection, delete, select

from core.background import BackgroundTasks
from core.clock import Backoff, Clock
from core.db.database import Database
from core.db.usage_tables import UsageDayRow, UsageRequestRow
from core.errors import StorageError
from services.history import figures
from services.history.figures import Figure, FigureHistory
from services.llm.usage import RequestReport
from services.usage.prices import NANO, Prices

log = structlog.get_logger()

BACKLOG_LIMIT = 10_000
"""Maximum number of requests that wait for the database; beyond it the oldest are dropped."""
WRITE_BATCH = 200
SWEEP_BATCH = 1000
REQUEST_RETENTION = timedelta(days=90)
SUM_RETENTION = timedelta(days=400)
"""Retention of daily sums: a month can be compared with the same month of the year before."""
LARGEST_COUNT = 10**13
"""Upper bound of tokens of a request, and of its cost in billionths of a dollar; leaves room for sums of many."""

_SUMS = (
    "requests",
    "answers",
    "failures",
    "estimated",
    "unpriced",
    "input_tokens",
    "output_tokens",
    "cost_nanousd",
)
_KEY = ("day", "speaker", "chat", "provider", "model", "purpose")


@dataclass(frozen=True, slots=True)
class LedgerTiming:
    """Intervals of the background work, in seconds.

    Args:
        write_delay_s: delay of a write, so that requests are written in batches.
        retry: delays after a failure of the database.
        last_write_s: timeout of the last write at shutdown.
    """

    write_delay_s: float = 1.0
    retry: Backoff = Backoff(5.0, 60.0)
    last_write_s: float = 3.0
    sweep_interval_s: float = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Entry:
    """A request to be written; the id makes the write idempotent."""

    id: str
    report: RequestReport


class UsageLedger:
    """Records requests.

    Args:
        history: metrics history of the providers, downsampled daily.
        count_cost: counts the cost in USD of a request that was written, by provider and model.
        limit: maximum number of requests that wait for the database.
        zone: the days of the sums start at its midnight.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        prices: Prices | None = None,
        *,
        history: FigureHistory | None = None,
        count_cost: Callable[[str, str, float], None] | None = None,
        limit: int = BACKLOG_LIMIT,
        timing: LedgerTiming | None = None,
        zone: tzinfo = UTC,
    ) -> None:
        self._database = database
        self._clock = clock
        self._prices = prices or Prices()
        self._zone = zone
        self._history = history or FigureHistory(database, clock, zone)
        self._count_cost = count_cost
        self._timing = timing or LedgerTiming()
        self._pending: deque[_Entry] = deque(maxlen=limit)
        self._limit = limit
        self._lost = 0
        self._boot = uuid.uuid4().hex
        self._sequence = count(1)
        self._has_pending = asyncio.Event()
        self._write_lock = asyncio.Lock()
        self._is_down = False
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Starts the background writer and the daily sweep."""
        self._tasks.start(self._write_behind(), "usage.write")
        self._tasks.start(self._sweep_daily(), "usage.sweep")

    async def close(self) -> None:
        """Writes the backlog, if the database accepts it, and stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timing.last_write_s):
                # Cancelled under the lock, so that no statement is cut off.
                async with self._write_lock:
                    await self._tasks.close()
                await self.flush()
        await self._tasks.close()
        if self._pending:
            log.error("usage.lost", requests=len(self._pending))

    def count(self, report: RequestReport) -> None:
        """Queues a request, in memory."""
        if len(self._pending) == self._limit:
            self._lost += 1
        self._pending.append(_Entry(f"{self._boot}-{next(self._sequence)}", report))
        self._has_pending.set()

    async def flush(self) -> bool:
        """Writes the backlog, as far as the database accepts it. Returns whether nothing is left."""
        async with self._write_lock:
            while self._pending:
                batch = [self._pending[index] for index in range(min(WRITE_BATCH, len(self._pending)))]
                try:
                    await self._write(batch)
                except StorageError as error:
                    self._report_failure(error)
                    return False
                written = {entry.id for entry in batch}
                # Some may have been dropped for newer ones during the write.
                while self._pending and self._pending[0].id in written:
                    self._pending.popleft()
            self._has_pending.clear()
            self._report_recovery()
            return True

    async def sweep(self) -> int:
        """Deletes sums and requests beyond their retention, in batches. Returns the number of deleted requests.

        Raises:
            StorageError: the database fails.
        """
        # Usually one day's, since this runs daily.
        last = (self._clock.now() - SUM_RETENTION).date()
        async with self._write_lock, self._database.session() as session:
            await session.execute(delete(UsageDayRow).where(UsageDayRow.day < last))
        before = self._clock.now() - REQUEST_RETENTION
        old = select(UsageRequestRow.id).where(UsageRequestRow.at < before).limit(SWEEP_BATCH)
        deleted = 0
        while True:
            async with self._write_lock:
                # Usually there is nothing to delete, and no reason to block other writers.
                async with self._database.reading() as session:
                    found = (await session.scalars(old)).all()
                if not found:
                    return deleted
                async with self._database.session() as session:
                    await session.execute(delete(UsageRequestRow).where(UsageRequestRow.id.in_(found)))
            deleted += len(found)

    async def _write_behind(self) -> None:
        failures = 0
        while True:
            await self._has_pending.wait()
            await self._clock.sleep(self._timing.write_delay_s)
            if await self.flush():
                failures = 0
            else:
                failures += 1
                await self._clock.sleep(self._timing.retry.pause_s(failures))

    async def _sweep_daily(self) -> None:
        while True:
            try:
                deleted = await self.sweep()
                await self._history.thin()
                if deleted:
                    log.info("usage.swept", requests=deleted)
            except StorageError as error:
                log.warning("usage.sweep_failed", error=str(error))
            await self._clock.sleep(self._timing.sweep_interval_s)

    async def _write(self, batch: Sequence[_Entry]) -> None:
        """Writes a batch. A request that the database will never accept is dropped, so that it blocks no others.

        Raises:
            StorageError: the database rejects everything at the moment.
        """
        # The price library reads its data on first use, which takes a while.
        rows = await asyncio.to_thread(lambda: [self._row(entry) for entry in batch])
        try:
            await self._insert(rows, {entry.id: entry.report.first_output_s for entry in batch})
        except StorageError as error:
            if not error.permanent:
                raise
            if len(batch) == 1:
                log.error("usage.write_rejected", provider=batch[0].report.provider.id, error=str(error))
                return
            for entry in batch:
                await self._write([entry])
            return
        if self._count_cost is not None:
            for row in rows:
                if row.cost_nanousd is not None:
                    self._count_cost(row.provider, row.model, row.cost_nanousd / NANO)

    def _row(self, entry: _Entry) -> UsageRequestRow:
        report = entry.report
        cost = self._prices.cost_nanousd(report)
        return UsageRequestRow(
            id=entry.id,
            at=datetime.fromtimestamp(report.at, UTC),
            speaker=report.spec.user,
            chat=report.spec.chat,
            provider=report.provider.id,
            model=report.model,
            purpose=report.spec.purpose,
            end=report.end.value,
            is_answer=report.used.is_answer,
            is_failure=report.is_failure,
            is_estimated=report.used.is_estimated,
            input_tokens=_clamp(report.used.usage.input_tokens),
            output_tokens=_clamp(report.used.usage.output_tokens),
            cost_nanousd=None if cost is None else _clamp(cost),
        )

    async def _insert(self, rows: Sequence[UsageRequestRow], first_outputs: Mapping[str, float | None]) -> None:
        """Writes requests, sums and figures in one transaction. A request that exists is part of the sums already.

        Without this check, a retry of a commit without its confirmation would count the requests twice.
        """
        columns = [column.key for column in UsageRequestRow.__table__.columns]
        values = [{name: getattr(row, name) for name in columns} for row in rows]
        insert = self._database.insert(UsageRequestRow).values(values)
        insert_new = insert.on_conflict_do_nothing().returning(UsageRequestRow.id)

        def work(connection: Connection) -> None:
            new = frozenset(connection.scalars(insert_new))
            added = [row for row in rows if row.id in new]
            self._add_up(connection, added)
            figures.write(self._database, connection, _figures(added, first_outputs))

        await self._database.run(work)

    def _add_up(self, connection: Connection, rows: Sequence[UsageRequestRow]) -> None:
        sums: dict[tuple[object, ...], list[int]] = {}
        for row in rows:
            day = row.at.astimezone(self._zone).date()
            key = (day, row.speaker or "", row.chat or "", row.provider, row.model, row.purpose)
            cost = row.cost_nanousd
            counted = (1, row.is_answer, row.is_failure, row.is_estimated, cost is None)
            numbers = [*map(int, counted), row.input_tokens, row.output_tokens, cost or 0]
            known = sums.get(key)
            sums[key] = numbers if known is None else [a + b for a, b in zip(known, numbers, strict=True)]
        if not sums:
            return
        # Always in the same order, so that replicas that write the same rows do not deadlock.
        values = [dict(zip((*_KEY, *_SUMS), (*key, *sums[key]), strict=True)) for key in sorted(sums, key=repr)]
        insert = self._database.insert(UsageDayRow).values(values)
        added = {name: getattr(UsageDayRow, name) + insert.excluded[name] for name in _SUMS}
        connection.execute(insert.on_conflict_do_update(index_elements=list(_KEY), set_=added))

    def _report_failure(self, error: StorageError) -> None:
        if not self._is_down:
            self._is_down = True
            log.error("usage.write_failed", pending=len(self._pending), error=str(error))

    def _report_recovery(self) -> None:
        if self._is_down:
            self._is_down = False
            log.info("usage.backlog_flushed")
        if self._lost:
            log.error("usage.lost", requests=self._lost)
            self._lost = 0


def _figures(rows: Sequence[UsageRequestRow], first_outputs: Mapping[str, float | None]) -> figures.Sums:
    sums: figures.Sums = {}
    for row in rows:
        at, provider, seconds = row.at.timestamp(), row.provider, first_outputs[row.id]
        figures.add(sums, at, provider, Figure.REQUESTS, 1)
        figures.add(sums, at, provider, Figure.FAILURES, int(row.is_failure))
        figures.add(sums, at, provider, Figure.UNPRICED, int(row.cost_nanousd is None))
        figures.add(sums, at, provider, Figure.COST, row.cost_nanousd or 0)
        if seconds is not None:
            figures.add(sums, at, provider, f"{figures.FIRST_OUTPUT}{figures.bucket(seconds)}", 1)
    return sums


def _clamp(number: int) -> int:
    """Clamps a count to the range of a column: some servers report nonsense."""
    return max(0, min(number, LARGEST_COUNT))
