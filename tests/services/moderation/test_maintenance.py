"""Maintenance: orphaned incidents, pending messages and retention, over replicas and crashes."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select, text
from structlog.testing import capture_logs

from core.db.database import Database
from core.db.moderation_tables import ModerationIncidentRow, ModerationPendingRow
from services.moderation.case import Stage
from services.moderation.domain.incident import Resolution
from services.moderation.domain.message import GroupMessage
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import Category, Judgement, NoVerdictReason, Unjudged
from services.moderation.maintenance import MaintenanceTiming
from services.moderation.records.incidents import IncidentTiming
from services.moderation.records.pending import PendingTiming
from services.moderation.text.normalise import Normal
from tests.support.clock import ManualClock, until
from tests.support.moderation_harness import (
    OUTAGE,
    SCAM,
    ModerationHarness,
    judged,
)

pytestmark = pytest.mark.integration

REFUSED = Unjudged(NoVerdictReason.REFUSED, "a")
TIMING = IncidentTiming()
RETRY = PendingTiming().backoff


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
    await other.run_round()
    assert harness.group.cards == []
    clock.shift(TIMING.lease.total_seconds() + 1)
    await other.run_round()
    await harness.run_round()
    assert harness.group.action_names == expected
    assert len(harness.group.cards) == 1


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
    await other.run_round()
    await harness.run_round()
    assert harness.group.action_names == ["mute", "delete", "unmute"]
    assert [card.undone_by for card in harness.group.refreshed] == ["Ann"]


async def test_retention_erases_incident_text_after_a_week(
    harness: ModerationHarness, database: Database, clock: ManualClock
) -> None:
    """In the database and on the card; the category stays."""
    harness.judge.default = SCAM
    await harness.pipeline.handle(harness.message("Buy this secret thing, I pay by the day"), harness.settings)
    clock.shift(TIMING.text_retention.total_seconds() - 60)
    await harness.run_round()
    assert harness.group.refreshed == []
    clock.shift(601)
    await harness.run_round()
    async with database.reading() as session:
        row = (await session.scalars(select(ModerationIncidentRow))).one()
    assert (row.text, row.evidence, row.author_name, row.category) == (None, None, "", "job_scam")
    assert [card.is_erased for card in harness.group.refreshed] == [True]
    await harness.run_round()
    assert len(harness.group.refreshed) == 1


async def test_card_that_flood_control_holds_is_erased_later(harness: ModerationHarness, clock: ManualClock) -> None:
    harness.judge.default = SCAM
    await harness.pipeline.handle(harness.message("Buy this secret thing, I pay by the day"), harness.settings)
    harness.group.is_held = True
    clock.shift(TIMING.text_retention.total_seconds() + 1)
    await harness.run_round()
    assert harness.group.refreshed == []
    harness.group.is_held = False
    await harness.run_round()
    assert [(card.is_erased, card.finding.text) for card in harness.group.refreshed] == [(True, "")]


async def test_pending_message_is_judged_within_ten_minutes_of_recovery(
    harness: ModerationHarness, clock: ManualClock
) -> None:
    harness.judge.default = OUTAGE
    message = harness.message()
    assert (await harness.pipeline.handle(message, harness.settings)).stage is Stage.WAITS
    for _ in range(180):
        clock.shift(20)
        await harness.run_round()
    # An hour of outage: retried with a backoff, one alert.
    assert 8 < harness.judge.request_count < 20
    assert harness.group.alerts == ["moderation-outage"]
    harness.judge.default = SCAM
    for _ in range(30):
        clock.shift(20)
        await harness.run_round()
    assert harness.group.action_names == ["mute", "delete"]
    assert await harness.pending.take_due(8) == []


async def test_message_that_cannot_be_judged_holds_up_no_other(harness: ModerationHarness, clock: ManualClock) -> None:
    """The oldest waits for ever, the second triggers a bug; the others are judged as soon as a provider is back."""
    harness.judge.default = OUTAGE
    for number in range(12):
        await harness.pending.put(harness.message(number=number), "v")
    harness.judge.default = REFUSED
    harness.judge.script.extend([OUTAGE, RuntimeError("a bug")])
    clock.shift(RETRY.longest_s + 1)
    await harness.run_round()
    # They are of one author, so they are on one card.
    assert len(harness.group.cards) == 1
    assert harness.group.refreshed[-1].tally.messages == 10
    assert len(await harness.pending.take_due(20)) == 0
    clock.shift(RETRY.longest_s + 1)
    assert len(await harness.pending.take_due(20)) == 2


async def test_outage_is_probed_by_few_messages(harness: ModerationHarness, clock: ManualClock) -> None:
    harness.judge.default = OUTAGE
    for number in range(12):
        await harness.pending.put(harness.message(number=number), "v")
    clock.shift(RETRY.longest_s + 1)
    before = harness.judge.request_count
    await harness.run_round()
    assert harness.judge.request_count == before + MaintenanceTiming().probes


async def test_many_messages_are_judged_within_ten_minutes_of_recovery(
    harness: ModerationHarness, clock: ManualClock
) -> None:
    """A fifth of 500, in a fifth of the time that is left after the longest pause; a judgement takes 1.5 s."""
    harness.judge.default = OUTAGE
    for number in range(100):
        await harness.pending.put(harness.message(number=number), "v")
    for _ in range(20):
        clock.shift(60)
        await harness.run_round()
    harness.judge.default, before = judged(Category.OK, 99), harness.judge.request_count
    clock.shift(RETRY.longest_s)
    spent = 0.0
    while harness.judge.request_count < before + 100:
        asked = harness.judge.request_count
        await harness.run_round()
        spent += 20 + 1.5 * (harness.judge.request_count - asked) / MaintenanceTiming().parallel
        assert spent < 60


async def test_failing_step_leaves_the_others_alone(harness: ModerationHarness, clock: ManualClock) -> None:
    """Incidents cannot be finished, yet expired text is erased and pending messages are judged."""
    harness.judge.default = SCAM
    harness.group.failures["delete"] = RuntimeError("killed")
    with pytest.raises(RuntimeError, match="killed"):
        await harness.pipeline.handle(harness.message(number=1), harness.settings)
    harness.judge.default = OUTAGE
    await harness.pipeline.handle(harness.message(number=2), harness.settings)
    harness.judge.default = SCAM
    clock.shift(max(TIMING.lease.total_seconds(), RETRY.longest_s) + 1)
    harness.group.failures["delete"] = RuntimeError("still broken")
    await harness.run_round()
    assert [card.finding.message_ids for card in harness.group.cards] == [(2,)]


async def test_take_due_gives_message_to_one_replica(
    harness: ModerationHarness, other: ModerationHarness, clock: ManualClock
) -> None:
    harness.judge.default = OUTAGE
    await harness.pipeline.handle(harness.message(), harness.settings)
    clock.shift(RETRY.first_s + 1)
    taken = await asyncio.gather(harness.pending.take_due(8), other.pending.take_due(8))
    assert sorted(map(len, taken)) == [0, 1]
    # If that replica dies, another one takes the message later.
    clock.shift(RETRY.longest_s + 1)
    assert len(await other.pending.take_due(8)) == 1


@pytest.mark.parametrize(("score", "cards"), [(95, 1), (10, 0)])
async def test_message_is_given_up_after_a_day_of_outage(
    harness: ModerationHarness, clock: ManualClock, score: int, cards: int
) -> None:
    """A suspicious one of a newcomer becomes a card, another one passes; neither waits any longer."""
    harness.judge.default, harness.judge.fixed_score = OUTAGE, score
    await harness.pipeline.handle(harness.message(), harness.settings)
    clock.shift(timedelta(hours=26).total_seconds())
    await harness.run_round()
    assert len(harness.group.cards) == cards
    assert harness.group.actions == []
    clock.shift(3600)
    assert await harness.pending.take_due(8) == []


async def test_slow_judgement_holds_up_no_other(harness: ModerationHarness, clock: ManualClock) -> None:
    """One of 20 takes for ever: the others are judged meanwhile."""
    harness.judge.default = OUTAGE
    for number in range(20):
        await harness.pending.put(harness.message(number=number), "v")
    harness.judge.default = judged(Category.OK, 99)
    clock.shift(RETRY.longest_s + 1)
    judge, never = harness.judge.judge, asyncio.Event()

    async def hang(message: GroupMessage, normal: Normal, settings: GroupSettings) -> Judgement:
        if message.message_id == 5:
            await never.wait()
        return await judge(message, normal, settings)

    harness.judge.judge = hang
    running = asyncio.create_task(harness.run_round())
    await until(lambda: harness.judge.request_count == 19)
    assert not running.done()
    never.set()
    await running


async def test_round_waits_for_its_judgements_when_the_database_fails(
    harness: ModerationHarness, database: Database, clock: ManualClock
) -> None:
    """One judgement goes on while the other seven workers end."""
    harness.judge.default = OUTAGE
    for number in range(20):
        await harness.pending.put(harness.message(number=number), "v")
    harness.judge.default = judged(Category.OK, 99)
    clock.shift(RETRY.longest_s + 1)
    judge, broken, never = harness.judge.judge, asyncio.Event(), asyncio.Event()

    async def hang(message: GroupMessage, normal: Normal, settings: GroupSettings) -> Judgement:
        if message.message_id == 5:
            await rename("moderation_pending", "moderation_pending_gone")
            broken.set()
            await never.wait()
        elif message.message_id >= MaintenanceTiming().probes:
            await broken.wait()
            raise RuntimeError("a bug: the worker goes on to the next message")
        return await judge(message, normal, settings)

    async def rename(name: str, new: str) -> None:
        async with database.session() as session:
            await session.execute(text(f"ALTER TABLE {name} RENAME TO {new}"))

    harness.judge.judge = hang
    with capture_logs() as logs:
        running = asyncio.create_task(harness.run_round())
        await until(lambda: len([each for each in logs if each["log_level"] == "warning"]) == 7)
    assert not running.done()
    await rename("moderation_pending_gone", "moderation_pending")
    never.set()
    await running


@pytest.mark.parametrize(("database_url", "hours"), [("sqlite", 24), ("postgresql", 4)], indirect=["database_url"])
async def test_outage_of_hours_ends_within_ten_minutes(
    harness: ModerationHarness, clock: ManualClock, hours: int
) -> None:
    """Messages wait from its first to its last hour; retention and orphans go on meanwhile."""
    harness.judge.default = SCAM
    await harness.pipeline.handle(harness.message("An old advert, I pay by the day", 9999), harness.settings)
    clock.shift(TIMING.text_retention.total_seconds() - 3600)
    harness.judge.default = OUTAGE
    for hour in range(hours):
        for part in range(12):
            if part == 0:
                await harness.pipeline.handle(
                    harness.message(f"A question of hour {hour}?", hour + 1), harness.settings
                )
            clock.shift(300)
            await harness.run_round()
    assert any(card.is_erased for card in harness.group.refreshed)
    asked, harness.judge.default = harness.judge.request_count, judged(Category.OK, 99)
    for _ in range(30):
        clock.shift(20)
        await harness.run_round()
    assert harness.judge.request_count - asked == hours
    clock.shift(RETRY.longest_s)
    assert await harness.pending.take_due(8) == []


async def test_take_due_survives_many_attempts(
    harness: ModerationHarness, database: Database, clock: ManualClock
) -> None:
    """The pause stays at its limit; doubling it without one overflows after 41 attempts."""
    await harness.pending.put(harness.message(), "v")
    async with database.session() as session:
        row = (await session.scalars(select(ModerationPendingRow))).one()
        row.attempts = 2000
    clock.shift(RETRY.first_s + 1)
    assert len(await harness.pending.take_due(8)) == 1
    clock.shift(RETRY.longest_s + 1)
    assert len(await harness.pending.take_due(8)) == 1
