"""Figures of moderation over all groups for operators: counts only, no text and no author."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, case, func, select

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import (
    ModerationCountsRow,
    ModerationGroupRow,
    ModerationIncidentRow,
    ModerationPendingRow,
)
from services.moderation.domain.policy import Sanction
from services.moderation.domain.settings import Mode, Preset
from services.moderation.domain.verdict import Category
from services.moderation.records.counts import COUNTERS, Counts

DAYS: Final = 30
MOST_GROUPS: Final = 100


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
        groups: at most `MOST_GROUPS`, those with the most messages first.
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
