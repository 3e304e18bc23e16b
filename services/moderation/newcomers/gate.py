"""Join gate of a group: a button, a question, or an approved join request."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

import structlog

from core.clock import Clock
from services.moderation.domain.ports import ActionResult, CardLocation, Sanctions
from services.moderation.domain.settings import GroupSettings
from services.moderation.newcomers.store import Entry, Gate, Newcomer, NewcomerStore, Passage

log = structlog.get_logger()


FOR_GOOD = timedelta(days=400)
"""Duration that Telegram treats as permanent: more than 366 days."""
LARGEST_TERM = 9


@dataclass(frozen=True, slots=True)
class EntryTiming:
    """Times of joins.

    Args:
        window: period in which joins are counted.
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


class GateMessenger(Protocol):
    """Writes to people at the gate and, about raids, to admins; approves requests to join."""

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


class JoinGate:
    """Mutes those who join, and lets them through once they pass.

    Args:
        reporter: sends notices in the background.
    """

    def __init__(
        self,
        store: NewcomerStore,
        sanctions: Sanctions,
        messages: GateMessenger,
        reporter: Notices,
        clock: Clock,
        timing: EntryTiming,
    ) -> None:
        self._store = store
        self._sanctions = sanctions
        self._messages = messages
        self._reporter = reporter
        self._clock = clock
        self._timing = timing

    async def request(self, group_id: int, member_id: int, chat_id: int, settings: GroupSettings) -> None:
        """Handles a request to join: with a gate the person is asked in private; without one the admins decide."""
        gate = (await self._store.entry(group_id)).gate_at(self._clock.now())
        if gate is Gate.OFF or settings.is_dry:
            return
        await self._store.put(group_id, member_id, passage=Passage.REQUESTED.value, asked_at=None)
        question = await self._draw_question(group_id, member_id) if gate is Gate.QUESTION else None
        if question is None:
            await self._store.put(group_id, member_id, asked_at=self._clock.now())
        await self._messages.ask_in_private(settings, chat_id, question)

    async def ask(self, group_id: int, member_id: int, settings: GroupSettings) -> AnswerResult | None:
        """Sends the question to a person who opened the private chat from the gate; None if it was sent."""
        known = await self._store.find(group_id, member_id)
        if known is None or known.passage not in {Passage.WAITING, Passage.REQUESTED}:
            return AnswerResult.NOTHING
        gate = (await self._store.entry(group_id)).gate_at(self._clock.now())
        question = await self._draw_question(group_id, member_id) if gate is Gate.QUESTION else None
        if question is None and gate is Gate.QUESTION:
            return AnswerResult.TOO_EARLY
        await self._messages.ask_in_private(settings, member_id, question)
        return None

    async def press(self, group_id: int, member_id: int) -> AnswerResult:
        """Handles a press on the button: it passes, unless the gate asks a question."""
        gate = (await self._store.entry(group_id)).gate_at(self._clock.now())
        return AnswerResult.WRONG if gate is Gate.QUESTION else await self.let_through(group_id, member_id)

    async def answer(self, group_id: int, member_id: int, answer: int) -> AnswerResult:
        """Checks an answer to the question; a wrong one voids it."""
        known, now = await self._store.find(group_id, member_id), self._clock.now()
        if known is None or known.passage not in {Passage.WAITING, Passage.REQUESTED}:
            return AnswerResult.NOTHING
        if known.answer is None:
            return AnswerResult.TOO_EARLY
        if answer != known.answer:
            await self._store.put(group_id, member_id, answer=None, asked_at=now)
            return AnswerResult.WRONG
        return await self.let_through(group_id, member_id)

    async def restricted_by_admin(self, group_id: int, member_id: int) -> None:
        """Notes that an admin has restricted a person at the gate: passing it lifts nothing any more."""
        known = await self._store.find(group_id, member_id)
        if known is not None and known.passage is Passage.WAITING:
            await self._store.put(group_id, member_id, passage=Passage.NONE.value)

    async def hold(self, group_id: int, member_id: int) -> None:
        """Mutes a person until they pass."""
        result = await self._sanctions.mute(group_id, member_id, self._clock.now() + FOR_GOOD)
        if result.is_effective and result is not ActionResult.GONE:
            await self._store.put(group_id, member_id, passage=Passage.WAITING.value)
        else:
            log.warning("moderation.gate_failed", group_id=group_id, result=result.value)

    async def let_through(self, group_id: int, member_id: int) -> AnswerResult:
        """Lifts the mute of a person who passed, or approves their request to join."""
        match await self._store.take_passage(group_id, member_id):
            case Passage.WAITING:
                result = await self._sanctions.unmute(group_id, member_id)
                is_through = result.is_effective
                state = Passage.WAITING
            case Passage.REQUESTED:
                is_through = await self._messages.approve(group_id, member_id)
                state = Passage.REQUESTED
            case Passage.PASSED | Passage.NONE:
                return AnswerResult.NOTHING
        if not is_through:
            # To be tried again.
            await self._store.put(group_id, member_id, passage=state.value)
            return AnswerResult.FAILED
        return AnswerResult.PASSED

    async def refresh_notice(self, settings: GroupSettings, entry: Entry, gate: Gate) -> None:
        """Posts the message that asks newcomers to pass, once in a while, in place of the one before."""
        if entry.noticed_at is not None and self._clock.now() - entry.noticed_at < self._timing.notice:
            return
        if not await self._store.claim_notice(settings.group_id, self._timing.notice):
            return
        self._reporter.put_notice(settings.group_id, lambda: self._post_notice(settings, entry, gate))

    async def _post_notice(self, settings: GroupSettings, entry: Entry, gate: Gate) -> None:
        posted = await self._messages.post_notice(settings, gate)
        if posted is None:
            await self._store.change(settings.group_id, noticed_at=None)
            return
        await self._store.change(settings.group_id, notice_id=posted)
        if entry.notice is not None:
            await self._messages.delete_notice(settings.group_id, entry.notice)

    async def _draw_question(self, group_id: int, member_id: int) -> Question | None:
        """Draws a question and stores its answer; None while a wrong answer was given a moment ago."""
        known: Newcomer | None = await self._store.find(group_id, member_id)
        now, retry = self._clock.now(), self._timing.retry
        if known is not None and known.answer is None and known.asked_at is not None and now - known.asked_at < retry:
            return None
        draw = random.SystemRandom()
        one, other = draw.randint(2, LARGEST_TERM), draw.randint(2, LARGEST_TERM)
        right = one + other
        wrong = draw.sample([each for each in range(right - 4, right + 5) if each not in {right, 0}], 3)
        answers = [right, *wrong]
        draw.shuffle(answers)
        await self._store.put(group_id, member_id, answer=right, asked_at=now)
        return Question(f"{one} + {other}", tuple(answers))
