"""Rows that the tests of the database write and read."""

from datetime import UTC, datetime

from sqlalchemy import select

from core.db.database import Database
from core.db.tables import NoteRow

NOON = datetime(2027, 1, 2, 12, tzinfo=UTC)


def note(text: str = "likes tea", created_at: datetime = NOON) -> NoteRow:
    """Return a row to insert."""
    return NoteRow(user_id=1, scope="telegram:1", text=text, created_at=created_at)


async def notes(database: Database) -> list[str]:
    """Return the stored texts."""
    async with database.reading() as session:
        return list(await session.scalars(select(NoteRow.text).order_by(NoteRow.id)))
