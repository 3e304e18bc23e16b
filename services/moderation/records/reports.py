"""Stores members' reports."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import delete, func, select

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationReportRow

REPORTS_PER_HOUR = 10
"""Rate limit per member and group."""
RETENTION = timedelta(days=30)


class ReportStatus(StrEnum):
    """The result of a report: accepted, or the reason for which it was not."""

    TAKEN = "taken"
    AGAIN = "again"
    """The member reported this message before."""
    TOO_MANY = "too_many"
    """The member reached the rate limit."""


@dataclass(frozen=True, slots=True)
class MemberReport:
    """The status of a report, and the number of members who have reported its message."""

    status: ReportStatus
    count: int


class ReportStore:
    """The reports of all groups. Methods raise StorageError when the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, group_id: int, message_id: int, reporter_id: int) -> MemberReport:
        """Records a member's report, once per message and within the rate limit."""
        row = ModerationReportRow
        now = self._clock.now()
        of_message = (row.group_id == group_id, row.message_id == message_id)
        recent = (row.group_id == group_id, row.reporter_id == reporter_id, row.at > now - timedelta(hours=1))
        values = {"group_id": group_id, "message_id": message_id, "reporter_id": reporter_id, "at": now}
        insert = self._database.insert(row).values(**values)
        keys = ["group_id", "message_id", "reporter_id"]
        async with self._database.session() as session:
            if await session.get(row, (group_id, message_id, reporter_id)) is not None:
                status = ReportStatus.AGAIN
            elif ((await session.scalar(select(func.count()).where(*recent))) or 0) >= REPORTS_PER_HOUR:
                status = ReportStatus.TOO_MANY
            else:
                status = ReportStatus.TAKEN
                await session.execute(insert.on_conflict_do_nothing(index_elements=keys))
            count = (await session.scalar(select(func.count()).where(*of_message))) or 0
        return MemberReport(status, count)

    async def delete_expired(self) -> None:
        """Deletes reports older than `RETENTION`."""
        expired = delete(ModerationReportRow).where(ModerationReportRow.at < self._clock.now() - RETENTION)
        async with self._database.session() as session:
            await session.execute(expired, execution_options={"synchronize_session": False})
