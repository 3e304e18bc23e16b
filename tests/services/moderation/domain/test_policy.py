"""What follows from a verdict: the whole table, and that no row of it is harder than the one above."""

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
    plan_for_warnings,
    plan_in_outage,
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
        # Spam of a newcomer: nothing, a card, deleted, muted.
        ("job_scam", True, {49: NOTHING, 50: CARD, 79: CARD, 80: DELETE, 89: DELETE, 90: MUTED, 100: MUTED}),
        ("phishing", True, {89: DELETE, 90: MUTED}),
        # Of an established member it is at most deleted.
        ("job_scam", False, {49: NOTHING, 50: CARD, 79: CARD, 80: DELETE, 90: DELETE, 100: DELETE}),
        # What is easily mistaken is too, whoever it is from.
        ("channel_promo", True, {49: NOTHING, 50: CARD, 80: DELETE, 100: DELETE}),
        ("off_topic", True, {79: CARD, 100: DELETE}),
        ("flood", True, {79: CARD, 100: DELETE}),
        ("injection", True, {79: CARD, 100: DELETE}),
        ("threat", True, {79: CARD, 100: DELETE}),
        # An insult is a warning, and stays.
        ("toxic", True, {49: NOTHING, 79: CARD, 80: WARNED, 100: WARNED}),
        ("toxic", False, {79: CARD, 80: WARNED}),
        # Nobody knows: a person looks.
        ("unsure", True, {49: NOTHING, 50: CARD, 100: CARD}),
        ("ok", True, {0: NOTHING, 100: NOTHING}),
    ],
)
def test_the_standard_preset(category: str, by_confidence: dict[int, Plan], *, newcomer: bool) -> None:
    assert {sure: plan(category, sure, newcomer=newcomer) for sure in by_confidence} == by_confidence


@pytest.mark.parametrize(
    ("preset", "by_confidence"),
    [
        (Preset.LENIENT, {69: NOTHING, 70: CARD, 89: CARD, 90: DELETE, 94: DELETE, 95: MUTED}),
        (Preset.STRICT, {39: NOTHING, 40: CARD, 69: CARD, 70: DELETE, 84: DELETE, 85: MUTED}),
    ],
)
def test_the_other_presets(preset: Preset, by_confidence: dict[int, Plan]) -> None:
    assert {sure: plan(confidence=sure, preset=preset) for sure in by_confidence} == by_confidence


@pytest.mark.parametrize(
    ("evidence", "about", "expected"),
    [
        # Not in the author's text: for a person to judge, however sure the judge is.
        (Evidence.MISSING, About.AUTHOR, CARD),
        (Evidence.NAME, About.PROFILE, CARD),
        # Somebody else's words: nothing, unless they are all that the author shows.
        (Evidence.OWN, About.QUOTED, NOTHING),
        (Evidence.MISSING, About.QUOTED, NOTHING),
        (Evidence.FORWARDED, About.QUOTED, DELETE),
        (Evidence.FORWARDED, About.AUTHOR, DELETE),
    ],
)
def test_where_the_evidence_is(evidence: Evidence, about: About, expected: Plan) -> None:
    assert plan(confidence=100, evidence=evidence, about=about) == expected


def test_a_ban_only_where_the_group_opted_in() -> None:
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


def test_nobody_is_sanctioned_without_evidence_and_established_members_never_for_spam() -> None:
    """Over every combination: the false positive is what this is about."""
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
        # Whatever is done is told of.
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
def test_while_nobody_can_judge(score: int, expected: Plan, *, newcomer: bool, risky: bool) -> None:
    assert plan_in_outage(is_newcomer=newcomer, is_risky=risky, score=score) == expected


def test_the_third_warning_mutes() -> None:
    assert [plan_for_warnings(count) for count in (1, 2, 3, 4)] == [
        Sanction.WARN, Sanction.WARN, Sanction.MUTE, Sanction.MUTE,
    ]  # fmt: skip
