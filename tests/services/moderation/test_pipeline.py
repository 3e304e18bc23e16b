"""Pipeline, enforcement and maintenance: each step happens once over replicas, crashes and days."""

import asyncio
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import select

from core.db.database import Database
from core.db.moderation_tables import ModerationIncidentRow
from core.redis.client import open_redis
from services.moderation.actions import ResolveResult
from services.moderation.domain.incident import Resolution
from services.moderation.domain.policy import MUTE
from services.moderation.domain.ports import ActionResult
from services.moderation.domain.verdict import Category
from services.moderation.pipeline import Stage
from services.moderation.records.incidents import IncidentTiming
from services.moderation.records.pending import PendingTiming
from tests.support.clock import ManualClock
from tests.support.moderation_harness import (
    NEWCOMER,
    OUTAGE,
    SCAM,
    ModerationHarness,
    RecordingGroup,
    ScriptedJudge,
    judged,
)

TIMING = IncidentTiming()
RETRY = PendingTiming().backoff


@pytest.fixture
async def shared_redis() -> Redis:
    return open_redis(None)


@pytest.fixture
async def harness(database: Database, shared_redis: Redis, clock: ManualClock) -> ModerationHarness:
    harness = ModerationHarness(database, shared_redis, clock, RecordingGroup(), ScriptedJudge())
    await harness.groups.put(harness.settings)
    return harness


@pytest.fixture
async def other(
    harness: ModerationHarness, replica: Database, shared_redis: Redis, clock: ManualClock
) -> ModerationHarness:
    """A second replica of the same group, with the same judge."""
    return ModerationHarness(replica, shared_redis, clock, harness.group, harness.judge)


async def test_pipeline_sanctions_then_deletes_then_shows_card(harness: ModerationHarness) -> None:
    harness.judge.script.append(SCAM)
    outcome = await harness.pipeline.handle(harness.message(), harness.settings)
    assert (outcome.stage, outcome.removed) == (Stage.FOUND, True)
    assert harness.group.actions == [("mute", NEWCOMER, harness.clock.now() + MUTE), ("delete", (1,))]
    assert [card.id for card in harness.group.cards] == [outcome.incident]


async def test_pipeline_acts_once_for_concurrent_replicas(harness: ModerationHarness, other: ModerationHarness) -> None:
    """One incident, one sanction, one deletion, one card."""
    harness.judge.default = SCAM
    message = harness.message()
    await asyncio.gather(*(each.pipeline.handle(message, each.settings) for each in (harness, other)))
    assert harness.group.action_names == ["mute", "delete"]
    assert len(harness.group.cards) == 1
    assert (await harness.counts.total(-100, 1)).acted == 1


@pytest.mark.parametrize(
    ("fails_at", "expected"),
    [
        # Before the sanction, between it and the deletion, before the card: recorded steps are not repeated.
        ("mute", ["mute", "delete"]),
        ("delete", ["mute", "delete"]),
        ("show", ["mute", "delete"]),
    ],
)
async def test_maintenance_finishes_incident_of_dead_replica(
    harness: ModerationHarness, other: ModerationHarness, clock: ManualClock, fails_at: str, expected: list[str]
) -> None:
    harness.judge.default = SCAM
    harness.group.failures[fails_at] = RuntimeError("killed")
    with pytest.raises(RuntimeError, match="killed"):
        await harness.pipeline.handle(harness.message(), harness.settings)
    # The lease is still valid.
    await other.maintenance.run_once()
    assert harness.group.cards == []
    clock.shift(TIMING.lease.total_seconds() + 1)
    await other.maintenance.run_once()
    await harness.maintenance.run_once()
    assert harness.group.action_names == expected
    assert len(harness.group.cards) == 1


