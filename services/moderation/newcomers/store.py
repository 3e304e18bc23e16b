"""Stores the entries of people who joined, and each group's join gate and raid."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from cachetools import TTLCache
from sqlalchemy import Connection, Row, Table, bindparam, delete, func, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationEntryRow, ModerationMemberRow, ModerationNewcomerRow
from core.messages import Surface
from services.pseudonyms import Pseudonyms

CACHE_TTL_S = 1.0
CACHED_GROUPS = 10_000
_TABLE = cast("Table", ModerationNewcomerRow.__table__)
_NEWCOMER = select(_TABLE).where(_TABLE.c.group_id == bindparam("group"), _TABLE.c.member_id == bindparam("member"))
DEFAULT_RAID_RATE = 30
"""Joins a minute from which a raid is assumed; a group that is linked on a busy page gains about ten."""


class Gate(StrEnum):
    """The condition under which a person who joined may write."""

    OFF = "off"
    BUTTON = "button"
    QUESTION = "question"
    """A sum to answer in a private chat with the bot."""


class Trust(StrEnum):
    """Why a member is no newcomer."""

    NONE = "none"
    BEFORE = "before"
    """Was in the group before the bot saw its joins."""
    ADMIN = "admin"
    """An admin added or trusts them."""


class Passage(StrEnum):
    """The state of a person at the gate."""

    NONE = "none"
    WAITING = "waiting"
    """Muted by the bot until they pass."""
    REQUESTED = "requested"
    """Asked to join; the bot approves once they pass."""
    PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Entry:
    """The join gate of a group and its raid.

    Args:
        raid_rate: joins a minute from which raid mode begins by itself; 0: never.
        cleanup: whether the last hour of a newcomer who is muted or banned for spam is deleted.
        joins_since: when the bot began to see the joins; None: it does not.
        raid_until: end of the raid; None: no raid.
        raid_joins: people who joined during the raid.
        card: chat and message of the raid's card.
        notice: message in the group that asks newcomers to pass.
        pictures: newcomers' pictures that a model with vision judges a day; 0: none.
    """

    group_id: int
    gate: Gate = Gate.OFF
    raid_rate: int = DEFAULT_RAID_RATE
    cleanup: bool = False
    joins_since: datetime | None = None
    raid_until: datetime | None = None
    raid_joins: int = 0
    card: tuple[int, int] | None = None
    notice: int | None = None
    noticed_at: datetime | None = None
    pictures: int = 0

    def is_raid(self, now: datetime) -> bool:
        """Returns whether a raid goes on."""
        return self.raid_until is not None and now < self.raid_until

    def gate_at(self, now: datetime) -> Gate:
        """Returns the gate that applies: during a raid there always is one."""
        return Gate.BUTTON if self.gate is Gate.OFF and self.is_raid(now) else self.gate


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A person who joined, or is known not to have joined."""

    trust: Trust = Trust.NONE
    passage: Passage = Passage.NONE
    joined_at: datetime | None = None
    answer: int | None = None
    asked_at: datetime | None = None


