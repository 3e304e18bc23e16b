"""What is recorded, done and finished once: over replicas, crashes and days."""

import asyncio
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import select

from core.db.database import Database
from core.db.moderation_tables import ModerationIncidentRow
from core.redis.client import open_redis
from services.moderation.actions import Resolved
from services.moderation.domain.incident import Resolution
from services.moderation.domain.policy import MUTE
from services.moderation.domain.verdict import Category
from services.moderation.pipeline import Stage
from services.moderation.records.incidents import LEASE, READABLE
from services.moderation.records.pending import FIRST_PAUSE, LONGEST_PAUSE
from tests.support.clock import ManualClock
from tests.support.moderation_harness import NEWCOMER, OUTAGE, SCAM, ModerationHarness, Recorder, Scripted, judged


@pytest.fixture
async def store() -> Redis:
    return open_redis(None)


@pytest.fixture
async def bench(database: Database, store: Redis, clock: ManualClock) -> ModerationHarness:
    bench = ModerationHarness(database, store, clock, Recorder(), Scripted())
    await bench.groups.put(bench.settings)
    return bench


@pytest.fixture
async def other(bench: ModerationHarness, replica: Database, store: Redis, clock: ManualClock) -> ModerationHarness:
    """A second replica in the same group, with a judge of the same mind."""
    return ModerationHarness(replica, store, clock, bench.recorder, bench.judge)


def names(recorder: Recorder) -> list[str]:
    return [act[0] for act in recorder.acts]


async def test_recorded_then_sanctioned_then_deleted_then_told(bench: ModerationHarness) -> None:
    bench.judge.script.append(SCAM)
    outcome = await bench.pipeline.handle(bench.message(), bench.settings)
    assert (outcome.stage, outcome.removed) == (Stage.FOUND, True)
    assert bench.recorder.acts == [("mute", NEWCOMER, bench.clock.now() + MUTE), ("delete", (1,))]
    assert [card.id for card in bench.recorder.cards] == [outcome.incident]


async def test_two_replicas_with_the_same_message_at_the_same_time(
    bench: ModerationHarness, other: ModerationHarness
) -> None:
    """One incident, one sanction, one deletion, one card."""
    bench.judge.default = SCAM
    message = bench.message()
    await asyncio.gather(*(each.pipeline.handle(message, each.settings) for each in (bench, other)))
    assert names(bench.recorder) == ["mute", "delete"]
    assert len(bench.recorder.cards) == 1
    assert (await bench.statistics.of(-100, 1)).acted == 1


@pytest.mark.parametrize(
    ("dies", "left"),
    [
        # Before the sanction, between it and the deletion, before the card: what is written down is not done again.
        ("mute", ["mute", "delete"]),
        ("delete", ["mute", "delete"]),
        ("show", ["mute", "delete"]),
    ],
)
async def test_a_replica_that_dies_is_followed_by_another(
    bench: ModerationHarness, other: ModerationHarness, clock: ManualClock, dies: str, left: list[str]
) -> None:
    bench.judge.default = SCAM
    bench.recorder.kills[dies] = RuntimeError("killed")
    with pytest.raises(RuntimeError, match="killed"):
        await bench.pipeline.handle(bench.message(), bench.settings)
    # Within the lease nobody interferes.
    await other.caretaker.go_round()
    assert bench.recorder.cards == []
    clock.shift(LEASE.total_seconds() + 1)
    await other.caretaker.go_round()
    await bench.caretaker.go_round()
    assert names(bench.recorder) == left
    assert len(bench.recorder.cards) == 1


async def test_a_message_whose_handling_was_cut_off_is_handled_again(
    bench: ModerationHarness, clock: ManualClock
) -> None:
    """The update comes again, and goes on where the record says."""
    bench.judge.default = SCAM
    bench.recorder.kills["delete"] = RuntimeError("killed")
    message = bench.message()
    with pytest.raises(RuntimeError, match="killed"):
        await bench.pipeline.handle(message, bench.settings)
    clock.shift(LEASE.total_seconds() + 1)
    assert (await bench.pipeline.handle(message, bench.settings)).removed
    again = await bench.pipeline.handle(message, bench.settings)
    assert (again.stage, again.removed) == (Stage.REPEATED, True)
    assert names(bench.recorder) == ["mute", "delete"]
    assert len(bench.recorder.cards) == 1


@pytest.mark.parametrize("resolution", list(Resolution))
async def test_two_admins_press_the_same_button_at_once(
    bench: ModerationHarness, other: ModerationHarness, resolution: Resolution
) -> None:
    bench.judge.default = SCAM
    outcome = await bench.pipeline.handle(bench.message(), bench.settings)
    incident = await bench.incidents.get(outcome.incident or 0)
    assert incident is not None
    pressed = [each.desk.resolve(incident, resolution, each.settings, "Ann") for each in (bench, other)]
    results = [result for result, _ in await asyncio.gather(*pressed)]
    assert sorted(results) == [Resolved.DONE, Resolved.TOO_LATE]
    done = {Resolution.UNDO: ["unmute"], Resolution.BAN: ["ban"], Resolution.CONFIRM: []}[resolution]
    assert names(bench.recorder)[2:] == done
    assert bench.judge.learned == [resolution is not Resolution.UNDO]


async def test_an_undo_that_was_cut_off_is_done_by_another(
    bench: ModerationHarness, other: ModerationHarness, clock: ManualClock
) -> None:
    """Nobody stays muted because a replica died between the press and the deed."""
    bench.judge.default = SCAM
    outcome = await bench.pipeline.handle(bench.message(), bench.settings)
    incident = await bench.incidents.get(outcome.incident or 0)
    assert incident is not None
    bench.recorder.kills["unmute"] = RuntimeError("killed")
    with pytest.raises(RuntimeError, match="killed"):
        await bench.desk.resolve(incident, Resolution.UNDO, bench.settings, "Ann")
    clock.shift(LEASE.total_seconds() + 1)
    await other.caretaker.go_round()
    await bench.caretaker.go_round()
    assert names(bench.recorder) == ["mute", "delete", "unmute"]
    assert [card.undone_by for card in bench.recorder.refreshed] == ["Ann"]