async def test_pipeline_resumes_repeated_update_from_recorded_progress(
    harness: ModerationHarness, clock: ManualClock
) -> None:
    harness.judge.default = SCAM
    harness.group.failures["delete"] = RuntimeError("killed")
    message = harness.message()
    with pytest.raises(RuntimeError, match="killed"):
        await harness.pipeline.handle(message, harness.settings)
    clock.shift(TIMING.lease.total_seconds() + 1)
    assert (await harness.pipeline.handle(message, harness.settings)).removed
    again = await harness.pipeline.handle(message, harness.settings)
    assert (again.stage, again.removed) == (Stage.REPEATED, True)
    assert harness.group.action_names == ["mute", "delete"]
    assert len(harness.group.cards) == 1


@pytest.mark.parametrize("resolution", list(Resolution))
async def test_resolve_takes_effect_once_for_two_admins(
    harness: ModerationHarness, other: ModerationHarness, resolution: Resolution
) -> None:
    harness.judge.default = SCAM
    outcome = await harness.pipeline.handle(harness.message(), harness.settings)
    incident = await harness.incidents.get(outcome.incident or 0)
    assert incident is not None
    pressed = [each.actions.resolve(incident, resolution, each.settings, "Ann") for each in (harness, other)]
    results = [result for result, _ in await asyncio.gather(*pressed)]
    assert sorted(results) == [ResolveResult.DONE, ResolveResult.TOO_LATE]
    done = {Resolution.UNDO: ["unmute"], Resolution.BAN: ["ban"], Resolution.CONFIRM: []}[resolution]
    assert harness.group.action_names[2:] == done
    assert harness.judge.learned == [resolution is not Resolution.UNDO]


async def test_maintenance_finishes_undo_of_dead_replica(
    harness: ModerationHarness, other: ModerationHarness, clock: ManualClock
) -> None:
    """The author does not stay muted."""
    harness.judge.default = SCAM
    outcome = await harness.pipeline.handle(harness.message(), harness.settings)
    incident = await harness.incidents.get(outcome.incident or 0)
    assert incident is not None
    harness.group.failures["unmute"] = RuntimeError("killed")
    with pytest.raises(RuntimeError, match="killed"):
        await harness.actions.resolve(incident, Resolution.UNDO, harness.settings, "Ann")
    clock.shift(TIMING.lease.total_seconds() + 1)
    await other.maintenance.run_once()
    await harness.maintenance.run_once()
    assert harness.group.action_names == ["mute", "delete", "unmute"]
    assert [card.undone_by for card in harness.group.refreshed] == ["Ann"]


async def test_resolve_after_undo_is_too_late(harness: ModerationHarness) -> None:
    harness.judge.default = SCAM
    outcome = await harness.pipeline.handle(harness.message(), harness.settings)
    incident = await harness.incidents.get(outcome.incident or 0)
    assert incident is not None
    for resolution, result in (
        (Resolution.UNDO, ResolveResult.DONE),
        (Resolution.BAN, ResolveResult.TOO_LATE),
        (Resolution.CONFIRM, ResolveResult.TOO_LATE),
    ):
        assert (await harness.actions.resolve(incident, resolution, harness.settings, "Ann"))[0] is result
    assert (await harness.counts.total(-100, 1)).undone == 1


async def test_retention_erases_incident_text_after_a_week(
    harness: ModerationHarness, database: Database, clock: ManualClock
) -> None:
    """In the database and on the card; the category stays."""
    harness.judge.default = SCAM
    await harness.pipeline.handle(harness.message("Buy this secret thing, I pay by the day"), harness.settings)
    clock.shift(TIMING.text_retention.total_seconds() - 60)
    await harness.maintenance.run_once()
    assert harness.group.refreshed == []
    clock.shift(601)
    await harness.maintenance.run_once()
    async with database.reading() as session:
        row = (await session.scalars(select(ModerationIncidentRow))).one()
    assert (row.text, row.evidence, row.author_name, row.category) == (None, None, "", "job_scam")
    assert [card.is_erased for card in harness.group.refreshed] == [True]
    await harness.maintenance.run_once()
    assert len(harness.group.refreshed) == 1


