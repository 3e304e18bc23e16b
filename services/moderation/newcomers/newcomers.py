"""Decides who is a newcomer, and handles joins: gate, raid mode, requests to join."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import structlog

from core.clock import Clock
from services.moderation.domain.message import AuthorKind, GroupMessage
from services.moderation.domain.ports import ActionResult, AdminDirectory, CardLocation, Sanctions
from services.moderation.domain.settings import GroupSettings
from services.moderation.newcomers.store import Entry, Gate, Newcomer, NewcomerStore, Passage, Trust
from services.moderation.records.message_log import MemberHistory

log = structlog.get_logger()

FOR_GOOD = timedelta(days=400)
"""Telegram takes more than 366 days for ever."""
LARGEST_TERM = 9


@dataclass(frozen=True, slots=True)
class EntryTiming:
    """Times of joins.

    Args:
        window: in which joins are counted.
        raid: length of a raid after the rate was last reached.
        manual_raid: length of a raid that an admin started.
        notice: age at which the message that asks newcomers to pass is posted again.
        retry: pause after a wrong answer.
    """

    window: timedelta = timedelta(minutes=1)
    raid: timedelta = timedelta(minutes=30)
    manual_raid: timedelta = timedelta(days=1)
    notice: timedelta = timedelta(minutes=10)
    retry: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Join:
    """A person who joined a group, or was added by `actor_id`."""

    group_id: int
    member_id: int
    actor_id: int
    at: datetime
    is_bot: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A sum with four answers, one of which is right."""

    text: str
    answers: tuple[int, ...]


class AnswerResult(StrEnum):
    """Result of a try to pass."""

    PASSED = "passed"
    WRONG = "wrong"
    TOO_EARLY = "too_early"
    NOTHING = "nothing"
    """There is nothing to pass: passed before, or not asked."""
    FAILED = "failed"
    """Telegram did not lift the mute, or approve the request."""


class MemberDirectory(AdminDirectory, Protocol):
    """Knows who is in a group."""

    async def is_present(self, group_id: int, user_id: int) -> bool | None:
        """Returns whether a user is in a group at this moment; None when the look-up failed."""
        ...


class Doorkeeper(Protocol):
    """Tells people at the gate, and the admins about raids."""

    async def post_notice(self, settings: GroupSettings, gate: Gate) -> int | None:
        """Posts the message with the button in the group; returns its id, None if it was not accepted."""
        ...

    async def delete_notice(self, group_id: int, message_id: int) -> None:
        """Deletes that message."""
        ...

    async def ask_in_private(self, settings: GroupSettings, chat_id: int, question: Question | None) -> bool:
        """Asks a person in private to answer, or to press a button; returns whether the message arrived."""
        ...

    async def show_raid(self, settings: GroupSettings, entry: Entry) -> CardLocation | None:
        """Posts a raid's card to the admins."""
        ...

    async def end_raid(self, settings: GroupSettings, entry: Entry, passed: int) -> None:
        """Edits a raid's card to its end."""
        ...

    async def approve(self, group_id: int, user_id: int) -> bool:
        """Approves a request to join; returns whether Telegram did."""
        ...


class Notices(Protocol):
    """Sends messages in the background, at the pace that Telegram allows: no sanction waits for one."""

    def put_notice(self, group_id: int, notice: Callable[[], Awaitable[None]]) -> None:
        """Queues a message to a group or its admins."""
        ...


