"""Log of processed messages: each version is processed once over all replicas; members become established.

No text is stored, only a digest per version and checksums of its link targets, to compare the next version with.
"""

import hashlib
import json
import zlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import Connection, Table, bindparam, delete, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationMemberRow, ProcessedVersionRow
from services.moderation.domain.message import GroupMessage
from services.moderation.records.counts import Counts, DailyCounts

RETENTION = timedelta(days=7)
"""Retention of versions; a later edit counts as a new message."""
ESTABLISHED_MESSAGES = 3
ESTABLISHED_AFTER = timedelta(days=7)
VERSIONS, MEMBERS = cast("Table", ProcessedVersionRow.__table__).c, cast("Table", ModerationMemberRow.__table__).c
# Built once: every message of every group is looked up.
_IS_AUTHOR = (MEMBERS.group_id == bindparam("group"), MEMBERS.member_id == bindparam("author"))
_AUTHOR = select(MEMBERS.first_seen, MEMBERS.meaningful).where(*_IS_AUTHOR)
_LOOK_UP = select(
    select(VERSIONS.message_id)
    .where(VERSIONS.group_id == bindparam("group"), VERSIONS.message_id == bindparam("message"))
    .exists(),
    select(MEMBERS.first_seen).where(*_IS_AUTHOR).scalar_subquery(),
    select(MEMBERS.meaningful).where(*_IS_AUTHOR).scalar_subquery(),
)


