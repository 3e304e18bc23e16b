"""People who join: presence before the bot, trust, gate, raids and clean-up."""

import asyncio
from datetime import timedelta

import pytest

from services.moderation.case import Stage
from services.moderation.domain.ports import Administrators
from services.moderation.domain.settings import Mode
from services.moderation.domain.verdict import Category
from services.moderation.newcomers.gate import FOR_GOOD, AnswerResult, EntryTiming
from services.moderation.newcomers.newcomers import Join
from services.moderation.newcomers.store import DEFAULT_RAID_RATE, Gate, NewcomerStore, Passage, Trust
from tests.support.clock import ManualClock
from tests.support.group_messages import message
from tests.support.moderation_harness import ADMIN, GROUP, NEWCOMER, SCAM, SELF, ModerationHarness, judged

pytestmark = pytest.mark.integration

TIMING = EntryTiming()
TALK = "Does anyone know when the library opens on Sunday?"


@pytest.fixture
async def seeing(harness: ModerationHarness) -> ModerationHarness:
    """A bot that became an admin, and sees joins."""
    harness.group.admins = Administrators(frozenset({ADMIN, SELF}))
    await harness.newcomers.set_presence(GROUP, is_admin=True)
    return harness


async def say(harness: ModerationHarness, text: str = TALK, number: int = 1, author: int = NEWCOMER) -> Stage:
    said = message(text, number=number, author=author)
    return (await harness.pipeline.handle(said, harness.settings)).stage


async def join(harness: ModerationHarness, member: int = NEWCOMER, actor: int | None = None) -> None:
    await harness.newcomers.join(
        Join(GROUP, member, actor if actor is not None else member, harness.clock.now()), harness.settings
    )


class TestPresence:
    async def test_member_from_before_the_bot_is_no_newcomer(self, seeing: ModerationHarness) -> None:
        """For good: they are looked up once."""
        await say(seeing)
        seeing.group.absent.add(NEWCOMER)
        await say(seeing, f"{TALK} And on Monday?", 2)
        assert seeing.judge.request_count == 0

    async def test_member_who_joined_is_a_newcomer(self, seeing: ModerationHarness) -> None:
        await join(seeing)
        await say(seeing)
        assert seeing.judge.request_count == 1

    async def test_first_join_shows_that_the_bot_sees_joins(self, harness: ModerationHarness) -> None:
        await join(harness, NEWCOMER + 1)
        await say(harness)
        assert harness.judge.request_count == 0

    async def test_everyone_is_a_newcomer_where_the_bot_sees_no_joins(self, harness: ModerationHarness) -> None:
        await say(harness)
        assert harness.judge.request_count == 1

    async def test_guest_who_never_joined_is_a_newcomer(self, seeing: ModerationHarness) -> None:
        """Comments on a linked channel come from people who are not in the group."""
        seeing.group.absent.add(NEWCOMER)
        await say(seeing)
        assert seeing.judge.request_count == 1

    async def test_member_known_before_joins_were_seen_keeps_their_history(
        self, harness: ModerationHarness, clock: ManualClock
    ) -> None:
        await say(harness)
        clock.shift(60)
        await harness.newcomers.set_presence(GROUP, is_admin=True)
        await say(harness, number=2)
        assert harness.judge.request_count == 2

    async def test_joins_unseen_while_the_bot_was_no_admin_count_as_before(
        self, seeing: ModerationHarness, clock: ManualClock
    ) -> None:
        await seeing.newcomers.set_presence(GROUP, is_admin=True)
        clock.shift(60)
        await seeing.newcomers.set_presence(GROUP, is_admin=False)
        clock.shift(60)
        entry = await seeing.newcomers.store.entry(GROUP, fresh=True)
        assert entry.joins_since is None

    async def test_member_whom_an_admin_added_is_trusted(self, seeing: ModerationHarness) -> None:
        await join(seeing, actor=ADMIN)
        await say(seeing)
        assert seeing.judge.request_count == 0

    async def test_member_whom_a_member_added_is_a_newcomer(self, seeing: ModerationHarness) -> None:
        await join(seeing, actor=NEWCOMER + 1)
        await say(seeing)
        assert seeing.judge.request_count == 1

    async def test_own_approval_of_a_request_is_no_admins_invitation(self, seeing: ModerationHarness) -> None:
        await join(seeing, actor=SELF)
        await say(seeing)
        assert seeing.judge.request_count == 1

    async def test_trust_and_untrust(self, harness: ModerationHarness, clock: ManualClock) -> None:
        await harness.newcomers.trust(GROUP, NEWCOMER)
        await say(harness)
        assert harness.judge.request_count == 0
        for number in range(2, 6):
            await say(harness, f"{TALK} {number}", number)
        clock.shift(timedelta(days=30).total_seconds())
        await harness.newcomers.store.forget_history(GROUP, NEWCOMER)
        await say(harness, number=9)
        assert harness.judge.request_count == 1


