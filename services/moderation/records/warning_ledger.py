"""Stores warnings, which expire after 30 days."""

from sqlalchemy import ColumnElement, and_, delete, func, select

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationWarningRow
from core.messages import Surface
from services.moderation.domain.policy import WARNING_SPAN
from services.pseudonyms import Pseudonyms


class WarningLedger:
    """The warnings of all groups. Methods raise StorageError when the database fails.

    Args:
        pseudonyms: of members who were forgotten: their warnings count under an alias.
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
