"""Albums: Telegram delivers their messages one by one; they are stored until one job handles all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, or_, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.job_tables import AlbumPartRow

QUIET_S = 1.0
"""Nothing marks the last part: an album counts as complete after this long without another part."""
MAX_PARTS = 10
"""Telegram's limit for an album."""


@dataclass(frozen=True, slots=True)
class AlbumPart:
    """One message of an album; `update` is the update that delivered it, as JSON."""

    chat_id: int
    album: str
    message_id: int
    update: str


class AlbumParts:
    """Stores the parts of recent albums. Each method raises StorageError when the database is unavailable.

    Args:
        database: shared by all replicas.
        clock: measures the age of parts.
        quiet_s: how long after its last part an album counts as complete.
    """

    def __init__(self, database: Database, clock: Clock, *, quiet_s: float = QUIET_S) -> None:
        self._database = database
        self._clock = clock
        self._quiet_s = quiet_s

    async def put(self, parts: Sequence[AlbumPart]) -> None:
        """Stores parts; stored ones are left unchanged."""
        if not parts:
            return
        now = self._clock.now()
        values = [
            {
                "chat_id": part.chat_id,
                "album": part.album,
                "message_id": part.message_id,
                "update": part.update,
                "created_at": now,
            }
            for part in parts
        ]
        async with self._database.session() as session:
            await session.execute(self._database.insert(AlbumPartRow).values(values).on_conflict_do_nothing())

    async def take(self, chat_id: int, album: str, message_id: int, job_id: str) -> list[str] | None:
        """Waits until an album is complete and assign its unassigned parts to a job.

        Args:
            chat_id: chat of the album.
            album: Telegram's media group id.
            message_id: the part that the job was enqueued for.
            job_id: owner of the parts; a retried job receives the same ones.

        Returns:
            The updates in the order of the album; an empty list if another job handles this part; None if the part is
            not stored any more.
        """
        while (remaining_s := await self._quiet_time_left(chat_id, album)) > 0:
            await self._clock.sleep(remaining_s)
        in_album = (AlbumPartRow.chat_id == chat_id, AlbumPartRow.album == album)
        is_available = or_(AlbumPartRow.taken_by.is_(None), AlbumPartRow.taken_by == job_id)
        async with self._database.session() as session:
            part = await session.scalar(
                select(AlbumPartRow).where(*in_album, AlbumPartRow.message_id == message_id).limit(1)
            )
            if part is None:
                return None
            if part.taken_by not in {None, job_id}:
                return []
            await session.execute(update(AlbumPartRow).where(*in_album, is_available).values(taken_by=job_id))
            rows = select(AlbumPartRow.update).where(*in_album, AlbumPartRow.taken_by == job_id)
            return list(await session.scalars(rows.order_by(AlbumPartRow.message_id)))

    async def purge(self, before: datetime) -> None:
        """Deletes parts received before an instant."""
        async with self._database.session() as session:
            await session.execute(delete(AlbumPartRow).where(AlbumPartRow.created_at < before))

    async def _quiet_time_left(self, chat_id: int, album: str) -> float:
        """Returns the seconds until the album counts as complete; 0 if it does."""
        parts = select(AlbumPartRow.created_at).where(AlbumPartRow.chat_id == chat_id, AlbumPartRow.album == album)
        async with self._database.reading() as session:
            received = list(await session.scalars(parts))
        if not received or len(received) >= MAX_PARTS:
            return 0.0
        return self._quiet_s - (self._clock.now() - max(received)).total_seconds()
