"""Notes that users asked the bot to remember, separate per chat."""

from sqlalchemy import ColumnElement, delete, select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import NoteRow
from core.shortening import shorten_line

MAX_NOTES = 50
"""Notes of one user in one chat; beyond that the oldest are dropped. All of them go into each request."""

MAX_LENGTH = 500
"""Characters of a note; longer ones are cut."""


class Notes:
    """Stores notes. A note of one scope is never recalled in another, so that nothing private reaches a group.

    Each method raises StorageError where the database fails.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def remember(self, user_id: int, scope: str, text: str) -> None:
        """Stores a note. An existing one becomes the newest; an empty one is ignored."""
        text = shorten_line(text.replace("\x00", " "), MAX_LENGTH)
        if not text:
            return
        async with self._database.session() as session:
            await session.execute(delete(NoteRow).where(*_owned_by(user_id, scope), NoteRow.text == text))
            session.add(NoteRow(user_id=user_id, scope=scope, text=text, created_at=self._clock.now()))
            await session.flush()
            # Deletes by the ids that were read, so that a note saved by another replica meanwhile stays.
            surplus = select(NoteRow.id).where(*_owned_by(user_id, scope)).order_by(NoteRow.id.desc()).offset(MAX_NOTES)
            if surplus_ids := list(await session.scalars(surplus)):
                await session.execute(delete(NoteRow).where(NoteRow.id.in_(surplus_ids)))

    async def recall(self, user_id: int, scope: str) -> list[str]:
        """Returns the notes of this user in this chat, oldest first."""
        async with self._database.reading() as session:
            return list(
                await session.scalars(select(NoteRow.text).where(*_owned_by(user_id, scope)).order_by(NoteRow.id))
            )

    async def forget(self, user_id: int, scope: str, text: str | None = None) -> int:
        """Deletes one note by its text, or all of this user in this chat. Returns how many were deleted."""
        async with self._database.session() as session:
            deletion = delete(NoteRow).where(*_owned_by(user_id, scope)).returning(NoteRow.id)
            if text is not None:
                deletion = deletion.where(NoteRow.text == text)
            return len(list(await session.scalars(deletion)))


def _owned_by(user_id: int, scope: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (NoteRow.user_id == user_id, NoteRow.scope == scope)