async def test_pending_message_is_judged_within_ten_minutes_of_recovery(
    harness: ModerationHarness, clock: ManualClock
) -> None:
    harness.judge.default = OUTAGE
    message = harness.message()
    assert (await harness.pipeline.handle(message, harness.settings)).stage is Stage.WAITS
    for _ in range(180):
        clock.shift(20)
        await harness.maintenance.run_once()
    # An hour of outage: retried with a backoff, one alert.
    assert 8 < harness.judge.request_count < 20
    assert harness.group.alerts == ["moderation-outage"]
    harness.judge.default = SCAM
    for _ in range(30):
        clock.shift(20)
        await harness.maintenance.run_once()
    assert harness.group.action_names == ["mute", "delete"]
    assert await harness.pending.take_due() == []


async def test_take_due_gives_message_to_one_replica(
    harness: ModerationHarness, other: ModerationHarness, clock: ManualClock
) -> None:
    harness.judge.default = OUTAGE
    await harness.pipeline.handle(harness.message(), harness.settings)
    clock.shift(RETRY.first_s + 1)
    taken = await asyncio.gather(harness.pending.take_due(), other.pending.take_due())
    assert sorted(map(len, taken)) == [0, 1]
    # If that replica dies, another one takes the message later.
    clock.shift(RETRY.longest_s + 1)
    assert len(await other.pending.take_due()) == 1


async def test_take_due_drops_message_after_a_day(harness: ModerationHarness, clock: ManualClock) -> None:
    harness.judge.default = OUTAGE
    await harness.pipeline.handle(harness.message(), harness.settings)
    clock.shift(timedelta(hours=25).total_seconds())
    assert await harness.pending.take_due() == []
    clock.shift(3600)
    assert await harness.pending.take_due() == []


async def test_enforcement_shows_one_card_for_a_flood(harness: ModerationHarness, clock: ManualClock) -> None:
    harness.judge.default = judged(Category.OK, 99)
    for number in range(1, 13):
        await harness.pipeline.handle(harness.message(f"message {number} of many", number), harness.settings)
    assert harness.group.action_names == ["delete"] * 6
    assert len(harness.group.cards) == 1


async def test_warnings_expire_after_thirty_days(harness: ModerationHarness, clock: ManualClock) -> None:
    """The third valid one mutes."""
    harness.judge.default = judged(Category.TOXIC, 92)
    for number, days in ((1, 0), (2, 20), (3, 15)):
        clock.shift(timedelta(days=days).total_seconds())
        await harness.pipeline.handle(harness.message(f"You are such idiots {number}", number), harness.settings)
    # The first one is 35 days old by now.
    assert harness.group.actions == [("warn", 1), ("warn", 2), ("warn", 2)]
    clock.shift(60)
    await harness.pipeline.handle(harness.message("You are such idiots again", 4), harness.settings)
    assert harness.group.action_names[3:] == ["warn", "mute"]


async def test_alerts_repeat_missing_right_with_growing_pause(
    harness: ModerationHarness, other: ModerationHarness, clock: ManualClock
) -> None:
    """By one replica each time."""
    days: list[int] = []
    for hour in range(24 * 30):
        before = len(harness.group.alerts)
        for each in (harness, other):
            await each.alerts.report_right(each.settings, "delete", ActionResult.NO_RIGHT)
        days += [hour // 24] * (len(harness.group.alerts) - before)
        clock.shift(3600)
    assert days == [0, 1, 3, 7, 14, 21, 28]
    assert set(harness.group.alerts) == {"moderation-no-right-delete"}
    await other.alerts.report_right(other.settings, "delete", ActionResult.DONE)
    # The other replica remembers the pause until it is over.
    await other.alerts.report_right(other.settings, "delete", ActionResult.NO_RIGHT)
    assert len(harness.group.alerts) == len(days) + 1


async def test_alerts_keep_their_redis_format(
    harness: ModerationHarness, shared_redis: Redis, clock: ManualClock
) -> None:
    """Replicas of another version read the same keys and fields."""
    await harness.alerts.report_outage(harness.settings)
    stored = await shared_redis.hgetall("t:mod:{-100}:told:outage")
    assert (float(stored["until"]), stored["told"]) == (clock.time() + 3600, "1")
