"""Stores files of a conversation: long documents, of which a model reads parts, and drawn pictures."""

import asyncio
import hashlib
import json
import zlib
from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from core.db.database import Database
from core.db.tables import AttachmentRow, ThreadRow, TurnRow
from core.messages import ConversationKey
from services.chat.store.conversation import key_conditions

DOCUMENT = "application/x-read-document;name="
"""Media type of a stored text; its name follows as JSON. Such a file is no part of a prompt."""
KEPT_DOCUMENTS = 20
"""The newest documents of a conversation that can be read again."""
DRAWN = ";drawn"
"""End of the media type of a drawn picture. Such a file is no part of a prompt."""
KEPT_PICTURES = 10
"""The newest pictures of a chat or topic; older ones are deleted with the next."""


class DocumentStore:
    """Stores the texts with their turns. Each method raises StorageError where the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, turn_id: int, texts: Sequence[tuple[str, str]]) -> None:
        """Stores texts by their names; idempotent."""
        rows = await asyncio.to_thread(_to_rows, turn_id, texts)
        insert = self._database.insert(AttachmentRow).values(rows).on_conflict_do_nothing()
        await self._database.run(lambda connection: connection.execute(insert) and None)

    async def names(self, key: ConversationKey) -> list[str]:
        """Returns the names of the documents of the current thread, newest first."""
        return list(await self._database.run(lambda connection: _find(connection, key), reading=True))

    async def read(self, key: ConversationKey, name: str) -> str | None:
        """Returns the text of the newest document of that name in the current thread."""

        def work(connection: Connection) -> bytes | None:
            turn_id = _find(connection, key).get(name)
            if turn_id is None:
                return None
            of_name = (AttachmentRow.turn_id == turn_id, AttachmentRow.media_type == DOCUMENT + json.dumps(name))
            return connection.scalar(select(AttachmentRow.data).where(*of_name))

        data = await self._database.run(work, reading=True)
        return None if data is None else (await asyncio.to_thread(zlib.decompress, data)).decode()


def _to_rows(turn_id: int, texts: Sequence[tuple[str, str]]) -> list[dict[str, object]]:
    return [
        {
            "turn_id": turn_id,
            "digest": hashlib.sha256(f"{name}\0{text}".encode(errors="replace")).hexdigest(),
            "media_type": DOCUMENT + json.dumps(name),
            "data": zlib.compress(text.encode(errors="replace"), 1),
        }
        for name, text in texts
    ]


def _find(connection: Connection, key: ConversationKey) -> dict[str, int]:
    """Returns the turns of the newest documents by name."""
    query = (
        select(AttachmentRow.media_type, AttachmentRow.turn_id)
        .join(TurnRow, TurnRow.id == AttachmentRow.turn_id)
        .join(ThreadRow, ThreadRow.id == TurnRow.thread_id)
        .where(*key_conditions(key), ThreadRow.is_current, AttachmentRow.media_type.startswith(DOCUMENT))
        .order_by(AttachmentRow.turn_id.desc())
        .limit(KEPT_DOCUMENTS)
    )
    found: dict[str, int] = {}
    for media_type, turn_id in connection.execute(query):
        found.setdefault(json.loads(media_type.removeprefix(DOCUMENT)), turn_id)
    return found


class PictureStore:
    """Stores pictures with their turns. Each method raises StorageError where the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, key: ConversationKey, turn_id: int, number: int, data: bytes, media_type: str) -> None:
        """Stores a picture; one of the same number that an earlier attempt at the turn drew is replaced."""
        digest = hashlib.sha256(data).hexdigest()[:-3] + f"{number:03d}"
        values = {"turn_id": turn_id, "digest": digest, "media_type": f"{media_type}{DRAWN}", "data": data}
        insert = self._database.insert(AttachmentRow).values(values).on_conflict_do_nothing()

        of_number = AttachmentRow.media_type.endswith(DRAWN), AttachmentRow.digest.endswith(f"{number:03d}")

        def work(connection: Connection) -> None:
            connection.execute(delete(AttachmentRow).where(AttachmentRow.turn_id == turn_id, *of_number))
            connection.execute(insert)
            drawn = (
                select(AttachmentRow.turn_id)
                .join(TurnRow, TurnRow.id == AttachmentRow.turn_id)
                .join(ThreadRow, ThreadRow.id == TurnRow.thread_id)
                .where(*key_conditions(key), AttachmentRow.media_type.endswith(DRAWN))
                .order_by(AttachmentRow.turn_id.desc())
            )
            old = list(connection.scalars(drawn))[KEPT_PICTURES:]
            if old:
                of_old = AttachmentRow.turn_id.in_(old), AttachmentRow.media_type.endswith(DRAWN)
                connection.execute(delete(AttachmentRow).where(*of_old, AttachmentRow.turn_id != turn_id))

        await self._database.run(work)

    async def of_turn(self, turn_id: int) -> list[tuple[bytes, str]]:
        """Returns the pictures of a turn with their media types, in order."""
        query = (
            select(AttachmentRow.data, AttachmentRow.media_type, AttachmentRow.digest)
            .where(AttachmentRow.turn_id == turn_id, AttachmentRow.media_type.endswith(DRAWN))
        )  # fmt: skip

        def work(connection: Connection) -> list[tuple[bytes, str]]:
            rows = sorted(connection.execute(query), key=lambda row: row.digest[-3:])
            return [(row.data, row.media_type.removesuffix(DRAWN)) for row in rows]

        return await self._database.run(work, reading=True)