class Newcomers:
    """Newcomers of all groups."""

    def __init__(
        self,
        store: NewcomerStore,
        members: MemberDirectory,
        sanctions: Sanctions,
        doorkeeper: Doorkeeper,
        reporter: Notices,
        self_id: int,
        clock: Clock,
        timing: EntryTiming | None = None,
    ) -> None:
        self.store = store
        self._members = members
        self._sanctions = sanctions
        self._doorkeeper = doorkeeper
        self._reporter = reporter
        self._self_id = self_id
        self._clock = clock
        self._timing = timing or EntryTiming()

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
        await self._let_through(group_id, member_id)

    async def untrust(self, group_id: int, member_id: int) -> None:
        """Makes a person a newcomer again."""
        await self.store.forget_history(group_id, member_id)

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
            await self._hold(join.group_id, join.member_id)
            await self._refresh_notice(settings, entry, gate)

    async def request(self, group_id: int, member_id: int, chat_id: int, settings: GroupSettings) -> None:
        """Handles a request to join: with a gate the person is asked in private; without one the admins decide."""
        gate = (await self.store.entry(group_id)).gate_at(self._clock.now())
        if gate is Gate.OFF or settings.is_dry:
            return
        await self.store.put(group_id, member_id, passage=Passage.REQUESTED.value, asked_at=None)
        question = await self._draw_question(group_id, member_id) if gate is Gate.QUESTION else None
        if question is None:
            await self.store.put(group_id, member_id, asked_at=self._clock.now())
        await self._doorkeeper.ask_in_private(settings, chat_id, question)

    async def ask(self, group_id: int, member_id: int, settings: GroupSettings) -> AnswerResult | None:
        """Sends the question to a person who opened the private chat from the gate; None if it was sent."""
        known = await self.store.find(group_id, member_id)
        if known is None or known.passage not in {Passage.WAITING, Passage.REQUESTED}:
            return AnswerResult.NOTHING
        gate = (await self.store.entry(group_id)).gate_at(self._clock.now())
        question = await self._draw_question(group_id, member_id) if gate is Gate.QUESTION else None
        if question is None and gate is Gate.QUESTION:
            return AnswerResult.TOO_EARLY
        await self._doorkeeper.ask_in_private(settings, member_id, question)
        return None

    async def press(self, group_id: int, member_id: int) -> AnswerResult:
        """Handles a press on the button: it passes, unless the gate asks a question."""
        gate = (await self.store.entry(group_id)).gate_at(self._clock.now())
        return AnswerResult.WRONG if gate is Gate.QUESTION else await self._let_through(group_id, member_id)

    async def answer(self, group_id: int, member_id: int, answer: int) -> AnswerResult:
        """Checks an answer to the question; a wrong one voids it."""
        known, now = await self.store.find(group_id, member_id), self._clock.now()
        if known is None or known.passage not in {Passage.WAITING, Passage.REQUESTED}:
            return AnswerResult.NOTHING
        if known.answer is None:
            return AnswerResult.TOO_EARLY
        if answer != known.answer:
            await self.store.put(group_id, member_id, answer=None, asked_at=now)
            return AnswerResult.WRONG
        return await self._let_through(group_id, member_id)

    async def restricted_by_admin(self, group_id: int, member_id: int) -> None:
        """Notes that an admin has restricted a person at the gate: passing it lifts nothing any more."""
        known = await self.store.find(group_id, member_id)
        if known is not None and known.passage is Passage.WAITING:
            await self.store.put(group_id, member_id, passage=Passage.NONE.value)

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
                await self._hold(group_id, member_id)
        await self._refresh_notice(settings, entry, entry.gate_at(self._clock.now()))

    async def _show_raid(self, settings: GroupSettings, entry: Entry) -> None:
        card = await self._doorkeeper.show_raid(settings, entry)
        if card is not None:
            await self.store.change(settings.group_id, card_chat_id=card.chat_id, card_message_id=card.message_id)

    async def _end_raid(self, entry: Entry, settings: GroupSettings) -> None:
        log.info("moderation.raid_ended", group_id=entry.group_id, joins=entry.raid_joins)
        passed = await self.store.count_passed(entry.group_id, self._clock.now() - self._timing.manual_raid)
        await self._doorkeeper.end_raid(settings, entry, passed)
        await self.store.change(entry.group_id, raid_until=None)

    async def _hold(self, group_id: int, member_id: int) -> None:
        """Mutes a person until they pass."""
        result = await self._sanctions.mute(group_id, member_id, self._clock.now() + FOR_GOOD)
        if result.is_effective and result is not ActionResult.GONE:
            await self.store.put(group_id, member_id, passage=Passage.WAITING.value)
        else:
            log.warning("moderation.gate_failed", group_id=group_id, result=result.value)

    async def _let_through(self, group_id: int, member_id: int) -> AnswerResult:
        match await self.store.take_passage(group_id, member_id):
            case Passage.WAITING:
                result = await self._sanctions.unmute(group_id, member_id)
                is_through = result.is_effective
                state = Passage.WAITING
            case Passage.REQUESTED:
                is_through = await self._doorkeeper.approve(group_id, member_id)
                state = Passage.REQUESTED
            case Passage.PASSED | Passage.NONE:
                return AnswerResult.NOTHING
        if not is_through:
            # To be tried again.
            await self.store.put(group_id, member_id, passage=state.value)
            return AnswerResult.FAILED
        return AnswerResult.PASSED

    async def _refresh_notice(self, settings: GroupSettings, entry: Entry, gate: Gate) -> None:
        """Posts the message that asks newcomers to pass, once in a while, in place of the one before."""
        now = self._clock.now()
        if entry.noticed_at is not None and now - entry.noticed_at < self._timing.notice:
            return
        await self.store.change(settings.group_id, noticed_at=now)
        self._reporter.put_notice(settings.group_id, lambda: self._post_notice(settings, entry, gate))

    async def _post_notice(self, settings: GroupSettings, entry: Entry, gate: Gate) -> None:
        posted = await self._doorkeeper.post_notice(settings, gate)
        if posted is None:
            await self.store.change(settings.group_id, noticed_at=None)
            return
        await self.store.change(settings.group_id, notice_id=posted)
        if entry.notice is not None:
            await self._doorkeeper.delete_notice(settings.group_id, entry.notice)

    async def _draw_question(self, group_id: int, member_id: int) -> Question | None:
        """Draws a question and stores its answer; None while a wrong answer was given a moment ago."""
        known: Newcomer | None = await self.store.find(group_id, member_id)
        now, retry = self._clock.now(), self._timing.retry
        if known is not None and known.answer is None and known.asked_at is not None and now - known.asked_at < retry:
            return None
        draw = random.SystemRandom()
        one, other = draw.randint(2, LARGEST_TERM), draw.randint(2, LARGEST_TERM)
        right = one + other
        wrong = draw.sample([each for each in range(right - 4, right + 5) if each not in {right, 0}], 3)
        answers = [right, *wrong]
        draw.shuffle(answers)
        await self.store.put(group_id, member_id, answer=right, asked_at=now)
        return Question(f"{one} + {other}", tuple(answers))


class GroupReader(Protocol):
    """Reads the settings of groups."""

    async def get(self, group_id: int) -> GroupSettings | None:
        """Returns a group's settings."""
        ...
