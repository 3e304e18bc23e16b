"""Counts runs that never ended, to find the job that kills the process.

After a crash all jobs that were in flight restart together. If that happens repeatedly, one of them is at fault without
telling which. From then on they run one at a time, and only the job that is running when the process dies is counted.
"""

from datetime import datetime

from sqlalchemy import delete, update

from core.clock import Clock
from core.db.database import Database
from core.db.tables import CrashCountRow


class CrashCounter:
    """Counts per unfinished job. Each method raises StorageError when the database is unavailable."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def count_restart(self, job_id: str) -> int:
        """Count a restart; return the number of restarts so far."""
        now = self._clock.now()
        row = CrashCountRow
        statement = self._database.insert(row).values(job_id=job_id, begun=1, alone=0, updated_at=now)
        statement = statement.on_conflict_do_update(
            index_elements=["job_id"], set_={"begun": row.begun + 1, "updated_at": now}
        )
        async with self._database.session() as session:
            return (await session.scalars(statement.returning(row.begun))).one()

    async def count_isolated(self, job_id: str) -> int:
        """Count an isolated run; return the number of isolated runs so far."""
        row = CrashCountRow
        statement = update(row).where(row.job_id == job_id).values(alone=row.alone + 1, updated_at=self._clock.now())
        async with self._database.session() as session:
            return (await session.scalars(statement.returning(row.alone))).one_or_none() or 1

    async def undo_restart(self, job_id: str) -> None:
        """Uncount a restart that a shutdown interrupted."""
        row = CrashCountRow
        async with self._database.session() as session:
            await session.execute(update(row).where(row.job_id == job_id).values(begun=row.begun - 1))

    async def undo_isolated(self, job_id: str) -> None:
        """Uncount an isolated run that a shutdown interrupted."""
        row = CrashCountRow
        async with self._database.session() as session:
            await session.execute(update(row).where(row.job_id == job_id).values(alone=row.alone - 1))

    async def clear(self, job_id: str) -> None:
        """Delete the counts of a job that ended."""
        async with self._database.session() as session:
            await session.execute(delete(CrashCountRow).where(CrashCountRow.job_id == job_id))

    async def purge(self, before: datetime) -> None:
        """Delete counts that have not changed since an instant."""
        async with self._database.session() as session:
            await session.execute(delete(CrashCountRow).where(CrashCountRow.updated_at < before))