class TestGate:
    async def test_button_lets_a_newcomer_write(self, seeing: ModerationHarness) -> None:
        await seeing.newcomers.store.change(GROUP, gate=Gate.BUTTON.value)
        await join(seeing)
        assert seeing.group.actions == [("mute", NEWCOMER, seeing.clock.now() + FOR_GOOD)]
        assert seeing.group.notices == [Gate.BUTTON]
        assert await seeing.newcomers.gate.press(GROUP, NEWCOMER) is AnswerResult.PASSED
        assert seeing.group.action_names == ["mute", "unmute"]
        assert await seeing.newcomers.gate.press(GROUP, NEWCOMER) is AnswerResult.NOTHING

    async def test_press_of_someone_else_does_nothing(self, seeing: ModerationHarness) -> None:
        await seeing.newcomers.store.change(GROUP, gate=Gate.BUTTON.value)
        await join(seeing)
        assert await seeing.newcomers.gate.press(GROUP, NEWCOMER + 1) is AnswerResult.NOTHING
        assert "unmute" not in seeing.group.action_names

    async def test_one_notice_serves_those_who_join_within_minutes(
        self, seeing: ModerationHarness, clock: ManualClock
    ) -> None:
        await seeing.newcomers.store.change(GROUP, gate=Gate.BUTTON.value)
        for member in range(1, 6):
            await join(seeing, member)
            clock.shift(10)
        assert len(seeing.group.notices) == 1
        clock.shift(TIMING.notice.total_seconds())
        await join(seeing, 99)
        assert len(seeing.group.notices) == 2
        assert ("delete notice", 501) in seeing.group.actions

    async def test_people_who_join_at_once_get_one_notice(self, seeing: ModerationHarness) -> None:
        await seeing.newcomers.store.change(GROUP, gate=Gate.BUTTON.value)
        await asyncio.gather(*(join(seeing, member) for member in range(1, 11)))
        assert seeing.group.notices == [Gate.BUTTON]

    async def test_question_takes_the_right_answer_only(self, seeing: ModerationHarness, clock: ManualClock) -> None:
        await seeing.newcomers.store.change(GROUP, gate=Gate.QUESTION.value)
        await join(seeing)
        assert await seeing.newcomers.gate.press(GROUP, NEWCOMER) is AnswerResult.WRONG
        assert await seeing.newcomers.gate.ask(GROUP, NEWCOMER, seeing.settings) is None
        known = await seeing.newcomers.store.find(GROUP, NEWCOMER)
        question = seeing.group.questions[0][1]
        assert known is not None
        assert known.answer is not None
        assert question is not None
        assert known.answer in question.answers
        assert known.answer == sum(map(int, question.text.split(" + ")))
        wrong = next(value for value in question.answers if value != known.answer)
        assert await seeing.newcomers.gate.answer(GROUP, NEWCOMER, wrong) is AnswerResult.WRONG
        # The right one comes too late, and the next question only after a pause.
        assert await seeing.newcomers.gate.answer(GROUP, NEWCOMER, known.answer) is AnswerResult.TOO_EARLY
        assert await seeing.newcomers.gate.ask(GROUP, NEWCOMER, seeing.settings) is AnswerResult.TOO_EARLY
        clock.shift(TIMING.retry.total_seconds())
        assert await seeing.newcomers.gate.ask(GROUP, NEWCOMER, seeing.settings) is None
        again = await seeing.newcomers.store.find(GROUP, NEWCOMER)
        assert again is not None
        assert again.answer is not None
        assert await seeing.newcomers.gate.answer(GROUP, NEWCOMER, again.answer) is AnswerResult.PASSED
        assert seeing.group.action_names == ["mute", "unmute"]

    async def test_request_to_join_is_approved_after_the_button_and_passes_the_gate(
        self, seeing: ModerationHarness
    ) -> None:
        await seeing.newcomers.store.change(GROUP, gate=Gate.BUTTON.value)
        await seeing.newcomers.gate.request(GROUP, NEWCOMER, 777, seeing.settings)
        assert seeing.group.questions == [(777, None)]
        known = await seeing.newcomers.store.find(GROUP, NEWCOMER)
        assert known is not None
        assert known.asked_at == seeing.clock.now()
        assert await seeing.newcomers.gate.press(GROUP, NEWCOMER) is AnswerResult.PASSED
        await join(seeing, actor=SELF)
        assert seeing.group.actions == [("approve", NEWCOMER)]

    async def test_answer_of_someone_who_need_not_pass_does_nothing(self, seeing: ModerationHarness) -> None:
        """They never joined, or have passed."""
        gate = seeing.newcomers.gate
        await seeing.newcomers.store.change(GROUP, gate=Gate.BUTTON.value)
        assert await gate.answer(GROUP, NEWCOMER, 1) is AnswerResult.NOTHING
        await join(seeing)
        await gate.press(GROUP, NEWCOMER)
        assert await gate.answer(GROUP, NEWCOMER, 1) is AnswerResult.NOTHING

    async def test_request_is_the_admins_without_a_gate(self, seeing: ModerationHarness) -> None:
        await seeing.newcomers.gate.request(GROUP, NEWCOMER, 777, seeing.settings)
        assert seeing.group.questions == []

    async def test_restriction_of_an_admin_stays(self, seeing: ModerationHarness) -> None:
        await seeing.newcomers.store.change(GROUP, gate=Gate.BUTTON.value)
        await join(seeing)
        await seeing.newcomers.gate.restricted_by_admin(GROUP, NEWCOMER)
        assert await seeing.newcomers.gate.press(GROUP, NEWCOMER) is AnswerResult.NOTHING
        assert seeing.group.action_names == ["mute"]

    async def test_dry_run_restricts_no_one(self, seeing: ModerationHarness) -> None:
        seeing.settings = await seeing.groups.change(seeing.settings, mode=Mode.DRY)
        await seeing.newcomers.store.change(GROUP, gate=Gate.BUTTON.value)
        await join(seeing)
        assert (seeing.group.actions, seeing.group.notices) == ([], [])


