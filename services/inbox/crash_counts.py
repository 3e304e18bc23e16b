"""How often work was begun that did not come to its end: what kills the process must not do so for ever.

A job that a process died over is begun again together with all others that were in flight. If that happens again and
again, one of them is to blame, and nobody knows which: so from then on they are done one at a time, and what is counted
is the one that was being done when the process died.
"""

from datetime import datetime

from sqlalchemy import delete, update

from core.clock import Clock
from core.db.database import Database
from core.db.tables import CrashCountRow


class CrashCounter:
    """The counts of all unfinished jobs. Each method raises StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def begin_again(self, job_id: str) -> int:
        """Count that a job is begun again; how often that is by now."""
        now = self._clock.now()
        row = CrashCountRow
        statement = self._database.insert(row).values(job_id=job_id, begun=1, alone=0, updated_at=now)
        statement = statement.on_conflict_do_update(
            index_elements=["job_id"], set_={"begun": row.begun + 1, "updated_at": now}
        )
        async with self._database.session() as session:
            return (await session.scalars(statement.returning(row.begun))).one()

    async def begin_alone(self, job_id: str) -> int:
        """Count that a job is begun with no other suspect beside it; how often that is by now."""
        row = CrashCountRow
        statement = update(row).where(row.job_id == job_id).values(alone=row.alone + 1, updated_at=self._clock.now())
        async with self._database.session() as session:
            return (await session.scalars(statement.returning(row.alone))).one_or_none() or 1

    async def take_back(self, job_id: str) -> None:
        """A job that was begun again was broken off by a shutdown: that beginning does not count."""
        row = CrashCountRow
        async with self._database.session() as session:
            await session.execute(update(row).where(row.job_id == job_id).values(begun=row.begun - 1))

    async def take_back_alone(self, job_id: str) -> None:
        """The same of a beginning alone."""
        row = CrashCountRow
        async with self._database.session() as session:
            await session.execute(update(row).where(row.job_id == job_id).values(alone=row.alone - 1))

    async def forget(self, job_id: str) -> None:
        """The job came to its end."""
        async with self._database.session() as session:
            await session.execute(delete(CrashCountRow).where(CrashCountRow.job_id == job_id))

    async def forget_older(self, before: datetime) -> None:
        """Delete the counts of jobs that nobody has begun since."""
        async with self._database.session() as session:
            await session.execute(delete(CrashCountRow).where(CrashCountRow.updated_at < before))
