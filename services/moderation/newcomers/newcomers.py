"""Decides who is a newcomer, and handles joins and raids."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog

from core.clock import Clock
from services.moderation.domain.message import AuthorKind, GroupMessage
from services.moderation.domain.ports import AdminDirectory, Sanctions
from services.moderation.domain.settings import GroupSettings
from services.moderation.newcomers.gate import EntryTiming, GateMessenger, JoinGate, Notices
from services.moderation.newcomers.store import Entry, Gate, NewcomerStore, Passage, Trust
from services.moderation.records.message_log import MemberHistory

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Join:
    """A person who joined a group, or was added by `actor_id`."""

    group_id: int
    member_id: int
    actor_id: int
    at: datetime
    is_bot: bool = False


class MemberDirectory(AdminDirectory, Protocol):
    """Knows who is in a group."""

    async def is_present(self, group_id: int, user_id: int) -> bool | None:
        """Returns whether a user is in a group at this moment; None when the look-up failed."""
        ...


class Newcomers:
    """Newcomers of all groups."""

    def __init__(
        self,
        store: NewcomerStore,
        members: MemberDirectory,
        sanctions: Sanctions,
        messages: GateMessenger,
        reporter: Notices,
        self_id: int,
        clock: Clock,
        timing: EntryTiming | None = None,
    ) -> None:
        self.store = store
        self._members = members
        self._messages = messages
        self._reporter = reporter
        self._self_id = self_id
        self._clock = clock
        self._timing = timing or EntryTiming()
        self.gate = JoinGate(store, sanctions, messages, reporter, clock, self._timing)

    async def is_newcomer(self, message: GroupMessage, history: MemberHistory) -> bool:
        """Returns whether a message's author is a newcomer: by their history, unless they are trusted."""
        if not history.is_newcomer(self._clock.now()):
            return False
        group_id, author = message.group_id, message.author
        known = await self.store.find(group_id, author.id)
        if known is not None:
            return known.trust is Trust.NONE
        if author.kind is not AuthorKind.USER or not await self._sees_joins(group_id, history):
            return True
        if await self._members.is_present(group_id, author.id) is not True:
            # Comments on a linked channel come from people who never joined.
            return True
        await self.store.put(group_id, author.id, trust=Trust.BEFORE.value)
        return False

    async def wants_cleanup(self, group_id: int) -> bool:
        """Returns whether the last hour of a sanctioned newcomer is deleted."""
        return (await self.store.entry(group_id)).cleanup

    async def picture_budget(self, group_id: int) -> int:
        """Returns how many of newcomers' pictures a group has judged a day; 0: none."""
        return (await self.store.entry(group_id)).pictures

    async def trust(self, group_id: int, member_id: int) -> None:
        """Makes a person an established member, and lifts the gate for them."""
        await self.store.put(group_id, member_id, trust=Trust.ADMIN.value)
        await self.gate.let_through(group_id, member_id)

    async def join(self, join: Join, settings: GroupSettings) -> None:
        """Handles a join: records it, begins a raid where too many join, and closes the gate. Idempotent."""
        # Telegram reports joins to admins only: it does from now on at the latest.
        await self.set_presence(join.group_id, is_admin=True)
        known = await self.store.find(join.group_id, join.member_id)
        if known is not None and known.trust is Trust.ADMIN:
            return
        is_invited = join.actor_id not in {join.member_id, self._self_id}
        if join.is_bot or (is_invited and await self._is_admin(join.group_id, join.actor_id)):
            await self.store.put(join.group_id, join.member_id, trust=Trust.ADMIN.value, joined_at=join.at)
            return
        await self.store.put(join.group_id, join.member_id, trust=Trust.NONE.value, joined_at=join.at)
        entry = await self._watch_raid(join, settings)
        gate = entry.gate_at(self._clock.now())
        has_passed = known is not None and known.passage is Passage.PASSED
        if gate is not Gate.OFF and not has_passed and not settings.is_dry:
            await self.gate.hold(join.group_id, join.member_id)
            await self.gate.refresh_notice(settings, entry, gate)

    async def start_raid(self, settings: GroupSettings) -> None:
        """Starts a raid by hand; those who joined within the last minute have to pass, too."""
        until = self._clock.now() + self._timing.manual_raid
        if await self.store.begin_raid(settings.group_id, until, 0):
            await self._announce_raid(settings)

    async def stop_raid(self, settings: GroupSettings) -> bool:
        """Ends a raid now; returns False if there was none."""
        entry = await self.store.entry(settings.group_id, fresh=True)
        if entry.raid_until is None:
            return False
        await self._end_raid(entry, settings)
        return True

    async def end_raids(self, read_settings: "GroupReader") -> None:
        """Ends the raids whose time is over."""
        for entry in await self.store.ended_raids():
            settings = await read_settings.get(entry.group_id)
            if settings is not None:
                await self._end_raid(entry, settings)

    async def set_presence(self, group_id: int, *, is_admin: bool) -> None:
        """Notes that the bot became an admin and sees joins from now on, or that it does not any more."""
        entry = await self.store.entry(group_id)
        if is_admin != (entry.joins_since is not None):
            await self.store.change(group_id, joins_since=self._clock.now() if is_admin else None)

    async def _sees_joins(self, group_id: int, history: MemberHistory) -> bool:
        """Returns whether the bot has seen all joins since before this member's first message."""
        joins_since = (await self.store.entry(group_id)).joins_since
        return joins_since is not None and (not history.is_known or history.first_seen >= joins_since)

    async def _is_admin(self, group_id: int, user_id: int) -> bool:
        admins = await self._members.get_admins(group_id)
        return admins is not None and user_id in admins.user_ids

    async def _watch_raid(self, join: Join, settings: GroupSettings) -> Entry:
        """Counts a join, and begins or extends a raid where the rate is reached."""
        group_id, now = join.group_id, self._clock.now()
        entry = await self.store.entry(group_id, fresh=True)
        if entry.is_raid(now):
            await self.store.count_raid_join(group_id)
        joined = await self.store.list_joined(group_id, now - self._timing.window) if entry.raid_rate else []
        if not entry.raid_rate or len(joined) < entry.raid_rate:
            return entry
        if await self.store.begin_raid(group_id, now + self._timing.raid, len(joined)):
            await self._announce_raid(settings)
        return await self.store.entry(group_id, fresh=True)

    async def _announce_raid(self, settings: GroupSettings) -> None:
        """Shows the one card of a raid, and holds those who joined just before it."""
        group_id, since = settings.group_id, self._clock.now() - self._timing.window
        entry = await self.store.entry(group_id, fresh=True)
        log.warning("moderation.raid_started", group_id=group_id, joins=entry.raid_joins)
        self._reporter.put_notice(group_id, lambda: self._show_raid(settings, entry))
        if settings.is_dry:
            return
        for member_id in await self.store.list_joined(group_id, since):
            known = await self.store.find(group_id, member_id)
            if known is not None and known.passage is Passage.NONE:
                await self.gate.hold(group_id, member_id)
        await self.gate.refresh_notice(settings, entry, entry.gate_at(self._clock.now()))

    async def _show_raid(self, settings: GroupSettings, entry: Entry) -> None:
        card = await self._messages.show_raid(settings, entry)
        if card is not None:
            await self.store.change(settings.group_id, card_chat_id=card.chat_id, card_message_id=card.message_id)

    async def _end_raid(self, entry: Entry, settings: GroupSettings) -> None:
        log.info("moderation.raid_ended", group_id=entry.group_id, joins=entry.raid_joins)
        passed = await self.store.count_passed(entry.group_id, self._clock.now() - self._timing.manual_raid)
        await self._messages.end_raid(settings, entry, passed)
        await self.store.change(entry.group_id, raid_until=None)


class GroupReader(Protocol):
    """Reads the settings of groups."""

    async def get(self, group_id: int) -> GroupSettings | None:
        """Returns a group's settings."""
        ...
