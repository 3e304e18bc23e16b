"""Policy: the table of plans per verdict, and its bounds over every combination."""

from itertools import product

import pytest

from services.moderation.domain.message import AuthorKind
from services.moderation.domain.policy import (
    CARD,
    DELETE,
    NOTHING,
    PRESETS,
    Plan,
    Sanction,
    Subject,
    plan_for,
    plan_for_picture,
    plan_in_outage,
    sanction_for_warnings,
)
from services.moderation.domain.settings import Preset
from services.moderation.domain.verdict import SPAM, About, Category, Evidence, Judged, Verdict

MUTED = Plan(card=True, delete=True, sanction=Sanction.MUTE)
BANNED = Plan(card=True, delete=True, sanction=Sanction.BAN)
WARNED = Plan(card=True, sanction=Sanction.WARN)


def plan(
    category: str = "job_scam",
    confidence: int = 95,
    *,
    newcomer: bool = True,
    preset: Preset = Preset.STANDARD,
    evidence: Evidence = Evidence.OWN,
    about: About = About.AUTHOR,
    kind: AuthorKind = AuthorKind.USER,
    ban: bool = False,
) -> Plan:
    verdict = Verdict(category=Category(category), confidence=confidence, about=about, evidence="x")
    return plan_for(Judged(verdict, evidence, "a", "m"), Subject(newcomer, kind, preset, ban))


@pytest.mark.parametrize(
    ("category", "newcomer", "by_confidence"),
    [
        # A newcomer's spam: nothing, a card, deletion, mute.
        ("job_scam", True, {49: NOTHING, 50: CARD, 79: CARD, 80: DELETE, 89: DELETE, 90: MUTED, 100: MUTED}),
        ("phishing", True, {89: DELETE, 90: MUTED}),
        # An established member's is at most deleted.
        ("job_scam", False, {49: NOTHING, 50: CARD, 79: CARD, 80: DELETE, 90: DELETE, 100: DELETE}),
        # Easily mistaken categories are at most deleted, too.
        ("channel_promo", True, {49: NOTHING, 50: CARD, 80: DELETE, 100: DELETE}),
        ("off_topic", True, {79: CARD, 100: DELETE}),
        ("flood", True, {79: CARD, 100: DELETE}),
        ("injection", True, {79: CARD, 100: DELETE}),
        ("threat", True, {79: CARD, 100: DELETE}),
        # An insult gets a warning and stays.
        ("toxic", True, {49: NOTHING, 79: CARD, 80: WARNED, 100: WARNED}),
        ("toxic", False, {79: CARD, 80: WARNED}),
        # Uncertain: an admin decides.
        ("unsure", True, {49: NOTHING, 50: CARD, 100: CARD}),
        ("ok", True, {0: NOTHING, 100: NOTHING}),
    ],
)
def test_plan_for_standard_preset(category: str, by_confidence: dict[int, Plan], *, newcomer: bool) -> None:
    assert {sure: plan(category, sure, newcomer=newcomer) for sure in by_confidence} == by_confidence


@pytest.mark.parametrize(
    ("preset", "by_confidence"),
    [
        (Preset.LENIENT, {69: NOTHING, 70: CARD, 89: CARD, 90: DELETE, 94: DELETE, 95: MUTED}),
        (Preset.STRICT, {39: NOTHING, 40: CARD, 69: CARD, 70: DELETE, 84: DELETE, 85: MUTED}),
    ],
)
def test_plan_for_other_presets(preset: Preset, by_confidence: dict[int, Plan]) -> None:
    assert {sure: plan(confidence=sure, preset=preset) for sure in by_confidence} == by_confidence


