"""Usage ledger: records each request to a provider once, written in the background so that no answer waits for it."""

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

import structlog
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.background import BackgroundTasks
from core.backoff import Backoff
from core.clock import Clock
from core.db.database import Database
from core.db.tables import UsageDayRow, UsageRequestRow
from core.errors import StorageError
from services.llm.usage.report import RequestReport
from services.usage.prices import Prices

log = structlog.get_logger()

LIMIT = 10_000
"""Requests that may wait for the database; the oldest are dropped."""
BATCH = 200
PAUSE_S = 1.0
"""Requests of this period are written together."""
RETRY = Backoff(5.0, 60.0)
"""Pauses after the database failed."""
LAST_WRITE_S = 3.0
"""Time that a shutdown waits for the last write."""
KEPT = timedelta(days=90)
"""Retention of single requests."""
SUMS_KEPT = timedelta(days=400)
"""Retention of daily sums: a month can be compared with the same month of the year before."""
SWEEP_S = 24 * 3600.0
SWEPT_AT_ONCE = 1000
LARGEST = 10**13
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
class _Entry:
    """A request that waits to be written; its id tells whether it was written already."""

    id: str
    report: RequestReport


class UsageLedger:
    """Records requests.

    Args:
        limit: requests that may wait for the database.
    """

    def __init__(self, database: Database, clock: Clock, prices: Prices | None = None, limit: int = LIMIT) -> None:
        self._database = database
        self._clock = clock
        self._prices = prices or Prices()
        self._waiting: deque[_Entry] = deque(maxlen=limit)
        self._limit = limit
        self._lost = 0
        self._boot = uuid.uuid4().hex
        self._numbers = count(1)
        self._some = asyncio.Event()
        self._writing = asyncio.Lock()
        self._is_down = False
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Start the background writer and the daily sweep."""
        self._tasks.start(self._write_behind(), "usage.write")
        self._tasks.start(self._sweep_daily(), "usage.sweep")

    async def close(self) -> None:
        """Write what waits, if the database accepts it, and stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE_S):
                # Not during a statement: the tasks are idle while the lock is held here.
                async with self._writing:
                    await self._tasks.close()
                await self.flush()
        await self._tasks.close()
        if self._waiting:
            log.error("usage.lost", requests=len(self._waiting))

    def count(self, report: RequestReport) -> None:
        """Queue a request, in memory."""
        if len(self._waiting) == self._limit:
            self._lost += 1
        self._waiting.append(_Entry(f"{self._boot}-{next(self._numbers)}", report))
        self._some.set()

    async def flush(self) -> bool:
        """Write what waits, as far as the database accepts it. Returns whether nothing is left."""
        async with self._writing:
            while self._waiting:
                batch = [self._waiting[index] for index in range(min(BATCH, len(self._waiting)))]
                try:
                    await self._write(batch)
                except StorageError as error:
                    self._failed(error)
                    return False
                written = {entry.id for entry in batch}
                # Some may have been dropped for newer ones during the write.
                while self._waiting and self._waiting[0].id in written:
                    self._waiting.popleft()
            self._some.clear()
            self._recovered()
            return True

    async def sweep(self) -> int:
        """Delete what has passed its retention, single requests in batches. Returns how many of those were deleted.

        Raises:
            StorageError: the database fails.
        """
        # Usually one day's, since this runs daily.
        last = (self._clock.now() - SUMS_KEPT).date()
        async with self._writing, self._database.session() as session:
            await session.execute(delete(UsageDayRow).where(UsageDayRow.day < last))
        before = self._clock.now() - KEPT
        old = select(UsageRequestRow.id).where(UsageRequestRow.at < before).limit(SWEPT_AT_ONCE)
        dropped = 0
        while True:
            async with self._writing:
                # Usually there is nothing to delete, and no reason to block other writers.
                async with self._database.reading() as session:
                    found = (await session.scalars(old)).all()
                if not found:
                    return dropped
                async with self._database.session() as session:
                    await session.execute(delete(UsageRequestRow).where(UsageRequestRow.id.in_(found)))
            dropped += len(found)

    async def _write_behind(self) -> None:
        failures = 0
        while True:
            await self._some.wait()
            await self._clock.sleep(PAUSE_S)
            if await self.flush():
                failures = 0
            else:
                failures += 1
                await self._clock.sleep(RETRY.pause_s(failures))

    async def _sweep_daily(self) -> None:
        while True:
            try:
                dropped = await self.sweep()
                log.info("usage.swept", requests=dropped)
            except StorageError as error:
                log.warning("usage.sweep_failed", error=str(error))
            await self._clock.sleep(SWEEP_S)

    async def _write(self, batch: Sequence[_Entry]) -> None:
        """Write a batch. A request that the database will never accept is dropped, so that it blocks no others.

        Raises:
            StorageError: the database rejects everything at the moment.
        """
        # The price library reads its data on first use, which takes a while.
        rows = await asyncio.to_thread(lambda: [self._row(entry) for entry in batch])
        try:
            await self._insert(rows)
        except StorageError as error:
            if not error.permanent:
                raise
            if len(batch) == 1:
                log.error("usage.write_rejected", provider=batch[0].report.provider.id, error=str(error))  # noqa: TRY400 - the reason says it all
                return
            for entry in batch:
                await self._write([entry])

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
            input_tokens=_sane(report.used.usage.input_tokens),
            output_tokens=_sane(report.used.usage.output_tokens),
            cost_nanousd=None if cost is None else _sane(cost),
        )

    async def _insert(self, rows: Sequence[UsageRequestRow]) -> None:
        """Write requests and sums in one transaction. A request that exists already is part of the sums already.

        A commit whose confirmation is lost is retried; without this check it would count twice.
        """
        columns = [column.key for column in UsageRequestRow.__table__.columns]
        values = [{name: getattr(row, name) for name in columns} for row in rows]
        insert = self._database.insert(UsageRequestRow).values(values)
        async with self._database.session() as session:
            taken = await session.scalars(insert.on_conflict_do_nothing().returning(UsageRequestRow.id))
            new = frozenset(taken)
            await self._add_up(session, [row for row in rows if row.id in new])

    async def _add_up(self, session: AsyncSession, rows: Sequence[UsageRequestRow]) -> None:
        sums: dict[tuple[object, ...], list[int]] = {}
        for row in rows:
            key = (row.at.date(), row.speaker or "", row.chat or "", row.provider, row.model, row.purpose)
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
        await session.execute(insert.on_conflict_do_update(index_elements=list(_KEY), set_=added))

    def _failed(self, error: StorageError) -> None:
        if not self._is_down:
            self._is_down = True
            log.error("usage.write_failed", waiting=len(self._waiting), error=str(error))

    def _recovered(self) -> None:
        if self._is_down:
            self._is_down = False
            log.info("usage.backlog_flushed")
        if self._lost:
            log.error("usage.lost", requests=self._lost)
            self._lost = 0


def _sane(number: int) -> int:
    """Clamp a count to what a column holds: some servers report nonsense."""
    return max(0, min(number, LARGEST))
