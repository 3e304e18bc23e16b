"""Audit log of operator acts, kept permanently."""

from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import AuditRow
from core.errors import StorageError

log = structlog.get_logger()

MAX_DETAIL = 1000
"""Characters of a detail; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act: `actor_id` did `action` (`provider.force`) to `target`, with a readable detail."""

    at: datetime
    actor_id: int
    action: str
    target: str | None
    detail: str | None


class Audit:
    """Appends and reads entries; they never change. Methods raise StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record(self, actor_id: int, action: str, target: str | None = None, detail: str | None = None) -> None:
        """Appends an entry. The detail must not contain secrets."""
        if detail is not None and len(detail) > MAX_DETAIL:
            detail = detail[: MAX_DETAIL - 1] + "…"
        row = AuditRow(at=self._clock.now(), actor_id=actor_id, action=action, target=target, detail=detail)
        async with self._database.session() as session:
            session.add(row)

    async def try_record(
        self, actor_id: int, action: str, target: str | None = None, detail: str | None = None
    ) -> bool:
        """Appends an entry about an act that stands either way; returns False, and logs it, if the database fails."""
        try:
            await self.record(actor_id, action, target, detail)
        except StorageError as error:
            log.error("audit.not_recorded", action=action, target=target, error=str(error))  # noqa: TRY400 - the error text is the reason
            return False
        return True

    async def recent(self, limit: int = 20) -> list[AuditEntry]:
        """Returns the newest entries, newest first."""
        async with self._database.reading() as session:
            rows = await session.scalars(select(AuditRow).order_by(AuditRow.id.desc()).limit(limit))
            return [AuditEntry(row.at, row.actor_id, row.action, row.target, row.detail) for row in rows]
