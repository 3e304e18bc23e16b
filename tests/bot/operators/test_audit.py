"""Actions of the audit log in words."""

import re
from pathlib import Path

import pytest

from bot.operators.audit import describe_act
from core.i18n import Texts

ROOT = Path(__file__).parents[3]
RECORDED = re.compile(
    r"record\(\s*(?:[\w.]+, )*\"(\w+\.\w+)\"|_(?:record|act|change)\([^)]*?\"(force|clear|cooldown|reset|undo|test)\""
)
WITH_NAMES = (
    "dead.replay", "dead.drop", "token.create", "token.change", "token.revoke", "user.ban", "user.unban",
    "broadcast.start", "broadcast.stop", "moderation.confirm", "moderation.undo", "moderation.ban", "moderation.mode",
    "moderation.preset", "moderation.language", "moderation.remote", "moderation.cards", "moderation.rule",
    "moderation.rules", "moderation.budget", "moderation.reports", "moderation.newcomers", "moderation.raid",
    "moderation.trust", "moderation.untrust", "moderation.lock", "moderation.unlock", "moderation.spam",
    "moderation.ham", "moderation.warn", "moderation.unwarn",
)  # fmt: skip
"""Actions whose names are put together when they are recorded."""


def recorded() -> set[str]:
    """The actions that the source records by their whole name, and the acts on providers."""
    found = set[str]()
    for folder in ("bot", "services"):
        for file in (ROOT / folder).rglob("*.py"):
            for whole, act in RECORDED.findall(file.read_text("utf-8")):
                found.add(whole or f"provider.{act}")
    return found


@pytest.mark.parametrize("language", ["en", "ru"])
def test_every_action_has_words(language: str) -> None:
    texts = Texts()
    assert {"provider.force", "provider.undo", "config.undo", "console.file", "budget.set"} <= recorded()
    raw = [action for action in sorted({*recorded(), *WITH_NAMES}) if action in describe_act(action, texts, language)]
    assert raw == []


def test_action_of_a_newer_version_is_shown_as_it_is() -> None:
    assert describe_act("provider.polish", Texts(), "en") == "provider.polish"