async def test_after_an_undo_nothing_more_is_done(bench: ModerationHarness) -> None:
    bench.judge.default = SCAM
    outcome = await bench.pipeline.handle(bench.message(), bench.settings)
    incident = await bench.incidents.get(outcome.incident or 0)
    assert incident is not None
    for resolution, result in (
        (Resolution.UNDO, Resolved.DONE),
        (Resolution.BAN, Resolved.TOO_LATE),
        (Resolution.CONFIRM, Resolved.TOO_LATE),
    ):
        assert (await bench.desk.resolve(incident, resolution, bench.settings, "Ann"))[0] is result
    assert (await bench.statistics.of(-100, 1)).undone == 1


async def test_what_was_said_is_erased_after_a_week(
    bench: ModerationHarness, database: Database, clock: ManualClock
) -> None:
    """From the database and from the card; the figures stay."""
    bench.judge.default = SCAM
    await bench.pipeline.handle(bench.message("Buy this secret thing, I pay by the day"), bench.settings)
    clock.shift(READABLE.total_seconds() - 60)
    await bench.caretaker.go_round()
    assert bench.recorder.refreshed == []
    clock.shift(601)
    await bench.caretaker.go_round()
    async with database.reading() as session:
        row = (await session.scalars(select(ModerationIncidentRow))).one()
    assert (row.text, row.evidence, row.author_name, row.category) == (None, None, "", "job_scam")
    assert [card.is_erased for card in bench.recorder.refreshed] == [True]
    await bench.caretaker.go_round()
    assert len(bench.recorder.refreshed) == 1


async def test_what_nobody_could_judge_is_judged_within_ten_minutes(
    bench: ModerationHarness, clock: ManualClock
) -> None:
    """However long nobody was there, once somebody is back."""
    bench.judge.default = OUTAGE
    message = bench.message()
    assert (await bench.pipeline.handle(message, bench.settings)).stage is Stage.WAITS
    for _ in range(180):
        clock.shift(20)
        await bench.caretaker.go_round()
    # An hour of outage: asked again and again, but not all the time; told once.
    assert 8 < bench.judge.asked < 20
    assert bench.recorder.alerts == ["moderation-outage"]
    bench.judge.default = SCAM
    for _ in range(30):
        clock.shift(20)
        await bench.caretaker.go_round()
    assert names(bench.recorder) == ["mute", "delete"]
    assert await bench.waiting.take_due() == []


async def test_one_replica_judges_what_waits(
    bench: ModerationHarness, other: ModerationHarness, clock: ManualClock
) -> None:
    bench.judge.default = OUTAGE
    await bench.pipeline.handle(bench.message(), bench.settings)
    clock.shift(FIRST_PAUSE.total_seconds() + 1)
    taken = await asyncio.gather(bench.waiting.take_due(), other.waiting.take_due())
    assert sorted(map(len, taken)) == [0, 1]
    # If that one dies with it, another takes it later.
    clock.shift(LONGEST_PAUSE.total_seconds() + 1)
    assert len(await other.waiting.take_due()) == 1


async def test_what_waits_for_a_day_is_let_go(bench: ModerationHarness, clock: ManualClock) -> None:
    bench.judge.default = OUTAGE
    await bench.pipeline.handle(bench.message(), bench.settings)
    clock.shift(timedelta(hours=25).total_seconds())
    assert await bench.waiting.take_due() == []
    clock.shift(3600)
    assert await bench.waiting.take_due() == []


async def test_a_flood_has_one_card(bench: ModerationHarness, clock: ManualClock) -> None:
    """Its messages go one by one, and are told of together."""
    bench.judge.default = judged(Category.OK, 99)
    for number in range(1, 13):
        await bench.pipeline.handle(bench.message(f"message {number} of many", number), bench.settings)
    assert names(bench.recorder) == ["delete"] * 6
    assert len(bench.recorder.cards) == 1


async def test_warnings_count_for_thirty_days(bench: ModerationHarness, clock: ManualClock) -> None:
    """The third within them mutes; older ones are forgotten."""
    bench.judge.default = judged(Category.TOXIC, 92)
    for number, days in ((1, 0), (2, 20), (3, 15)):
        clock.shift(timedelta(days=days).total_seconds())
        await bench.pipeline.handle(bench.message(f"You are such idiots {number}", number), bench.settings)
    # The first is 35 days old by now.
    assert bench.recorder.acts == [("warn", 1), ("warn", 2), ("warn", 2)]
    clock.shift(60)
    await bench.pipeline.handle(bench.message("You are such idiots again", 4), bench.settings)
    assert names(bench.recorder)[3:] == ["warn", "mute"]


async def test_a_right_that_is_missing_is_told_ever_more_rarely(
    bench: ModerationHarness, other: ModerationHarness, clock: ManualClock
) -> None:
    """By one replica each time."""
    days: list[int] = []
    for hour in range(24 * 30):
        told = [await each.reminders.due(-100, "delete", 24 * 3600, 7 * 24 * 3600) for each in (bench, other)]
        days += [hour // 24] * sum(told)
        clock.shift(3600)
    assert days == [0, 1, 3, 7, 14, 21, 28]
    await other.reminders.forget(-100, "delete")
    # The other replica has it in its own memory until its pause is over.
    assert await other.reminders.due(-100, "delete", 24 * 3600, 7 * 24 * 3600)
