"""Which messages were looked at: each one, and each version of an edited one, counts once over all replicas.

No text is kept, only what the next version is compared with: checksums of the links.
"""

import hashlib
import json
import zlib
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Update, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ProcessedVersionRow
from services.moderation.domain.message import GroupMessage

KEPT = timedelta(days=7)
"""For how long a version is known: an edit after that counts as a new message."""


def message_version(message: GroupMessage) -> str:
    """What tells one version of a message from another: a digest of what it says.

    Not when it was made: Telegram calls it an edit too when a preview or a button changes.
    """
    said = [
        message.text, message.quoted, message.forwarded, *message.links, *message.buttons, *message.media,
        message.via_bot or "",
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(said, ensure_ascii=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class VersionState:
    """What is known of a version before it is judged."""

    is_settled: bool
    """It was judged before."""
    is_removed: bool
    """It, or another version or part of the same message, was deleted."""
    is_first: bool
    """Nobody has counted it yet."""
    adds_link: bool
    """It leads somewhere where the version before did not."""


class ProcessedVersions:
    """What was looked at. Methods raise StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def look(self, session: AsyncSession, message: GroupMessage, version: str, album: str | None) -> VersionState:
        """Write down that a version is looked at, every part of an album for itself, and tell what was known of it."""
        row = ProcessedVersionRow
        links = {zlib.crc32(link.encode()) for link in (*message.links, *message.buttons)}
        common = {
            "group_id": message.group_id, "version": version, "album": album, "links": json.dumps(sorted(links)),
            "seen_at": self._clock.now(), "settled": False, "removed": False,
        }  # fmt: skip
        ours = row.message_id.in_(message.message_ids)
        known = (await session.scalars(select(row).where(row.group_id == message.group_id, ours))).all()
        insert = self._database.insert(row).values(
            [{**common, "message_id": message_id} for message_id in message.message_ids]
        )
        await session.execute(insert.on_conflict_do_nothing(index_elements=["group_id", "message_id", "version"]))
        removed = any(each.removed for each in known)
        if album is not None and not removed:
            gone = select(row.message_id).where(row.group_id == message.group_id, row.album == album, row.removed)
            removed = (await session.scalars(gone.limit(1))).first() is not None
        same = [each for each in known if each.version == version]
        earlier = [each for each in known if each.version != version]
        before = max(earlier, key=lambda each: each.seen_at, default=None)
        return VersionState(
            is_settled=any(each.settled for each in same),
            is_removed=removed,
            is_first=not same,
            adds_link=message.edited_at is not None and not links <= set(json.loads(before.links) if before else ()),
        )

    async def parts(self, group_id: int, album: str) -> tuple[int, ...]:
        """Every part of an album that was seen, by whichever replica."""
        row = ProcessedVersionRow
        found = select(row.message_id).where(row.group_id == group_id, row.album == album).distinct()
        async with self._database.reading() as session:
            return tuple(sorted(await session.scalars(found)))

    def settling(self, message: GroupMessage, version: str, *, removed: bool) -> Update:
        """The statement that says that a version was judged."""
        row = ProcessedVersionRow
        ours = (row.group_id == message.group_id, row.message_id.in_(message.message_ids), row.version == version)
        return update(row).where(*ours).values(settled=True, removed=removed)

    async def forget_old(self) -> None:
        """Forget what is older than `KEPT`."""
        old = delete(ProcessedVersionRow).where(ProcessedVersionRow.seen_at < self._clock.now() - KEPT)
        async with self._database.session() as session:
            await session.execute(old, execution_options={"synchronize_session": False})
