"""Jobs that cannot be done: dead letters, kept for an admin to replay or drop, and counts of runs that never ended.

The counts find the job that kills the process. After a crash all jobs that were in flight restart together. If that
happens repeatedly, one of them is at fault without telling which. From then on they run one at a time, and only the job
that is running when the process dies is counted.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.job_tables import CrashCountRow, DeadLetterRow
from services.inbox.job import Job


class CrashCounter:
    """Counts per unfinished job. Each method raises StorageError when the database is unavailable."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def count_restart(self, job_id: str) -> int:
        """Counts a restart; returns the number of restarts so far."""
        now = self._clock.now()
        row = CrashCountRow
        statement = self._database.insert(row).values(job_id=job_id, begun=1, alone=0, updated_at=now)
        statement = statement.on_conflict_do_update(
            index_elements=["job_id"], set_={"begun": row.begun + 1, "updated_at": now}
        )
        async with self._database.session() as session:
            return (await session.scalars(statement.returning(row.begun))).one()

    async def count_isolated(self, job_id: str) -> int:
        """Counts an isolated run; returns the number of isolated runs so far."""
        row = CrashCountRow
        statement = update(row).where(row.job_id == job_id).values(alone=row.alone + 1, updated_at=self._clock.now())
        async with self._database.session() as session:
            return (await session.scalars(statement.returning(row.alone))).one_or_none() or 1

    async def undo_restart(self, job_id: str) -> None:
        """Uncounts a restart that a shutdown interrupted."""
        row = CrashCountRow
        async with self._database.session() as session:
            await session.execute(update(row).where(row.job_id == job_id).values(begun=row.begun - 1))

    async def undo_isolated(self, job_id: str) -> None:
        """Uncounts an isolated run that a shutdown interrupted."""
        row = CrashCountRow
        async with self._database.session() as session:
            await session.execute(update(row).where(row.job_id == job_id).values(alone=row.alone - 1))

    async def clear(self, job_id: str) -> None:
        """Deletes the counts of a job that ended."""
        async with self._database.session() as session:
            await session.execute(delete(CrashCountRow).where(CrashCountRow.job_id == job_id))

    async def purge(self, before: datetime) -> None:
        """Deletes counts that have not changed since an instant."""
        async with self._database.session() as session:
            await session.execute(delete(CrashCountRow).where(CrashCountRow.updated_at < before))


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
        """Stores a job that was given up; False if it is stored already."""
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
        """Returns the newest letters, newest first."""
        async with self._database.reading() as session:
            rows = await session.scalars(select(DeadLetterRow).order_by(DeadLetterRow.id.desc()).limit(limit))
            return [_to_letter(row) for row in rows]

    async def count(self, limit: int) -> int:
        """Returns the number of letters, at most `limit`."""
        some = select(DeadLetterRow.id).limit(limit).subquery()
        count = select(func.count()).select_from(some)
        return await self._database.run(lambda connection: connection.scalar(count) or 0, reading=True)

    async def get(self, letter_id: int) -> DeadLetter | None:
        """Returns a letter, or None if there is none with this id."""
        async with self._database.reading() as session:
            row = await session.get(DeadLetterRow, letter_id)
        return _to_letter(row) if row is not None else None

    async def drop(self, letter_id: int) -> bool:
        """Deletes a letter; False if there is none with this id."""
        async with self._database.session() as session:
            statement = delete(DeadLetterRow).where(DeadLetterRow.id == letter_id).returning(DeadLetterRow.id)
            return (await session.scalars(statement)).one_or_none() is not None

    async def purge(self, before: datetime) -> None:
        """Deletes letters that failed before an instant, and the oldest beyond the limit."""
        oldest_excess = select(DeadLetterRow.id).order_by(DeadLetterRow.id.desc()).limit(1).offset(self._limit)
        async with self._database.session() as session:
            last_excess_id = await session.scalar(oldest_excess) or 0
            is_expired = (DeadLetterRow.failed_at < before) | (DeadLetterRow.id <= last_excess_id)
            await session.execute(delete(DeadLetterRow).where(is_expired))


def _to_letter(row: DeadLetterRow) -> DeadLetter:
    return DeadLetter(row.id, Job(row.job_id, row.lane, row.priority, row.payload), row.reason, row.failed_at)
