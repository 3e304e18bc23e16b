"""Stores the pictures drawn in a conversation, which can be sent as files later."""

import hashlib

from sqlalchemy import Connection, delete, select

from core.db.database import Database
from core.db.tables import AttachmentRow, ThreadRow, TurnRow
from core.messages import ConversationKey
from services.chat.store.conversation import key_conditions

DRAWN = ";drawn"
"""End of the media type of a drawn picture. Such a file is no part of a prompt."""
KEPT_PICTURES = 10
"""The newest pictures of a chat or topic; older ones are deleted with the next."""


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
