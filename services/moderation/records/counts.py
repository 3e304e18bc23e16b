"""Daily counters per group, as shown by `/moderation stats`, and their sums as Prometheus metrics."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import timedelta

from sqlalchemy import Connection, delete, func, select

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationCountsRow
from core.observability.metrics import Metrics

RETENTION = timedelta(days=400)
"""A month can be compared with the same month a year earlier."""
COUNTED = ("seen", "judged", "asked", "acted", "carded", "undone", "unjudged")
"""Tokens and cost are among the provider metrics."""


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
