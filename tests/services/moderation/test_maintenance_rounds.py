"""The rounds of the maintenance: what ends one, what is given up, and how the steps repeat."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from core.background import cancel_and_wait
from core.db.database import Database
from core.errors import StorageError
from core.redis.client import open_redis
from services.moderation.domain.message import GroupMessage
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import Category, Judgement
from services.moderation.maintenance import MaintenanceTiming
from services.moderation.records.members import ReportStore
from services.moderation.records.pending import PendingTiming
from services.moderation.text.normalise import Normal
from tests.support.clock import ManualClock, until
from tests.support.group_messages import message
from tests.support.moderation_harness import OUTAGE, ModerationHarness, RecordingGroup, ScriptedJudge, judged

pytestmark = pytest.mark.integration

OK = judged(Category.OK, 99)
RETRY = PendingTiming().backoff
TIMING = MaintenanceTiming(step_s=2)


@pytest.fixture
async def harness(file: Database, clock: ManualClock) -> ModerationHarness:
    """A replica whose steps may take two seconds."""
    harness = ModerationHarness(file, open_redis(None), clock, RecordingGroup(), ScriptedJudge(), timing=TIMING)
    await harness.groups.change(harness.settings)
    return harness


async def wait_with(harness: ModerationHarness, count: int) -> None:
    """Has messages wait for a verdict until they are due."""
    for number in range(count):
        await harness.pending.put(harness.message(number=number), "v")
    harness.clock.shift(RETRY.longest_s + 1)


async def count_waiting(harness: ModerationHarness) -> int:
    """Counts the messages that wait, all of which are due after a while."""
    harness.clock.shift(RETRY.longest_s + 1)
    return len(await harness.pending.take_due(100))


async def test_round_ends_when_the_outage_returns(harness: ModerationHarness) -> None:
    """Each of the workers asks once more than the probes."""
    await wait_with(harness, 30)
    harness.judge.script.extend([OK] * TIMING.probes)
    harness.judge.default = OUTAGE
    await harness.run_round()
    assert harness.judge.request_count == TIMING.probes + TIMING.parallel


async def test_round_ends_when_the_database_fails(harness: ModerationHarness) -> None:
    await wait_with(harness, 12)
    harness.judge.script.extend([StorageError("the database is gone")] * TIMING.probes)
    with capture_logs() as logs:
        await harness.run_round()
    assert harness.judge.request_count == TIMING.probes
    failed = [(each["log_level"], each["reason"]) for each in logs if each["event"] == "moderation.rejudge_failed"]
    assert failed == [("warning", "the database is gone")] * TIMING.probes


async def test_message_of_a_group_without_settings_waits_no_longer(harness: ModerationHarness) -> None:
    await harness.pending.put(message("Hello?", group=-200), "v")
    harness.clock.shift(RETRY.longest_s + 1)
    await harness.run_round()
    assert (await count_waiting(harness), harness.judge.request_count) == (0, 0)


@pytest.mark.parametrize(("hours", "waiting"), [(1, 1), (26, 0)])
async def test_message_that_triggers_a_bug_is_given_up_after_a_day(
    harness: ModerationHarness, hours: int, waiting: int
) -> None:
    await wait_with(harness, 1)
    harness.clock.shift(timedelta(hours=hours).total_seconds())
    harness.judge.script.append(RuntimeError("a bug"))
    with capture_logs() as logs:
        await harness.run_round()
    assert await count_waiting(harness) == waiting
    assert [each["log_level"] for each in logs if each["event"] == "moderation.rejudge_failed"] == ["error"]


async def test_steps_repeat_and_one_that_takes_too_long_is_cut(harness: ModerationHarness, clock: ManualClock) -> None:
    """The message that hangs is judged in another round."""
    await wait_with(harness, 1)
    judge, never, asked = harness.judge.judge, asyncio.Event(), list[int]()

    async def hang(message: GroupMessage, normal: Normal, settings: GroupSettings) -> Judgement:
        asked.append(message.message_id)
        if len(asked) == 1:
            await never.wait()
        return await judge(message, normal, settings)

    harness.judge.judge = hang
    with capture_logs() as logs:
        running = asyncio.create_task(harness.maintenance.run())
        await until(lambda: [each for each in logs if each.get("reason") == "timeout"])
        assert "pending" in [each["step"] for each in logs if each.get("reason") == "timeout"]
        clock.shift(RETRY.longest_s)
        await clock.advance(TIMING.round_s)
        await until(lambda: [each for each in logs if each["event"] == "moderation.rejudged"])
        await cancel_and_wait(running)
    assert asked == [0, 0]
    assert await count_waiting(harness) == 0


async def test_failing_store_keeps_no_other_from_deleting_expired_rows(
    harness: ModerationHarness, file: Database, clock: ManualClock
) -> None:
    reports = ReportStore(file, clock)
    await reports.add(-100, 1, 7)
    async with file.session() as session:
        await session.execute(text("ALTER TABLE moderation_messages RENAME TO gone"))
    clock.shift(timedelta(days=31).total_seconds())
    with capture_logs() as logs:
        await harness.run_round()
    failed = [each for each in logs if each["event"] == "moderation.maintenance_failed"]
    assert [(each["step"], each["log_level"]) for each in failed] == [("MessageLog", "warning")]
    # The member may report the message again.
    assert (await reports.add(-100, 1, 7)).count == 1
