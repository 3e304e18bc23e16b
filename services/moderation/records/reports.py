"""What members report."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import delete, func, select

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationReportRow

REPORTS_AN_HOUR = 10
KEPT = timedelta(days=30)
"""For how long it is known who reported what."""


class Reported(StrEnum):
    """What becomes of a report."""

    TAKEN = "taken"
    AGAIN = "again"
    """They reported this message before."""
    TOO_MANY = "too_many"
    """They reported a lot within the last hour."""


@dataclass(frozen=True, slots=True)
class MemberReport:
    """A report, and how many members have reported that message by now."""

    result: Reported
    count: int


class ReportStore:
    """The reports of all groups. Methods raise StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def report(self, group_id: int, message_id: int, reporter_id: int) -> MemberReport:
        """Somebody reports a message."""
        row = ModerationReportRow
        now = self._clock.now()
        of_message = (row.group_id == group_id, row.message_id == message_id)
        recent = (row.group_id == group_id, row.reporter_id == reporter_id, row.at > now - timedelta(hours=1))
        values = {"group_id": group_id, "message_id": message_id, "reporter_id": reporter_id, "at": now}
        insert = self._database.insert(row).values(**values)
        keys = ["group_id", "message_id", "reporter_id"]
        async with self._database.session() as session:
            if await session.get(row, (group_id, message_id, reporter_id)) is not None:
                result = Reported.AGAIN
            elif ((await session.scalar(select(func.count()).where(*recent))) or 0) >= REPORTS_AN_HOUR:
                result = Reported.TOO_MANY
            else:
                result = Reported.TAKEN
                await session.execute(insert.on_conflict_do_nothing(index_elements=keys))
            count = (await session.scalar(select(func.count()).where(*of_message))) or 0
        return MemberReport(result, count)

    async def forget_old(self) -> None:
        """Forget what is older than `KEPT`."""
        old = delete(ModerationReportRow).where(ModerationReportRow.at < self._clock.now() - KEPT)
        async with self._database.session() as session:
            await session.execute(old, execution_options={"synchronize_session": False})
