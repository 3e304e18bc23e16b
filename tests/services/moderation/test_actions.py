"""Decisions of admins take effect once."""

import asyncio
from dataclasses import replace

import pytest

from services.moderation.actions import ReportResult, ResolveResult, WarnResult
from services.moderation.domain.incident import Incident, Resolution, Source
from services.moderation.domain.settings import Mode
from services.moderation.domain.verdict import Category
from services.moderation.screening.exemptions import Exemption
from tests.support.moderation_harness import ADMIN, GROUP, SCAM, ModerationHarness, judged

pytestmark = pytest.mark.integration


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


@pytest.mark.parametrize("is_banned", [True, False])
async def test_undo_in_a_watched_group_lifts_the_ban_of_an_admin_alone(
    harness: ModerationHarness, *, is_banned: bool
) -> None:
    """The bot itself has only reported there."""
    harness.judge.default = SCAM
    harness.settings = await harness.groups.change(harness.settings, mode=Mode.DRY)
    outcome = await harness.pipeline.handle(harness.message(), harness.settings)
    assert harness.group.actions == []
    for resolution in (Resolution.BAN, Resolution.UNDO)[not is_banned :]:
        incident = await harness.incidents.get(outcome.incident or 0)
        assert incident is not None
        await harness.actions.resolve(incident, resolution, harness.settings, "Ann")
    assert harness.group.action_names == (["ban", "delete", "unban"] if is_banned else [])


async def test_message_of_an_admin_is_neither_marked_nor_warned(harness: ModerationHarness) -> None:
    """That of a member is both."""
    said, settings = harness.message(), harness.settings
    own = replace(said, author=replace(said.author, id=ADMIN))
    assert await harness.actions.mark_spam(own, settings, "Ann") is Exemption.ADMIN
    assert await harness.actions.warn(own, settings) is Exemption.ADMIN
    assert harness.group.actions == []
    assert await harness.actions.warn(said, settings) == WarnResult(1, is_muted=False)
    assert isinstance(await harness.actions.mark_spam(said, settings, "Ann"), Incident)
    assert harness.group.actions == [("delete", (1,))]


@pytest.mark.parametrize("is_known", [True, False])
async def test_reports_of_enough_members_show_one_card(harness: ModerationHarness, *, is_known: bool) -> None:
    """None where the message has its card already."""
    harness.judge.default = judged(Category.JOB_SCAM, 60) if is_known else judged(Category.OK, 99)
    said, settings = harness.message(), harness.settings
    await harness.pipeline.handle(said, settings)
    for number in range(settings.report_threshold):
        assert await harness.actions.report(said, 100 + number, settings) is ReportResult.TAKEN
    sources = {each.finding.source for each in await harness.incidents.list_for_message(GROUP, 1)}
    assert sources == {Source.JUDGE if is_known else Source.REPORT}
    assert len(harness.group.cards) == 1


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
