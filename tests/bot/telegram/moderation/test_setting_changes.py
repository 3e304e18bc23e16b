"""Changes of a group's settings by button and by command."""

from dataclasses import replace

import pytest

from bot.telegram.moderation.setting_changes import (
    LOCKABLE,
    MAX_HOUSE_RULES,
    NEWCOMER_MEDIA,
    apply_rule_command,
    lock_kind,
    read_number,
    toggle_rule,
)
from services.moderation.domain.message import MediaKind
from services.moderation.domain.settings import AppliesTo, Duplicates, Flood, GroupSettings, LinkPolicy, RuleSet

SETTINGS = GroupSettings(-100, rules=RuleSet(banned=("casino*",), domains=("docs.example.org",)))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("flood", [{"flood": Flood()}, {"flood": None}]),
        ("duplicates", [{"duplicates": Duplicates()}, {"duplicates": None}]),
        ("mixed", [{"mixed_scripts": True}, {"mixed_scripts": False}]),
        ("media", [{"newcomer_media": NEWCOMER_MEDIA}, {"newcomer_media": ()}]),
        ("links", [{"links": policy} for policy in (*list(LinkPolicy)[1:], LinkPolicy.ALL)]),
        ("forwards", [{"forwards": members} for members in (*list(AppliesTo)[1:], AppliesTo.NOBODY)]),
        # A button of another release.
        ("weather", [{}]),
    ],
)
def test_toggle_rule_cycles_through_its_values(name: str, values: list[dict[str, object]]) -> None:
    rules = RuleSet()
    for value in values:
        rules = toggle_rule(rules, name)
        assert rules == replace(RuleSet(), **value)


@pytest.mark.parametrize(
    ("verb", "value", "banned", "domains"),
    [
        ("ban", "lottery", ("casino*", "lottery"), ("docs.example.org",)),
        # A repeated term moves to the end.
        ("ban", "casino*", ("casino*",), ("docs.example.org",)),
        ("unban", "casino*", (), ("docs.example.org",)),
        ("unban", "unknown", ("casino*",), ("docs.example.org",)),
        ("domain", "shop.example.org", ("casino*",), ("docs.example.org", "shop.example.org")),
        ("undomain", "docs.example.org", ("casino*",), ()),
        ("undomain", "unknown", ("casino*",), ("docs.example.org",)),
    ],
)
def test_apply_rule_command_changes_a_list(
    verb: str, value: str, banned: tuple[str, ...], domains: tuple[str, ...]
) -> None:
    changed = apply_rule_command(SETTINGS, verb, value)
    assert changed == replace(SETTINGS, rules=replace(SETTINGS.rules, banned=banned, domains=domains))


def test_apply_rule_command_replaces_the_house_rules() -> None:
    for text in ("Be kind.", "x" * MAX_HOUSE_RULES):
        assert apply_rule_command(SETTINGS, "text", text) == replace(SETTINGS, house_rules=text)
    # An empty text removes them.
    assert apply_rule_command(replace(SETTINGS, house_rules="Be kind."), "text", "") == SETTINGS


@pytest.mark.parametrize(
    ("verb", "value"),
    [
        ("dance", "casino"),
        ("ban", ""),
        # Limits of the stored rules: 2000 characters of house rules, 200 of a term or a domain.
        ("text", "x" * (MAX_HOUSE_RULES + 1)),
        ("ban", "x" * 201),
        ("domain", "x" * 201),
    ],
)
def test_apply_rule_command_rejects_unknown_verbs_and_values_beyond_a_limit(verb: str, value: str) -> None:
    assert apply_rule_command(SETTINGS, verb, value) is None


def test_apply_rule_command_limits_the_number_of_terms() -> None:
    full = replace(SETTINGS, rules=RuleSet(banned=tuple(f"term {number}" for number in range(1000))))
    assert apply_rule_command(full, "ban", "one more") is None
    assert apply_rule_command(full, "unban", "term 1") is not None


@pytest.mark.parametrize(
    ("kind", "locked"),
    [
        ("links", {"links": LinkPolicy.NOT_FROM_NEWCOMERS}),
        ("forwards", {"forwards": AppliesTo.NEWCOMERS}),
        ("media", {"newcomer_media": NEWCOMER_MEDIA}),
        ("contact", {"newcomer_media": (MediaKind.CONTACT,)}),
    ],
)
def test_lock_kind_forbids_a_kind_to_newcomers_until_it_is_unlocked(kind: str, locked: dict[str, object]) -> None:
    rules = lock_kind(RuleSet(), kind, locked=True)
    assert rules == replace(RuleSet(), **locked)
    # A repeated lock changes nothing.
    assert lock_kind(rules, kind, locked=True) == rules
    assert lock_kind(rules, kind, locked=False) == RuleSet()


def test_lock_kind_keeps_the_other_kinds() -> None:
    rules = RuleSet(newcomer_media=(MediaKind.POLL, MediaKind.GAME))
    assert lock_kind(rules, "poll", locked=False).newcomer_media == (MediaKind.GAME,)
    assert lock_kind(rules, "voice", locked=True).newcomer_media == (MediaKind.POLL, MediaKind.GAME, MediaKind.VOICE)


def test_every_lockable_kind_can_be_locked() -> None:
    for kind in LOCKABLE:
        assert lock_kind(RuleSet(), kind, locked=True) != RuleSet()
    assert "other" not in LOCKABLE


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("100", 100), ("0", None), ("101", None), ("-1", None), ("1.5", None), ("", None), ("9" * 5000, None)],
)
def test_read_number_within_its_range(text: str, number: int | None) -> None:
    assert read_number(text, 1, 100) == number