@pytest.mark.parametrize(
    ("evidence", "about", "expected"),
    [
        # Not in the author's text: an admin decides, at any confidence.
        (Evidence.MISSING, About.AUTHOR, CARD),
        (Evidence.NAME, About.PROFILE, CARD),
        # Quoted words: nothing, unless the message is only a forward.
        (Evidence.OWN, About.QUOTED, NOTHING),
        (Evidence.MISSING, About.QUOTED, NOTHING),
        (Evidence.FORWARDED, About.QUOTED, DELETE),
        (Evidence.FORWARDED, About.AUTHOR, DELETE),
    ],
)
def test_plan_depends_on_evidence_location(evidence: Evidence, about: About, expected: Plan) -> None:
    assert plan(confidence=100, evidence=evidence, about=about) == expected


@pytest.mark.parametrize(
    ("category", "by_confidence"),
    [
        # An advert in a picture is deleted, and its author keeps all rights.
        ("job_scam", {49: NOTHING, 50: CARD, 79: CARD, 80: DELETE, 100: DELETE}),
        ("channel_promo", {49: NOTHING, 79: CARD, 80: DELETE, 100: DELETE}),
        # Other contents of a picture are no evidence.
        ("toxic", {100: NOTHING}),
        ("off_topic", {100: NOTHING}),
        ("ok", {100: NOTHING}),
    ],
)
def test_plan_for_picture(category: str, by_confidence: dict[int, Plan]) -> None:
    def planned(confidence: int) -> Plan:
        verdict = Verdict(category=Category(category), confidence=confidence, evidence="x")
        return plan_for_picture(verdict, Preset.STANDARD)

    assert {sure: planned(sure) for sure in by_confidence} == by_confidence


def test_plan_bans_only_if_allowed() -> None:
    assert plan(confidence=95, ban=True) == BANNED
    assert plan(confidence=94, ban=True) == MUTED
    assert plan(confidence=100, ban=True, newcomer=False) == DELETE
    assert plan(confidence=95, ban=True, kind=AuthorKind.CHANNEL) == BANNED
    # A channel cannot be muted, and is not warned.
    assert plan(confidence=100, kind=AuthorKind.CHANNEL) == DELETE
    assert plan("toxic", 100, kind=AuthorKind.CHANNEL) == DELETE
    # Nor is a bot.
    assert plan(confidence=100, kind=AuthorKind.BOT) == DELETE
    assert plan("toxic", 100, kind=AuthorKind.BOT) == DELETE


def test_plan_mutes_and_bans_only_newcomers_with_evidence() -> None:
    """Over every combination: false positives are the worst mistake."""
    for category, sure, newcomer, preset, evidence, about, ban in product(
        Category, (0, 50, 90, 100), (True, False), Preset, Evidence, About, (True, False)
    ):
        done = plan(
            category.value, sure, newcomer=newcomer, preset=preset, evidence=evidence, about=about, ban=ban
        )  # fmt: skip
        hard = done.sanction in {Sanction.MUTE, Sanction.BAN}
        if hard:
            assert (newcomer, evidence, category in SPAM, about is About.QUOTED) == (True, Evidence.OWN, True, False)
            assert sure >= PRESETS[preset].sanction
        if done.sanction is Sanction.BAN:
            assert ban
        # Every action comes with a card.
        assert done.card or done == NOTHING


@pytest.mark.parametrize(
    ("newcomer", "risky", "score", "expected"),
    [
        (True, True, 90, DELETE),
        # Each of the three alone is not enough.
        (True, True, 89, NOTHING),
        (True, False, 100, NOTHING),
        (False, True, 100, NOTHING),
    ],
)
def test_plan_in_outage(score: int, expected: Plan, *, newcomer: bool, risky: bool) -> None:
    assert plan_in_outage(is_newcomer=newcomer, is_risky=risky, score=score) == expected


def test_sanction_for_third_warning_is_mute() -> None:
    assert [sanction_for_warnings(count) for count in (1, 2, 3, 4)] == [
        Sanction.WARN, Sanction.WARN, Sanction.MUTE, Sanction.MUTE,
    ]  # fmt: skip
