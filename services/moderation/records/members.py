"""Stores what members report, and the warnings that they get, which expire after 30 days."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, delete, func, select

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationReportRow, ModerationWarningRow
from core.messages import Surface
from services.moderation.domain.policy import WARNING_SPAN
from services.pseudonyms import Pseudonyms

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


class WarningLedger:
    """The warnings of all groups. Methods raise StorageError when the database fails.

    Args:
        pseudonyms: aliases of erased members, whose warnings still count.
    """

    def __init__(self, database: Database, clock: Clock, pseudonyms: Pseudonyms | None = None) -> None:
        self._database = database
        self._clock = clock
        self._pseudonyms = pseudonyms

    def _of_member(self, group_id: int, member_id: int) -> ColumnElement[bool]:
        row, numbers = ModerationWarningRow, [member_id]
        if self._pseudonyms is not None:
            numbers.append(self._pseudonyms.number(f"{Surface.TELEGRAM}:{member_id}"))
        return and_(row.group_id == group_id, row.member_id.in_(numbers))

    async def warn(self, group_id: int, member_id: int, source: str) -> int:
        """Adds a warning, once per source; returns the member's number of valid warnings."""
        values = {"group_id": group_id, "member_id": member_id, "source": source, "at": self._clock.now()}
        statement = self._database.insert(ModerationWarningRow).values(**values)
        async with self._database.session() as session:
            await session.execute(statement.on_conflict_do_nothing(index_elements=["group_id", "source"]))
        return await self.count(group_id, member_id)

    async def count(self, group_id: int, member_id: int) -> int:
        """Returns a member's number of valid warnings."""
        row = ModerationWarningRow
        since = self._clock.now() - WARNING_SPAN
        statement = select(func.count()).where(self._of_member(group_id, member_id), row.at >= since)
        async with self._database.reading() as session:
            return (await session.scalar(statement)) or 0

    async def take_back(self, group_id: int, source: str) -> None:
        """Deletes the warning with this source."""
        row = ModerationWarningRow
        async with self._database.session() as session:
            await session.execute(delete(row).where(row.group_id == group_id, row.source == source))

    async def take_back_latest(self, group_id: int, member_id: int) -> int | None:
        """Deletes a member's latest warning; returns the number that is left, None if there was none."""
        row = ModerationWarningRow
        latest = select(row.id).where(self._of_member(group_id, member_id))
        async with self._database.session() as session:
            warning = await session.scalar(latest.order_by(row.at.desc(), row.id.desc()).limit(1))
            if warning is None:
                return None
            await session.execute(delete(row).where(row.id == warning))
        return await self.count(group_id, member_id)

    async def delete_expired(self) -> None:
        """Deletes expired warnings."""
        expired = delete(ModerationWarningRow).where(ModerationWarningRow.at < self._clock.now() - WARNING_SPAN)
        async with self._database.session() as session:
            await session.execute(expired, execution_options={"synchronize_session": False})
