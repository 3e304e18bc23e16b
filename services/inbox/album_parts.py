"""The parts of albums, which come one by one and are answered as one message: stored until one job has them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, or_, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.tables import AlbumPartRow

LAST_PART_S = 1.0
"""Nothing tells which part is the last: an album is whole when none has come for so long."""
MOST_PARTS = 10
"""What Telegram lets people put into one album."""


@dataclass(frozen=True, slots=True)
class AlbumPart:
    """One part: the album it belongs to, and the update that brought it, as JSON."""

    chat_id: int
    album: str
    message_id: int
    update: str


class AlbumParts:
    """All albums of late. Each method raises StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def put(self, parts: Sequence[AlbumPart]) -> None:
        """Store parts; one that is there already stays as it is."""
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
        """Wait until the album is whole, and take the parts that nobody has.

        Args:
            chat_id: where it was sent.
            album: Telegram's id of it.
            message_id: the part that this is about.
            job_id: who takes them; done again, it gets the same ones.

        Returns:
            The updates, in the order of the album; none where another job answers this part together with its own.
            None where nobody knows of this part any more.
        """
        while (left := await self._incomplete_for(chat_id, album)) > 0:
            await self._clock.sleep(left)
        of_album = (AlbumPartRow.chat_id == chat_id, AlbumPartRow.album == album)
        free = or_(AlbumPartRow.taken_by.is_(None), AlbumPartRow.taken_by == job_id)
        async with self._database.session() as session:
            this = await session.scalar(
                select(AlbumPartRow).where(*of_album, AlbumPartRow.message_id == message_id).limit(1)
            )
            if this is None:
                return None
            if this.taken_by not in {None, job_id}:
                return []
            await session.execute(update(AlbumPartRow).where(*of_album, free).values(taken_by=job_id))
            rows = select(AlbumPartRow.update).where(*of_album, AlbumPartRow.taken_by == job_id)
            return list(await session.scalars(rows.order_by(AlbumPartRow.message_id)))

    async def forget(self, before: datetime) -> None:
        """Delete what came before an instant."""
        async with self._database.session() as session:
            await session.execute(delete(AlbumPartRow).where(AlbumPartRow.created_at < before))

    async def _incomplete_for(self, chat_id: int, album: str) -> float:
        """How many seconds it may take until the next part comes; 0 for an album that is whole."""
        parts = select(AlbumPartRow.created_at).where(AlbumPartRow.chat_id == chat_id, AlbumPartRow.album == album)
        async with self._database.reading() as session:
            came = list(await session.scalars(parts))
        if not came or len(came) >= MOST_PARTS:
            return 0.0
        return LAST_PART_S - (self._clock.now() - max(came)).total_seconds()
