"""Metrics of the providers: sums per minute, downsampled to hours and days with age, and the series read from them."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import cache, partial
from typing import Final

from sqlalchemy import Connection, delete, func, select

from core.clock import Clock
from core.db.database import Database
from core.db.usage_tables import ProviderFigureRow
from core.errors import StorageError

MINUTE: Final = 60
QUARTER: Final = 900
HOUR: Final = 3600
DAY: Final = 86_400
NANO: Final = 1_000_000_000

FIRST_OUTPUT: Final = "first:"
"""Prefix of the counts of answers by their time to first output; the bucket follows."""
STATE: Final = "state:"
"""Prefix of the seconds that a provider was in a state; the state follows."""
BUCKETS: Final = tuple(0.05 * 2 ** (number / 2) for number in range(28))
"""Upper bounds of the times to first output, in seconds, from 50 ms to ten minutes. Counts can be summed when they are
thinned; a percentile of them lies in the bucket of the true one."""


class Figure(StrEnum):
    """Figures of a provider beside its times to first output and its states."""

    REQUESTS = "requests"
    FAILURES = "failures"
    UNPRICED = "unpriced"
    COST = "cost_nanousd"
    CHANGES = "changes"
    """Changes of its state."""


Sums = dict[tuple[int, int, str, str], int]
"""Values by step, begin, provider and name."""


@dataclass(frozen=True, slots=True)
class HistoryTiming:
    """Ages of the steps and limits of the history.

    Args:
        minutes: retention of sums per minute, which are then added up by the hour.
        hours: retention of sums per hour, which are then added up by the day.
        days: retention of sums per day.
        cache_s: lifetime of the cached series of a day, in seconds.
        long_cache_s: lifetime of the cached series of a month or a year, in seconds.
        read_s: timeout for reading a series, in seconds.
    """

    minutes: timedelta = timedelta(days=1)
    hours: timedelta = timedelta(days=30)
    days: timedelta = timedelta(days=366)
    cache_s: float = 15.0
    long_cache_s: float = 120.0
    read_s: float = 3.0


class Period(StrEnum):
    """A period that a series covers."""

    DAY = "day"
    MONTH = "month"
    YEAR = "year"

    @property
    def length_s(self) -> int:
        """Its length in seconds."""
        return {Period.DAY: DAY, Period.MONTH: 30 * DAY, Period.YEAR: 365 * DAY}[self]

    @property
    def step_s(self) -> int:
        """The distance of its points in seconds: a quarter of an hour, six hours, a day."""
        return {Period.DAY: QUARTER, Period.MONTH: 6 * HOUR, Period.YEAR: DAY}[self]


@dataclass(frozen=True, slots=True)
class Point:
    """The figures of one provider in one step of a series.

    Args:
        unpriced: requests of unknown price; they are not part of `cost_usd`.
        first_output: counts of answers by bucket.
        states: seconds by state; those of the last day are in the spans.
    """

    requests: int = 0
    failures: int = 0
    unpriced: int = 0
    cost_usd: float = 0.0
    changes: int = 0
    first_output: Mapping[int, int] = field(default_factory=dict[int, int])
    states: Mapping[str, int] = field(default_factory=dict[str, int])

    def first_output_s(self, share: float) -> float | None:
        """Returns a percentile of the times to first output, None without an answer."""
        return percentile(self.first_output, share)


@dataclass(frozen=True, slots=True)
class Series:
    """Points of each provider at `instants`, which are `step_s` apart; the last one is not over yet."""

    instants: Sequence[int]
    step_s: int
    points: Mapping[str, Sequence[Point]]

    def total(self, provider: str) -> Point:
        """Returns the sum of a provider's points."""
        return join_points(self.points.get(provider, ()))

    def combined(self) -> list[Point]:
        """Returns the sums over all providers, by instant."""
        return [join_points([each[index] for each in self.points.values()]) for index in range(len(self.instants))]


def bucket(seconds: float) -> int:
    """Returns the bucket of a time to first output."""
    return next((number for number, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS) - 1)


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """Returns the value below which a share of the counted ones is, None without any."""
    rank, below = share * sum(counts.values()), 0
    for number in sorted(counts):
        if below + counts[number] >= rank and counts[number]:
            lower = BUCKETS[number - 1] if number else 0.0
            return lower + (BUCKETS[number] - lower) * (rank - below) / counts[number]
        below += counts[number]
    return None