def message_version(message: GroupMessage) -> str:
    """Returns a digest of a message's content, which identifies a version.

    The edit time does not: Telegram also reports an edit when a preview or a button changes.
    """
    content = [
        message.text, message.quoted, message.forwarded, *message.links, *message.buttons, *message.media,
        message.via_bot or "",
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A version of a message in processing."""

    message: GroupMessage
    is_reported: bool = False
    version: str = field(init=False)

    @property
    def album(self) -> str | None:
        """The id of the album, None for a single message."""
        return self.message.album

    def __post_init__(self) -> None:
        # A report has a processed version judged again, so it counts as a version of its own.
        version = message_version(self.message)
        object.__setattr__(self, "version", f"{version}-r" if self.is_reported else version)


@dataclass(frozen=True, slots=True)
class VersionState:
    """State of a version before it is judged.

    Args:
        is_settled: this version was judged before.
        is_removed: another version or album part of the message was deleted.
        adds_link: an edit with a link target that the version before did not have.
    """

    is_settled: bool
    is_removed: bool
    adds_link: bool


@dataclass(frozen=True, slots=True)
class MemberHistory:
    """A member's first message and number of meaningful messages; `is_known` is False before the first one."""

    first_seen: datetime
    meaningful: int
    is_known: bool = True

    def is_newcomer(self, now: datetime) -> bool:
        """Returns whether they wrote fewer than 3 meaningful messages or their first one less than 7 days ago."""
        return self.meaningful < ESTABLISHED_MESSAGES or now - self.first_seen < ESTABLISHED_AFTER


class MessageLog:
    """Stores processed versions and member histories. Methods raise StorageError when the database fails."""

    def __init__(self, database: Database, clock: Clock, counts: DailyCounts) -> None:
        self._database = database
        self._clock = clock
        self._counts = counts
        insert = database.insert(ProcessedVersionRow)
        self._insert = insert.on_conflict_do_nothing(index_elements=["group_id", "message_id", "version"])
        # A row comes back only where one was inserted.
        self._insert_once = self._insert.returning(VERSIONS.message_id)
        member = database.insert(ModerationMemberRow)
        sums = {"meaningful": MEMBERS.meaningful + member.excluded.meaningful}
        self._count_message = member.on_conflict_do_update(index_elements=["group_id", "member_id"], set_=sums)

    async def open(self, entry: LogEntry) -> tuple[VersionState, MemberHistory]:
        """Records a version before it is judged; returns its state and its author's history."""
        message = entry.message

        def work(connection: Connection) -> tuple[VersionState, MemberHistory]:
            state = self._record_version(connection, entry)
            return state, self._read_member(connection, message.group_id, message.author.id)

        return await self._database.run(work)

    async def look_up(self, entry: LogEntry) -> tuple[bool, MemberHistory]:
        """Returns whether a single message was not seen before, and its author's history, in one statement."""
        message = entry.message
        key = {"group": message.group_id, "message": message.message_id, "author": message.author.id}
        seen, first_seen, meaningful = await self._database.run(
            lambda connection: connection.execute(_LOOK_UP, key).one(), reading=True
        )
        if first_seen is None:
            return not seen, MemberHistory(self._clock.now(), 0, is_known=False)
        return not seen, MemberHistory(first_seen, meaningful)

    async def pass_at_once(self, entry: LogEntry, counts: Counts, *, is_meaningful: bool | None) -> bool:
        """Records a new message with its outcome, in one transaction; False if it was recorded meanwhile."""
        values = {**self._to_values(entry), "message_id": entry.message.message_id, "settled": True}

        def work(connection: Connection) -> bool:
            if connection.execute(self._insert_once, values).first() is None:
                return False
            self._count(connection, entry.message, counts, is_meaningful=is_meaningful)
            return True

        if not await self._database.run(work):
            return False
        self._counts.announce(counts)
        return True

    async def close(self, entry: LogEntry, counts: Counts, *, is_removed: bool, is_meaningful: bool | None) -> None:
        """Records the outcome in one transaction, with additions to the group's counters.

        `is_meaningful` is None for a message that does not count for its author.
        """
        message, row = entry.message, VERSIONS
        key = (row.group_id == message.group_id, row.message_id.in_(message.message_ids), row.version == entry.version)
        settle = update(ProcessedVersionRow).where(*key).values(settled=True, removed=is_removed)

        def work(connection: Connection) -> None:
            connection.execute(settle)
            self._count(connection, message, counts, is_meaningful=is_meaningful)

        await self._database.run(work)
        self._counts.announce(counts)

    async def member(self, group_id: int, member_id: int) -> MemberHistory:
        """Returns a member's history; for an unknown member it starts now."""
        return await self._database.run(
            lambda connection: self._read_member(connection, group_id, member_id), reading=True
        )

    async def album_parts(self, group_id: int, album: str) -> tuple[int, ...]:
        """Returns the message ids of an album that any replica has recorded."""
        row = ProcessedVersionRow
        found = select(row.message_id).where(row.group_id == group_id, row.album == album).distinct()
        return tuple(sorted(await self._database.run(lambda each: each.execute(found).scalars().all(), reading=True)))

    async def list_recent(self, group_id: int, author_id: int, since: datetime) -> tuple[int, ...]:
        """Returns the message ids of an author that were processed since then and are not deleted."""
        row = ProcessedVersionRow
        own = (row.group_id == group_id, row.author_id == author_id, row.seen_at >= since)
        found = select(row.message_id).where(*own, row.removed.is_(False)).distinct()
        return tuple(sorted(await self._database.run(lambda each: each.execute(found).scalars().all(), reading=True)))

    async def delete_expired(self) -> None:
        """Deletes versions older than `RETENTION`. Member histories stay."""
        expired = delete(ProcessedVersionRow).where(ProcessedVersionRow.seen_at < self._clock.now() - RETENTION)
        await self._database.run(lambda connection: connection.execute(expired) and None)

    def _to_values(self, entry: LogEntry) -> dict[str, object]:
        """Returns the row of a version, without the message id."""
        return {
            "group_id": entry.message.group_id, "version": entry.version, "album": entry.album,
            "links": json.dumps(sorted(_link_checksums(entry.message))), "seen_at": self._clock.now(),
            "settled": False, "removed": False, "author_id": entry.message.author.id,
        }  # fmt: skip

    def _record_version(self, connection: Connection, entry: LogEntry) -> VersionState:
        """Inserts a row per part of an album, and returns the state before that."""
        row, message, version, album = VERSIONS, entry.message, entry.version, entry.album
        links, common = _link_checksums(message), self._to_values(entry)
        own_parts = (row.group_id == message.group_id, row.message_id.in_(message.message_ids))
        columns = select(row.version, row.settled, row.removed, row.links, row.seen_at)
        known = connection.execute(columns.where(*own_parts)).all()
        connection.execute(self._insert, [{**common, "message_id": each} for each in message.message_ids])
        is_removed = any(each.removed for each in known)
        if album is not None and not is_removed:
            removed = select(row.message_id).where(row.group_id == message.group_id, row.album == album, row.removed)
            is_removed = connection.execute(removed.limit(1)).first() is not None
        earlier = [each for each in known if each.version != version]
        before = max(earlier, key=lambda each: each.seen_at, default=None)
        return VersionState(
            is_settled=any(each.settled for each in known if each.version == version),
            is_removed=is_removed,
            adds_link=message.edited_at is not None and not links <= set(json.loads(before.links) if before else ()),
        )

    def _read_member(self, connection: Connection, group_id: int, member_id: int) -> MemberHistory:
        row = connection.execute(_AUTHOR, {"group": group_id, "author": member_id}).one_or_none()
        if row is None:
            return MemberHistory(self._clock.now(), 0, is_known=False)
        return MemberHistory(row.first_seen, row.meaningful)

    def _count(
        self, connection: Connection, message: GroupMessage, counts: Counts, *, is_meaningful: bool | None
    ) -> None:
        """Adds to the group's counters, and to the author's messages."""
        self._counts.write(connection, message.group_id, counts)
        if is_meaningful is not None:
            author = {"group_id": message.group_id, "member_id": message.author.id, "first_seen": self._clock.now()}
            connection.execute(self._count_message, {**author, "meaningful": int(is_meaningful)})


def _link_checksums(message: GroupMessage) -> set[int]:
    """Returns checksums of the link targets. A mention addresses a member: an edit that adds one adds no link."""
    return {zlib.crc32(link.encode()) for link in (*message.links, *message.buttons) if not link.startswith("@")}