class TestRaid:
    async def test_raid_of_300_joins_is_one_card_and_holds_everyone(
        self, seeing: ModerationHarness, clock: ManualClock
    ) -> None:
        for member in range(1000, 1300):
            await join(seeing, member)
            clock.shift(0.1)
        assert seeing.group.raids == [DEFAULT_RAID_RATE]
        assert {action[1] for action in seeing.group.actions} == set(range(1000, 1300))
        assert seeing.group.notices == [Gate.BUTTON]
        assert await seeing.newcomers.gate.press(GROUP, 1000) is AnswerResult.PASSED
        clock.shift(TIMING.raid.total_seconds() + 1)
        await seeing.run_round()
        await seeing.run_round()
        assert seeing.group.ended_raids == [(300, 1)]
        await join(seeing, 2000)
        assert ("mute", 2000) not in [action[:2] for action in seeing.group.actions]

    async def test_joins_of_a_day_are_no_raid(self, seeing: ModerationHarness, clock: ManualClock) -> None:
        for member in range(1000, 1100):
            await join(seeing, member)
            clock.shift(10)
        assert (seeing.group.raids, seeing.group.actions) == ([], [])

    async def test_raid_by_hand(self, seeing: ModerationHarness) -> None:
        await join(seeing, 1)
        await seeing.newcomers.start_raid(seeing.settings)
        await seeing.newcomers.start_raid(seeing.settings)
        await join(seeing, 2)
        assert len(seeing.group.raids) == 1
        assert [action[:2] for action in seeing.group.actions] == [("mute", 1), ("mute", 2)]
        assert await seeing.newcomers.stop_raid(seeing.settings)
        assert not await seeing.newcomers.stop_raid(seeing.settings)
        await join(seeing, 3)
        assert len(seeing.group.actions) == 2

    async def test_raid_starts_once_over_replicas(self, seeing: ModerationHarness, other: ModerationHarness) -> None:
        await seeing.newcomers.start_raid(seeing.settings)
        await other.newcomers.start_raid(other.settings)
        assert len(seeing.group.raids) == 1


class TestCleanup:
    @pytest.mark.parametrize(("is_wanted", "deleted"), [(True, [(3,), (1, 2)]), (False, [(3,)])])
    async def test_last_hour_of_a_muted_newcomer_is_deleted_where_wanted(
        self, harness: ModerationHarness, clock: ManualClock, *, is_wanted: bool, deleted: list[tuple[int, ...]]
    ) -> None:
        await harness.newcomers.store.change(GROUP, cleanup=is_wanted)
        harness.judge.script.extend([judged(Category.OK, 99)] * 3 + [SCAM])
        await say(harness, "Hello everybody here", number=9)
        clock.shift(2 * 3600)
        await say(harness, number=1)
        await say(harness, "And another one, hello", number=2)
        await say(harness, "Earn 500 a day, write me", number=3)
        assert [action[1] for action in harness.group.actions if action[0] == "delete"] == deleted

    @pytest.mark.parametrize(("confidence", "mode", "deleted"), [(85, Mode.ENFORCE, [(2,)]), (97, Mode.DRY, [])])
    async def test_messages_of_a_newcomer_without_a_sanction_stay(
        self, harness: ModerationHarness, *, confidence: int, mode: Mode, deleted: list[tuple[int, ...]]
    ) -> None:
        await harness.newcomers.store.change(GROUP, cleanup=True)
        harness.settings = await harness.groups.change(harness.settings, mode=mode)
        harness.judge.script.extend([judged(Category.OK, 99), judged(Category.JOB_SCAM, confidence)])
        await say(harness, number=1)
        await say(harness, "Earn 500 a day, write me", number=2)
        assert [action[1] for action in harness.group.actions if action[0] == "delete"] == deleted


async def test_store_keeps_what_is_known_of_a_person(harness: ModerationHarness) -> None:
    store = harness.newcomers.store
    await store.put(GROUP, 5, passage=Passage.WAITING.value)
    await store.put(GROUP, 5, trust=Trust.ADMIN.value)
    known = await store.find(GROUP, 5)
    assert known is not None
    assert (known.trust, known.passage) == (Trust.ADMIN, Passage.WAITING)
    assert isinstance(store, NewcomerStore)
