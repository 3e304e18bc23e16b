"""What users asked to remember, each in the chat where they said it."""

from sqlalchemy import ColumnElement, delete, select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import NoteRow

MAX_NOTES = 50
"""Notes of one user in one chat; the oldest give way. All of them go into each request, so they must stay few."""

MAX_LENGTH = 500
"""Characters of a note; what is longer is cut."""


class Notes:
    """The notes. What was said in one scope is never recalled in another: nothing private reaches a group.

    Each method raises StorageError where the database fails.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def remember(self, user_id: int, scope: str, text: str) -> None:
        """Keep a note; one that is there already becomes the newest, an empty one is no note."""
        text = " ".join(text.replace("\x00", " ").split())
        if len(text) > MAX_LENGTH:
            text = text[: MAX_LENGTH - 1] + "…"
        if not text:
            return
        async with self._database.session() as session:
            await session.execute(delete(NoteRow).where(*_of(user_id, scope), NoteRow.text == text))
            session.add(NoteRow(user_id=user_id, scope=scope, text=text, created_at=self._clock.now()))
            await session.flush()
            # By the ids that were seen: a note that another replica saves meanwhile is not among them.
            surplus = select(NoteRow.id).where(*_of(user_id, scope)).order_by(NoteRow.id.desc()).offset(MAX_NOTES)
            if dropped := list(await session.scalars(surplus)):
                await session.execute(delete(NoteRow).where(NoteRow.id.in_(dropped)))

    async def recall(self, user_id: int, scope: str) -> list[str]:
        """The notes of this user in this chat, oldest first."""
        async with self._database.reading() as session:
            return list(await session.scalars(select(NoteRow.text).where(*_of(user_id, scope)).order_by(NoteRow.id)))

    async def forget(self, user_id: int, scope: str, text: str | None = None) -> int:
        """Drop one note by its text, or all of this user in this chat; how many were dropped."""
        async with self._database.session() as session:
            dropped = delete(NoteRow).where(*_of(user_id, scope)).returning(NoteRow.id)
            if text is not None:
                dropped = dropped.where(NoteRow.text == text)
            return len(list(await session.scalars(dropped)))


def _of(user_id: int, scope: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (NoteRow.user_id == user_id, NoteRow.scope == scope)
