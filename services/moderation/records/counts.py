"""Daily counters of moderation: per group as in `/moderation stats`, over all groups as metrics and for operators."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, case, delete, func, select

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import (
    ModerationCountsRow,
    ModerationGroupRow,
    ModerationIncidentRow,
    ModerationPendingRow,
)
from core.observability.metrics import Metrics
from services.moderation.domain.policy import Sanction
from services.moderation.domain.settings import Mode, Preset
from services.moderation.domain.verdict import Category

RETENTION = timedelta(days=400)
"""A month can be compared with the same month a year earlier."""
COUNTED = ("seen", "judged", "asked", "acted", "carded", "undone", "unjudged")
"""Tokens and cost are among the provider metrics."""
DAYS: Final = 30
MOST_GROUPS: Final = 100


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters of a group over some time.

    Args:
        seen: messages and edits that were not exempt.
        judged: those that needed a verdict.
        asked: those of them that were sent to a model; the others had a cached verdict.
        acted: messages that were deleted, warned about or sanctioned.
        carded: incidents with a card and no action.
        undone: incidents that an admin undid.
        unjudged: messages without a verdict on arrival.
    """

    seen: int = 0
    judged: int = 0
    asked: int = 0
    acted: int = 0
    carded: int = 0
    undone: int = 0
    unjudged: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


_NOTHING = Counts()
COUNTERS = tuple(field.name for field in fields(Counts))


class DailyCounts:
    """Stores the counters of all groups. Methods raise StorageError when the database fails.

    Args:
        listener: called with each addition, of any group.
    """

    def __init__(self, database: Database, clock: Clock, listener: Callable[[Counts], None] | None = None) -> None:
        self._database = database
        self._clock = clock
        self._listener = listener
        insert, row = database.insert(ModerationCountsRow), ModerationCountsRow
        sums = {name: getattr(row, name) + getattr(insert.excluded, name) for name in COUNTERS}
        self._add = insert.on_conflict_do_update(index_elements=["group_id", "day"], set_=sums)

    def announce(self, more: Counts) -> None:
        """Tells the listener about an addition that has been stored."""
        if self._listener is not None and more != _NOTHING:
            self._listener(more)

    def write(self, connection: Connection, group_id: int, more: Counts) -> None:
        """Adds to today's counters in a transaction of the caller, who announces it once it is committed."""
        if more != _NOTHING:
            day = self._clock.now().date().isoformat()
            connection.execute(self._add, {"group_id": group_id, "day": day, **asdict(more)})

    async def add(self, group_id: int, more: Counts) -> None:
        """Adds to today's counters."""
        if more == _NOTHING:
            return
        await self._database.run(lambda connection: self.write(connection, group_id, more))
        self.announce(more)

    async def total(self, group_id: int, days: int) -> Counts:
        """Returns the sums of the last `days` days, today included."""
        row = ModerationCountsRow
        first = (self._clock.now().date() - timedelta(days=days - 1)).isoformat()
        sums = [func.coalesce(func.sum(getattr(row, name)), 0) for name in COUNTERS]
        async with self._database.reading() as session:
            found = (await session.execute(select(*sums).where(row.group_id == group_id, row.day >= first))).one()
        return Counts(*map(int, found))

    async def delete_expired(self) -> None:
        """Deletes days older than `RETENTION`."""
        first = (self._clock.now() - RETENTION).date().isoformat()
        expired = delete(ModerationCountsRow).where(ModerationCountsRow.day < first)
        async with self._database.session() as session:
            await session.execute(expired, execution_options={"synchronize_session": False})


class ModerationMetrics:
    """Sums the counters of `/moderation stats` over all groups."""

    def __init__(self, metrics: Metrics) -> None:
        counter = metrics.counter(
            "moderation_messages", "Messages of moderated groups by what became of them", ("what",)
        )
        # Created at start with value 0, so that a rate includes the first event.
        self._counters = {what: counter.labels(what) for what in COUNTED}

    def count(self, more: Counts) -> None:
        """Adds to the counters."""
        for name, value in asdict(more).items():
            if value and name in self._counters:
                self._counters[name].inc(value)


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """A group with its mode, and its counters of the last `DAYS` days."""

    group_id: int
    mode: Mode
    preset: Preset
    counts: Counts


@dataclass(frozen=True, slots=True)
class CategoryFigures:
    """Incidents of a category on which the bot acted in the last `DAYS` days, and those of them that were undone."""

    category: Category
    acted: int
    undone: int


@dataclass(frozen=True, slots=True)
class ModerationFigures:
    """Figures of all groups.

    Args:
        today: counters of the current day (UTC).
        month: those of the last `DAYS` days.
        pending: messages that wait for a provider to judge them.
        groups: the busiest groups, at most `MOST_GROUPS`.
        group_count: all groups in which moderation was ever switched on.
        moderated: those of them in which it is on.
        categories: the most frequent first.
    """

    today: Counts
    month: Counts
    pending: int
    groups: Sequence[GroupFigures]
    group_count: int
    moderated: int
    categories: Sequence[CategoryFigures]


class FigureReader:
    """Reads the figures. Raises StorageError when the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def read(self) -> ModerationFigures:
        """Returns the figures of now."""
        now = self._clock.now()
        today, first = now.date().isoformat(), (now.date() - timedelta(days=DAYS - 1)).isoformat()
        group, pending, incident = ModerationGroupRow, ModerationPendingRow, ModerationIncidentRow
        groups = select(group.group_id, group.mode, group.preset)
        waiting = select(func.count()).select_from(pending)
        # As `Incident.has_acted` has it: in a dry run nothing is done.
        is_acted = incident.dry_run.is_(False) & (incident.deletes | (incident.sanction != Sanction.NONE.value))
        undone = func.sum(case((incident.undone_by.is_not(None), 1), else_=0))
        categories = (
            select(incident.category, func.count(), undone)
            .where(incident.created_at > now - timedelta(days=DAYS), is_acted)
            .group_by(incident.category)
        )

        def work(connection: Connection) -> ModerationFigures:
            days = _read_counts(connection, ModerationCountsRow.day == today)
            months = _read_counts(connection, ModerationCountsRow.day >= first)
            found = [
                GroupFigures(row.group_id, Mode(row.mode), Preset(row.preset), months[row.group_id])
                for row in connection.execute(groups)
            ]
            found.sort(key=lambda each: (each.mode is Mode.OFF, -each.counts.seen, each.group_id))
            erred = [
                CategoryFigures(Category(name), acted, int(back))
                for name, acted, back in connection.execute(categories)
            ]
            return ModerationFigures(
                _sum(days),
                _sum(months),
                connection.scalar(waiting) or 0,
                found[:MOST_GROUPS],
                len(found),
                sum(each.mode is not Mode.OFF for each in found),
                sorted(erred, key=lambda each: (-each.acted, each.category)),
            )

        return await self._database.run(work, reading=True)


def _read_counts(connection: Connection, *where: ColumnElement[bool]) -> Mapping[int, Counts]:
    row = ModerationCountsRow
    sums = [func.sum(getattr(row, name)) for name in COUNTERS]
    query = select(row.group_id, *sums).where(*where).group_by(row.group_id)
    counts = defaultdict[int, Counts](Counts)
    for group_id, *values in connection.execute(query):
        counts[group_id] = Counts(*map(int, values))
    return counts


def _sum(counts: Mapping[int, Counts]) -> Counts:
    return Counts(*(sum(getattr(each, name) for each in counts.values()) for name in COUNTERS))
