"""Deletes conversations and notes that are older than RETENTION_DAYS, once a day."""

from datetime import timedelta

import structlog
from sqlalchemy import ColumnElement, Connection, delete, select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import NoteRow, ThreadMemoryRow, ThreadRow, TurnRow
from core.errors import StorageError

log = structlog.get_logger()

SWEEP_S = 24 * 3600.0
BATCH = 500
"""Turns that are deleted in one transaction, so that answers do not wait for a long one."""


class RetentionSweep:
    """Deletes expired conversations and notes.

    Args:
        days: age of a turn or a note at which it is deleted; None keeps everything.
        sweep_s: pause between two sweeps.
    """

    def __init__(self, database: Database, clock: Clock, days: int | None, sweep_s: float = SWEEP_S) -> None:
        self._database = database
        self._clock = clock
        self._days = days
        self._sweep_s = sweep_s

    async def run(self) -> None:
        """Sweeps until cancelled; returns at once where everything is kept."""
        while self._days is not None:
            try:
                if turns := await self.sweep():
                    log.info("retention.swept", turns=turns)
            except StorageError as error:
                log.warning("retention.sweep_failed", error=str(error))
            await self._clock.sleep(self._sweep_s)

    async def sweep(self) -> int:
        """Deletes old turns with their files, old summaries and notes, and empty threads. Returns the number of turns.

        Raises:
            StorageError: the database fails.
        """
        if self._days is None:
            return 0
        before = self._clock.now() - timedelta(days=self._days)
        old_turns = select(TurnRow.id).where(TurnRow.created_at < before).limit(BATCH)

        def delete_turns(connection: Connection) -> int:
            ids = list(connection.scalars(old_turns))
            connection.execute(delete(TurnRow).where(TurnRow.id.in_(ids)))
            return len(ids)

        def delete_rest(connection: Connection) -> None:
            # A summary contains older messages.
            connection.execute(delete(ThreadMemoryRow).where(ThreadMemoryRow.updated_at < before))
            connection.execute(delete(NoteRow).where(NoteRow.created_at < before))
            is_empty: ColumnElement[bool] = ~select(TurnRow.id).where(TurnRow.thread_id == ThreadRow.id).exists()
            connection.execute(delete(ThreadRow).where(is_empty, ThreadRow.created_at < before))

        turns = 0
        while deleted := await self._database.run(delete_turns):
            turns += deleted
        await self._database.run(delete_rest)
        return turns
