"""The dead letters: jobs that failed again and again, kept for an admin to look at, replay or drop."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import DeadLetterRow
from services.inbox.job import Job

MOST_KEPT = 1000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up, and why."""

    id: int
    job: Job
    reason: str
    failed_at: datetime


class DeadLetters:
    """All of them, over all replicas. Each method raises StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, job: Job, reason: str) -> bool:
        """Keep a job that was given up; False where it is kept already."""
        values = {
            "job_id": job.id,
            "lane": job.lane,
            "priority": job.priority,
            "payload": job.payload,
            "reason": reason,
            "failed_at": self._clock.now(),
        }
        async with self._database.session() as session:
            statement = self._database.insert(DeadLetterRow).values(values).on_conflict_do_nothing()
            return (await session.scalars(statement.returning(DeadLetterRow.id))).one_or_none() is not None

    async def newest(self, limit: int = 10) -> list[DeadLetter]:
        """The newest, newest first."""
        async with self._database.reading() as session:
            rows = await session.scalars(select(DeadLetterRow).order_by(DeadLetterRow.id.desc()).limit(limit))
            return [_letter(row) for row in rows]

    async def get(self, letter_id: int) -> DeadLetter | None:
        """One of them."""
        async with self._database.reading() as session:
            row = await session.get(DeadLetterRow, letter_id)
        return _letter(row) if row is not None else None

    async def drop(self, letter_id: int) -> bool:
        """Throw one away; False where there is none."""
        async with self._database.session() as session:
            statement = delete(DeadLetterRow).where(DeadLetterRow.id == letter_id).returning(DeadLetterRow.id)
            return (await session.scalars(statement)).one_or_none() is not None

    async def forget(self, before: datetime) -> None:
        """Delete those that failed before an instant, and all but the newest `MOST_KEPT`."""
        newest = select(DeadLetterRow.id).order_by(DeadLetterRow.id.desc()).limit(1).offset(MOST_KEPT)
        async with self._database.session() as session:
            oldest_kept = await session.scalar(newest) or 0
            too_old = (DeadLetterRow.failed_at < before) | (DeadLetterRow.id <= oldest_kept)
            await session.execute(delete(DeadLetterRow).where(too_old))


def _letter(row: DeadLetterRow) -> DeadLetter:
    return DeadLetter(row.id, Job(row.job_id, row.lane, row.priority, row.payload), row.reason, row.failed_at)
