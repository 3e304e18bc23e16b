"""Dead letters: jobs that exhausted their retries, kept for an admin to replay or drop."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import DeadLetterRow
from services.inbox.job import Job

MAX_KEPT = 1000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up, with the reason."""

    id: int
    job: Job
    reason: str
    failed_at: datetime


class DeadLetters:
    """Dead letters of all replicas. Each method raises StorageError when the database is unavailable.

    Args:
        database: shared by all replicas.
        clock: stamps new letters.
        limit: letters that a purge keeps.
    """

    def __init__(self, database: Database, clock: Clock, *, limit: int = MAX_KEPT) -> None:
        self._database = database
        self._clock = clock
        self._limit = limit

    async def add(self, job: Job, reason: str) -> bool:
        """Store a job that was given up; False if it is stored already."""
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
        """Return the newest letters, newest first."""
        async with self._database.reading() as session:
            rows = await session.scalars(select(DeadLetterRow).order_by(DeadLetterRow.id.desc()).limit(limit))
            return [_to_letter(row) for row in rows]

    async def get(self, letter_id: int) -> DeadLetter | None:
        """Return a letter, or None if there is none with this id."""
        async with self._database.reading() as session:
            row = await session.get(DeadLetterRow, letter_id)
        return _to_letter(row) if row is not None else None

    async def drop(self, letter_id: int) -> bool:
        """Delete a letter; False if there is none with this id."""
        async with self._database.session() as session:
            statement = delete(DeadLetterRow).where(DeadLetterRow.id == letter_id).returning(DeadLetterRow.id)
            return (await session.scalars(statement)).one_or_none() is not None

    async def purge(self, before: datetime) -> None:
        """Delete letters that failed before an instant, and the oldest beyond the limit."""
        oldest_excess = select(DeadLetterRow.id).order_by(DeadLetterRow.id.desc()).limit(1).offset(self._limit)
        async with self._database.session() as session:
            last_excess_id = await session.scalar(oldest_excess) or 0
            is_expired = (DeadLetterRow.failed_at < before) | (DeadLetterRow.id <= last_excess_id)
            await session.execute(delete(DeadLetterRow).where(is_expired))


def _to_letter(row: DeadLetterRow) -> DeadLetter:
    return DeadLetter(row.id, Job(row.job_id, row.lane, row.priority, row.payload), row.reason, row.failed_at)
