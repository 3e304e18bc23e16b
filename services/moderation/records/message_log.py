"""Log of processed messages: each version is processed once over all replicas; members become established.

No text is stored, only a digest per version and checksums of its link targets, to compare the next version with.
"""

import hashlib
import json
import zlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Executable, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationMemberRow, ProcessedVersionRow
from services.moderation.domain.message import GroupMessage
from services.moderation.records.counts import Counts, DailyCounts

RETENTION = timedelta(days=7)
"""A later edit counts as a new message."""
ESTABLISHED_MESSAGES = 3
ESTABLISHED_AFTER = timedelta(days=7)


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

    async def open(self, entry: LogEntry) -> tuple[VersionState, MemberHistory]:
        """Records a version before it is judged; returns its state and its author's history."""
        message = entry.message
        async with self._database.session() as session:
            state = await self._record_version(session, entry)
            return state, await self._read_member(session, message.group_id, message.author.id)

    async def look_up(self, entry: LogEntry) -> tuple[bool, MemberHistory]:
        """Returns whether a single message was not seen before, and its author's history, in one statement."""
        message, row, member = entry.message, ProcessedVersionRow, ModerationMemberRow
        is_author = (member.group_id == message.group_id, member.member_id == message.author.id)
        is_seen = select(row.message_id).where(
            row.group_id == message.group_id, row.message_id == message.message_id
        ).exists()  # fmt: skip
        columns = select(
            is_seen,
            select(member.first_seen).where(*is_author).scalar_subquery(),
            select(member.meaningful).where(*is_author).scalar_subquery(),
        )
        async with self._database.reading() as session:
            seen, first_seen, meaningful = (await session.execute(columns)).one()
        if first_seen is None:  # pyright: ignore[reportUnnecessaryComparison] - an outer value may be missing
            return not seen, MemberHistory(self._clock.now(), 0, is_known=False)
        return not seen, MemberHistory(first_seen, meaningful)

    async def pass_at_once(self, entry: LogEntry, counts: Counts, *, is_meaningful: bool | None) -> bool:
        """Records a new message with its outcome, in one transaction; False if it was recorded meanwhile."""
        message, row = entry.message, ProcessedVersionRow
        values = {**self._to_values(entry), "message_id": message.message_id, "settled": True}
        insert = self._database.insert(row).values(values)
        unique = insert.on_conflict_do_nothing(index_elements=["group_id", "message_id", "version"])
        statements = [self._counts.add_statement(message.group_id, counts)]
        if is_meaningful is not None:
            statements.append(self._count_message(message.group_id, message.author.id, is_meaningful=is_meaningful))
        async with self._database.session() as session:
            if (await session.execute(unique.returning(row.message_id))).first() is None:
                return False
            for statement in statements:
                if statement is not None:
                    await session.execute(statement)
        return True

    async def close(self, entry: LogEntry, counts: Counts, *, is_removed: bool, is_meaningful: bool | None) -> None:
        """Records the outcome in one transaction, with additions to the group's counters.

        `is_meaningful` is None for a message that does not count for its author.
        """
        message, row = entry.message, ProcessedVersionRow
        key = (row.group_id == message.group_id, row.message_id.in_(message.message_ids), row.version == entry.version)
        settle = update(row).where(*key).values(settled=True, removed=is_removed)
        statements = [settle, self._counts.add_statement(message.group_id, counts)]
        if is_meaningful is not None:
            statements.append(self._count_message(message.group_id, message.author.id, is_meaningful=is_meaningful))
        async with self._database.session() as session:
            for statement in statements:
                if statement is not None:
                    await session.execute(statement)

    async def member(self, group_id: int, member_id: int) -> MemberHistory:
        """Returns a member's history; for an unknown member it starts now."""
        async with self._database.reading() as session:
            return await self._read_member(session, group_id, member_id)

    async def album_parts(self, group_id: int, album: str) -> tuple[int, ...]:
        """Returns the message ids of an album that any replica has recorded."""
        row = ProcessedVersionRow
        found = select(row.message_id).where(row.group_id == group_id, row.album == album).distinct()
        async with self._database.reading() as session:
            return tuple(sorted(await session.scalars(found)))

    async def list_recent(self, group_id: int, author_id: int, since: datetime) -> tuple[int, ...]:
        """Returns the message ids of an author that were processed since then and are not deleted."""
        row = ProcessedVersionRow
        own = (row.group_id == group_id, row.author_id == author_id, row.seen_at >= since)
        found = select(row.message_id).where(*own, row.removed.is_(False)).distinct()
        async with self._database.reading() as session:
            return tuple(sorted(await session.scalars(found)))

    async def delete_expired(self) -> None:
        """Deletes versions older than `RETENTION`. Member histories stay."""
        expired = delete(ProcessedVersionRow).where(ProcessedVersionRow.seen_at < self._clock.now() - RETENTION)
        async with self._database.session() as session:
            await session.execute(expired, execution_options={"synchronize_session": False})

    def _to_values(self, entry: LogEntry) -> dict[str, object]:
        """Returns the row of a version, without the message id."""
        return {
            "group_id": entry.message.group_id, "version": entry.version, "album": entry.album,
            "links": json.dumps(sorted(_link_checksums(entry.message))), "seen_at": self._clock.now(),
            "settled": False, "removed": False, "author_id": entry.message.author.id,
        }  # fmt: skip

    async def _record_version(self, session: AsyncSession, entry: LogEntry) -> VersionState:
        """Inserts a row per part of an album, and returns the state before that."""
        row, message, version, album = ProcessedVersionRow, entry.message, entry.version, entry.album
        links, common = _link_checksums(message), self._to_values(entry)
        own_parts = row.message_id.in_(message.message_ids)
        known = (await session.scalars(select(row).where(row.group_id == message.group_id, own_parts))).all()
        insert = self._database.insert(row).values(
            [{**common, "message_id": message_id} for message_id in message.message_ids]
        )
        await session.execute(insert.on_conflict_do_nothing(index_elements=["group_id", "message_id", "version"]))
        is_removed = any(each.removed for each in known)
        if album is not None and not is_removed:
            removed = select(row.message_id).where(row.group_id == message.group_id, row.album == album, row.removed)
            is_removed = (await session.scalars(removed.limit(1))).first() is not None
        earlier = [each for each in known if each.version != version]
        before = max(earlier, key=lambda each: each.seen_at, default=None)
        return VersionState(
            is_settled=any(each.settled for each in known if each.version == version),
            is_removed=is_removed,
            adds_link=message.edited_at is not None and not links <= set(json.loads(before.links) if before else ()),
        )

    async def _read_member(self, session: AsyncSession, group_id: int, member_id: int) -> MemberHistory:
        row = await session.get(ModerationMemberRow, (group_id, member_id))
        if row is None:
            return MemberHistory(self._clock.now(), 0, is_known=False)
        return MemberHistory(row.first_seen, row.meaningful)

    def _count_message(self, group_id: int, member_id: int, *, is_meaningful: bool) -> Executable:
        row = ModerationMemberRow
        values = {"group_id": group_id, "member_id": member_id, "first_seen": self._clock.now()}
        statement = self._database.insert(row).values(**values, meaningful=int(is_meaningful))
        sums = {"meaningful": row.meaningful + int(is_meaningful)}
        return statement.on_conflict_do_update(index_elements=["group_id", "member_id"], set_=sums)


def _link_checksums(message: GroupMessage) -> set[int]:
    """Returns checksums of the link targets. A mention addresses a member: an edit that adds one adds no link."""
    return {zlib.crc32(link.encode()) for link in (*message.links, *message.buttons) if not link.startswith("@")}
