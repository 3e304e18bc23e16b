"""How much there was to moderate, and what was done."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta

from sqlalchemy import Executable, delete, func, select

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationCountsRow

KEPT = timedelta(days=400)
"""A month can be held against the same one a year before."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of a group over some time.

    Args:
        seen: messages and edits that passed the gate.
        judged: those that needed a verdict.
        asked: those of them that a model was asked about; for the others the verdict was known.
        acted: messages that were deleted, warned about or sanctioned.
        carded: incidents that only a card told of.
        undone: incidents that an admin undid.
        unjudged: messages that could not be judged when they came.
        input_tokens: what models read.
        output_tokens: what they answered.
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


NAMES = tuple(field.name for field in fields(Counts))


class Statistics:
    """The figures of all groups. Methods raise StorageError where the database fails.

    Args:
        database: where they are.
        clock: which day it is.
        also: who else counts them, for all groups together.
    """

    def __init__(self, database: Database, clock: Clock, also: Callable[[Counts], None] | None = None) -> None:
        self._database = database
        self._clock = clock
        self._also = also

    def counting(self, group_id: int, more: Counts) -> Executable | None:
        """The statement that adds to the figures of today; None where there is nothing to add."""
        row = ModerationCountsRow
        values = {name: getattr(more, name) for name in NAMES}
        added = {name: getattr(row, name) + value for name, value in values.items() if value}
        if not added:
            return None
        if self._also is not None:
            self._also(more)
        day = self._clock.now().date().isoformat()
        statement = self._database.insert(row).values(group_id=group_id, day=day, **values)
        return statement.on_conflict_do_update(index_elements=["group_id", "day"], set_=added)

    async def count(self, group_id: int, more: Counts) -> None:
        """Add to the figures of today."""
        statement = self.counting(group_id, more)
        if statement is not None:
            async with self._database.session() as session:
                await session.execute(statement)

    async def of(self, group_id: int, days: int) -> Counts:
        """The figures of the last so many days, today among them."""
        row = ModerationCountsRow
        first = (self._clock.now().date() - timedelta(days=days - 1)).isoformat()
        sums = [func.coalesce(func.sum(getattr(row, name)), 0) for name in NAMES]
        async with self._database.reading() as session:
            found = (await session.execute(select(*sums).where(row.group_id == group_id, row.day >= first))).one()
        return Counts(*map(int, found))

    async def forget_old(self) -> None:
        """Forget what is older than `KEPT`."""
        old = delete(ModerationCountsRow).where(ModerationCountsRow.day < (self._clock.now() - KEPT).date().isoformat())
        async with self._database.session() as session:
            await session.execute(old, execution_options={"synchronize_session": False})