def add(sums: Sums, at: float, provider: str, name: str, value: int, step: int = MINUTE) -> None:
    """Adds to a figure that is not written yet."""
    if value:
        key = (step, int(at) // step * step, provider[:64], name)
        sums[key] = sums.get(key, 0) + value


def write(database: Database, connection: Connection, sums: Sums) -> None:
    """Adds figures to the stored ones. Always in the same order, so that replicas do not deadlock."""
    if not sums:
        return
    keys = ("step", "at", "provider", "name")
    values: list[dict[str, object]] = [
        {**dict(zip(keys, key, strict=True)), "value": sums[key]} for key in sorted(sums)
    ]
    insert = database.insert(ProviderFigureRow)
    added = insert.on_conflict_do_update(
        index_elements=list(keys), set_={"value": ProviderFigureRow.value + insert.excluded.value}
    )
    connection.execute(added, values)


class FigureHistory:
    """Thins and reads the figures.

    Args:
        zone: days of the history start at its midnight.
    """

    def __init__(
        self, database: Database, clock: Clock, zone: tzinfo = UTC, timing: HistoryTiming | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._zone = zone
        self.timing = timing or HistoryTiming()
        self._read: dict[Period, tuple[float, Series]] = {}
        self._reading = asyncio.Lock()

    async def thin(self) -> None:
        """Sums old minutes by the hour and old hours by the day, and deletes the oldest days.

        Raises:
            StorageError: the database failed; the rest is thinned next time.
        """
        now = int(self._clock.time())
        await self._sum_up(MINUTE, HOUR, now - int(self.timing.minutes.total_seconds()))
        await self._sum_up(HOUR, DAY, now - int(self.timing.hours.total_seconds()))
        last = now - int(self.timing.days.total_seconds())
        old = delete(ProviderFigureRow).where(ProviderFigureRow.step == DAY, ProviderFigureRow.at < last)
        await self._database.run(lambda connection: connection.execute(old).rowcount)

    async def read(self, period: Period) -> Series:
        """Returns the figures of all providers in a period up to now.

        Raises:
            StorageError: the database failed, or did not answer in time.
        """
        try:
            # Concurrent readers share one query.
            async with asyncio.timeout(self.timing.read_s), self._reading:
                now = self._clock.monotonic()
                known = self._read.get(period)
                kept_s = self.timing.cache_s if period is Period.DAY else self.timing.long_cache_s
                if known is not None and 0 <= now - known[0] < kept_s:
                    return known[1]
                series = await self._load(period)
        except TimeoutError:
            raise StorageError("the database failed: it did not answer in time") from None
        self._read[period] = (now, series)
        return series

    async def _load(self, period: Period) -> Series:
        instants = self._instants(period)
        step = period.step_s
        # Summed by the database as far as it goes: every time zone begins its days at a quarter of an hour.
        grain = QUARTER if step == DAY else step
        begin = ProviderFigureRow.at // grain * grain
        query = (
            select(begin, ProviderFigureRow.provider, ProviderFigureRow.name, func.sum(ProviderFigureRow.value))
            .where(ProviderFigureRow.step.in_((MINUTE, HOUR, DAY)), ProviderFigureRow.at >= instants[0])
            .group_by(begin, ProviderFigureRow.provider, ProviderFigureRow.name)
        )

        indices = {instant: index for index, instant in enumerate(instants)}

        @cache  # many rows are of one instant, and the calendar is slow
        def place(at: int) -> int | None:
            return indices.get(self._day_of(at) if step == DAY else at)

        def work(connection: Connection) -> dict[str, list[Point]]:
            values: dict[str, list[dict[str, int]]] = {}
            for at, provider, name, value in connection.execute(query):
                index = place(int(at))
                if index is None:
                    continue
                if provider not in values:
                    values[provider] = [defaultdict(int) for _ in instants]
                values[provider][index][name] += int(value)
            return {provider: [_point(slot) for slot in slots] for provider, slots in values.items()}

        return Series(instants, step, await self._database.run(work, reading=True))

    def _instants(self, period: Period) -> list[int]:
        now = int(self._clock.time())
        if period is not Period.YEAR:
            last = now // period.step_s * period.step_s
            count = period.length_s // period.step_s
            return [last - period.step_s * back for back in range(count - 1, -1, -1)]
        today = datetime.fromtimestamp(now, self._zone).date()
        return [self._midnight(today - timedelta(days=back)) for back in range(364, -1, -1)]

    def _midnight(self, day: date) -> int:
        return int(datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp())

    def _day_of(self, at: int) -> int:
        return self._midnight(datetime.fromtimestamp(at, self._zone).date())

    async def _sum_up(self, fine: int, coarse: int, before: int) -> None:
        """Sums one coarse step after the other, each in its own transaction."""
        oldest = select(func.min(ProviderFigureRow.at)).where(ProviderFigureRow.step == fine)
        while True:
            first = await self._database.run(lambda connection: connection.scalar(oldest), reading=True)
            if first is None:
                return
            day = self._day_of(first)
            # Hours begin with the day, which is not at a full hour everywhere.
            begin = day + (first - day) // HOUR * HOUR if coarse == HOUR else day
            end = begin + coarse if coarse == HOUR else self._day_of(begin + DAY + DAY // 2)
            if end > before:
                return
            await self._database.run(partial(self._replace, fine=fine, coarse=coarse, begin=begin, end=end))

    def _replace(self, connection: Connection, fine: int, coarse: int, begin: int, end: int) -> None:
        # A deleted row is returned to one replica only, so that concurrent thinning counts it once.
        row = ProviderFigureRow
        old = delete(row).where(row.step == fine, row.at < end).returning(row.provider, row.name, row.value)
        sums: Sums = defaultdict(int)
        for provider, name, value in connection.execute(old):
            sums[coarse, begin, provider, name] += value
        write(self._database, connection, sums)


def _point(values: Mapping[str, int]) -> Point:
    return Point(
        requests=values.get(Figure.REQUESTS, 0),
        failures=values.get(Figure.FAILURES, 0),
        unpriced=values.get(Figure.UNPRICED, 0),
        cost_usd=values.get(Figure.COST, 0) / NANO,
        changes=values.get(Figure.CHANGES, 0),
        first_output={
            int(name.removeprefix(FIRST_OUTPUT)): n for name, n in values.items() if name.startswith(FIRST_OUTPUT)
        },
        states={name.removeprefix(STATE): n for name, n in values.items() if name.startswith(STATE)},
    )


def join_points(points: Sequence[Point]) -> Point:
    """Returns the sum of points."""
    first_output, states = defaultdict[int, int](int), defaultdict[str, int](int)
    for point in points:
        for number, count in point.first_output.items():
            first_output[number] += count
        for state, seconds in point.states.items():
            states[state] += seconds
    return Point(
        requests=sum(point.requests for point in points),
        failures=sum(point.failures for point in points),
        unpriced=sum(point.unpriced for point in points),
        cost_usd=sum(point.cost_usd for point in points),
        changes=sum(point.changes for point in points),
        first_output=first_output,
        states=states,
    )
