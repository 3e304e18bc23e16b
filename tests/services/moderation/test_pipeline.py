"""Pipeline and enforcement: each step happens once over replicas and crashes."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from services.moderation.case import Stage
from services.moderation.domain.policy import MUTE
from services.moderation.domain.ports import Restriction
from services.moderation.domain.settings import Mode
from services.moderation.domain.verdict import Category
from services.moderation.records.incidents import IncidentTiming
from tests.support.clock import ManualClock
from tests.support.moderation_harness import (
    GROUP,
    NEWCOMER,
    SCAM,
    ModerationHarness,
    judged,
)

pytestmark = pytest.mark.integration

TIMING = IncidentTiming()


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


async def test_pipeline_keeps_the_restriction_that_it_found_before_its_own(
    harness: ModerationHarness, clock: ManualClock
) -> None:
    """A repeat after a crash finds its own mute, which an undo must not restore."""
    harness.judge.default, message = SCAM, harness.message()
    harness.group.restrictions[NEWCOMER] = Restriction(permissions=frozenset({"can_send_messages"}))
    harness.group.failures["mute"] = RuntimeError("killed")
    with pytest.raises(RuntimeError, match="killed"):
        await harness.pipeline.handle(message, harness.settings)
    harness.group.restrictions[NEWCOMER] = Restriction(until=clock.now() + MUTE)
    clock.shift(TIMING.lease.total_seconds() + 1)
    await harness.pipeline.handle(message, harness.settings)
    [incident] = await harness.incidents.list_for_message(GROUP, 1)
    assert incident.is_deleted
    assert "can_send_messages" in (incident.restriction or "")


async def test_pipeline_deletes_late_parts_of_an_album_and_nothing_else(harness: ModerationHarness) -> None:
    """Neither a version that arrives after the deletion, nor anything once the group is only watched."""
    harness.judge.default = SCAM
    settings, message = harness.settings, harness.message()
    await harness.pipeline.handle(message, settings)
    edited = replace(message, text="Nothing to see here", edited_at=harness.clock.now())
    outcome = await harness.pipeline.handle(edited, settings)
    assert (outcome.stage, outcome.removed) == (Stage.REPEATED, True)
    assert harness.group.action_names == ["mute", "delete"]
    album = replace(harness.message("The same in pictures", 11), album="a")
    await harness.pipeline.handle(album, settings)
    harness.group.actions.clear()
    late = replace(album, text="", edited_at=None)
    await harness.pipeline.handle(replace(late, message_ids=(12,)), replace(settings, mode=Mode.DRY))
    assert harness.group.actions == []
    await harness.pipeline.handle(replace(late, message_ids=(13,)), settings)
    assert harness.group.actions == [("delete", (13,))]


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
    # Muted before told.
    assert harness.group.action_names[3:] == ["mute", "warn"]


async def test_chats_with_cards_are_known(harness: ModerationHarness) -> None:
    """Chats with cards are the moderated group, the chat for its cards, and those that have received one."""
    harness.judge.default = SCAM
    await harness.pipeline.handle(harness.message("Earn 500 a day"), harness.settings)
    await harness.groups.change(replace(harness.settings, group_id=-300, cards_to=-301))
    found = [chat for chat in (GROUP, -300, -301, -302) if await harness.groups.has_cards(chat)]
    assert found == [GROUP, -300, -301]