class NewcomerStore:
    """Entries of groups and their newcomers. Methods raise StorageError when the database fails.

    Args:
        pseudonyms: aliases of erased people, under which their entries are stored.
    """

    def __init__(self, database: Database, clock: Clock, pseudonyms: Pseudonyms | None = None) -> None:
        self._pseudonyms = pseudonyms
        self._database = database
        self._clock = clock
        self._entries: TTLCache[int, Entry] = TTLCache(CACHED_GROUPS, CACHE_TTL_S, timer=clock.monotonic)

    async def entry(self, group_id: int, *, fresh: bool = False) -> Entry:
        """Returns a group's gate and raid, at most a second old unless `fresh`."""
        if not fresh and (known := self._entries.get(group_id)) is not None:
            return known
        async with self._database.reading() as session:
            row = await session.get(ModerationEntryRow, group_id)
        entry = self._entries[group_id] = Entry(group_id) if row is None else _to_entry(row)
        return entry

    async def change(self, group_id: int, **values: object) -> Entry:
        """Stores some values of a group's entry and returns it."""
        first = {"gate": Gate.OFF.value, "raid_rate": DEFAULT_RAID_RATE, "cleanup": False, "raid_joins": 0, **values}
        statement = self._database.insert(ModerationEntryRow).values(group_id=group_id, **first)
        async with self._database.session() as session:
            await session.execute(
                statement.on_conflict_do_update(index_elements=["group_id"], set_=values or {"group_id": group_id})
            )
        return await self.entry(group_id, fresh=True)

    async def claim_notice(self, group_id: int, pause: timedelta) -> bool:
        """Notes that the message to newcomers is posted now; of two joins at once one gets True."""
        row, now = ModerationEntryRow, self._clock.now()
        is_due = row.noticed_at.is_(None) | (row.noticed_at <= now - pause)
        async with self._database.session() as session:
            claimed = await session.execute(
                update(row).where(row.group_id == group_id, is_due).values(noticed_at=now).returning(row.group_id)
            )
            is_claimed = claimed.first() is not None
        self._entries.pop(group_id, None)
        return is_claimed

    async def begin_raid(self, group_id: int, until: datetime, joins: int) -> bool:
        """Starts a raid, or extends it; returns whether this call started it: one replica does."""
        row, now = ModerationEntryRow, self._clock.now()
        await self.change(group_id)
        async with self._database.session() as session:
            idle = (row.raid_until.is_(None)) | (row.raid_until <= now)
            started = await session.execute(
                update(row).where(row.group_id == group_id, idle).values(
                    raid_until=until, raid_joins=joins, card_chat_id=None, card_message_id=None
                ).returning(row.group_id)
            )  # fmt: skip
            is_new = started.first() is not None
            if not is_new:
                longer = update(row).where(row.group_id == group_id, row.raid_until < until)
                await session.execute(longer.values(raid_until=until))
        self._entries.pop(group_id, None)
        return is_new

    async def count_raid_join(self, group_id: int) -> None:
        """Counts a person who joined during a raid."""
        row = ModerationEntryRow
        async with self._database.session() as session:
            await session.execute(
                update(row).where(row.group_id == group_id).values(raid_joins=row.raid_joins + 1),
                execution_options={"synchronize_session": False},
            )

    async def ended_raids(self) -> list[Entry]:
        """Returns the groups whose raid has ended and whose card does not say so yet."""
        row = ModerationEntryRow
        ended = select(row).where(row.raid_until <= self._clock.now())
        async with self._database.reading() as session:
            return [_to_entry(each) for each in await session.scalars(ended)]

    async def find(self, group_id: int, member_id: int) -> Newcomer | None:
        """Returns the entry of a person; None if unknown."""
        alias = self._alias(member_id)

        def work(connection: Connection) -> Row[Any] | None:
            own = connection.execute(_NEWCOMER, {"group": group_id, "member": member_id}).one_or_none()
            if own is not None or alias is None:
                return own
            return connection.execute(_NEWCOMER, {"group": group_id, "member": alias}).one_or_none()

        row = await self._database.run(work, reading=True)
        if row is None:
            return None
        if row.member_id != member_id:
            await self._reclaim(group_id, row.member_id, member_id)
        return Newcomer(Trust(row.trust), Passage(row.passage), row.joined_at, row.answer, row.asked_at)

    def _alias(self, member_id: int) -> int | None:
        return self._pseudonyms.number(f"{Surface.TELEGRAM}:{member_id}") if self._pseudonyms is not None else None

    async def _reclaim(self, group_id: int, alias: int, member_id: int) -> None:
        """Gives the entry of a person who was forgotten back to them: they are in the group again, or still."""
        row = ModerationNewcomerRow
        own = update(row).where(row.group_id == group_id, row.member_id == alias).values(member_id=member_id)
        async with self._database.session() as session:
            if await session.get(row, (group_id, member_id)) is None:
                await session.execute(own, execution_options={"synchronize_session": False})

    async def put(self, group_id: int, member_id: int, **values: object) -> None:
        """Stores some values of a person's entry."""
        first = {"trust": Trust.NONE.value, "passage": Passage.NONE.value, **values}
        key = {"group_id": group_id, "member_id": member_id}
        statement = self._database.insert(ModerationNewcomerRow).values(**key, **first)
        conflict = statement.on_conflict_do_update(index_elements=list(key), set_=values or {"group_id": group_id})
        async with self._database.session() as session:
            await session.execute(conflict)

    async def take_passage(self, group_id: int, member_id: int) -> Passage:
        """Marks a person as passed and returns the state before: of two presses one gets `WAITING`."""
        row = ModerationNewcomerRow
        await self.find(group_id, member_id)
        async with self._database.session() as session:
            found = await session.get(row, (group_id, member_id), with_for_update=True)
            before = Passage.NONE if found is None else Passage(found.passage)
            if found is not None and before in {Passage.WAITING, Passage.REQUESTED}:
                found.passage = Passage.PASSED.value
        return before

    async def list_joined(self, group_id: int, since: datetime) -> list[int]:
        """Returns the people who joined since then and are not trusted."""
        row = ModerationNewcomerRow
        joined = select(row.member_id).where(
            row.group_id == group_id, row.joined_at >= since, row.trust == Trust.NONE.value
        )
        async with self._database.reading() as session:
            return list(await session.scalars(joined))

    async def count_passed(self, group_id: int, since: datetime) -> int:
        """Returns how many of those who joined since then have passed the gate."""
        row = ModerationNewcomerRow
        passed = select(func.count()).where(
            row.group_id == group_id, row.joined_at >= since, row.passage == Passage.PASSED.value
        )
        async with self._database.reading() as session:
            return int(await session.scalar(passed) or 0)

    async def forget_history(self, group_id: int, member_id: int) -> None:
        """Makes an established member a newcomer again."""
        row = ModerationMemberRow
        own = update(row).where(row.group_id == group_id, row.member_id == member_id)
        async with self._database.session() as session:
            await session.execute(
                own.values(meaningful=0, first_seen=self._clock.now()), execution_options={"synchronize_session": False}
            )
        await self.put(group_id, member_id, trust=Trust.NONE.value, joined_at=self._clock.now())

    async def delete_expired(self) -> None:
        """Deletes requests to join that were not passed within a day."""
        row, yesterday = ModerationNewcomerRow, self._clock.now() - timedelta(days=1)
        old = delete(row).where(row.passage == Passage.REQUESTED.value, row.asked_at < yesterday)
        async with self._database.session() as session:
            await session.execute(old, execution_options={"synchronize_session": False})


def _to_entry(row: ModerationEntryRow) -> Entry:
    card = None if row.card_chat_id is None or row.card_message_id is None else (row.card_chat_id, row.card_message_id)
    return Entry(
        row.group_id, Gate(row.gate), row.raid_rate, row.cleanup, row.joins_since, row.raid_until, row.raid_joins, card,
        row.notice_id, row.noticed_at, row.pictures or 0,
    )  # fmt: skip
