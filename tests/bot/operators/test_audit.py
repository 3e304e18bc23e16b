"""Actions of the audit log in words."""

import re
from pathlib import Path

import pytest

from bot.operators.audit import DETAILS, describe_act, describe_detail
from bot.operators.formatting import Wording
from core.i18n import Texts
from services.admin.audit import AuditDetail

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


DETAIL_CASES: tuple[tuple[AuditDetail | str | None, str, str], ...] = (
    (None, "", ""),
    ("for 30m; before: healthy", "for 30m; before: healthy", "for 30m; before: healthy"),  # of an earlier version
    (
        AuditDetail("forced", {"seconds": 5400, "forced": None, "preferred": "a"}),
        "for 1h 30m; before: forced none, preferred a",
        "на 1 ч 30 мин; до этого: назначен — нет, предпочтён — a",
    ),
    (
        AuditDetail("leaders", {"forced": "b", "preferred": None}),
        "before: forced b, preferred none",
        "до этого: назначен — b, предпочтён — нет",
    ),
    (
        AuditDetail("cooled", {"seconds": 300, "state": "half_open", "reason": None}),
        "for 5m; before: half-open, to be probed next",
        "на 5 мин; до этого: будет проверен следующим запросом",
    ),
    (
        AuditDetail("state", {"state": "cooling", "reason": "HTTP 500"}),
        "before: cooling down, HTTP 500",
        "до этого: на паузе, HTTP 500",
    ),
    (AuditDetail("tested", {"ms": 12345}), "ok in 12345 ms", "ответил за 12345 мс"),
    (AuditDetail("test-failed", {"failure": "HTTP 401"}), "failed: HTTP 401", "не ответил: HTTP 401"),
    (AuditDetail("served", {"served": 0, "total": 21}), "0 of 21 chats", "0 из 21 чата"),
    (AuditDetail("served", {"served": 1200, "total": 3000}), "1200 of 3000 chats", "1200 из 3000 чатов"),
    (AuditDetail("budget", {"now": "2.5", "before": "default"}), "2.5; before: default", "2.5; до этого: default"),
    (AuditDetail("incident", {"id": 4321}), "incident 4321", "случай 4321"),
    (AuditDetail("message", {"id": 4321}), "message 4321", "сообщение 4321"),
    (
        AuditDetail("config", {"revision": 4000, "A_TIMEOUT": "60", "B_RETRIES": None}),
        "change 4000: A_TIMEOUT was 60; B_RETRIES was none",
        "изменение 4000: A_TIMEOUT: было 60; B_RETRIES: было нет",
    ),
    (
        AuditDetail("limits", {"now": "running 2", "before": None}),
        "now running 2; before none",
        "теперь running 2; до этого нет",
    ),
    (AuditDetail("polished", {"by": None}), '{"detail": "polished", "by": null}', '{"detail": "polished", "by": null}'),
)


@pytest.mark.parametrize(("detail", "english", "russian"), DETAIL_CASES)
def test_detail_is_worded_in_the_language_of_its_reader(
    detail: AuditDetail | str | None, english: str, russian: str
) -> None:
    texts = Texts(strict=True)
    assert describe_detail(detail, Wording(texts, "en")) == english
    assert describe_detail(detail, Wording(texts, "ru")) == russian


def test_every_detail_that_is_recorded_has_words() -> None:
    created = re.compile(r"AuditDetail\(\s*\"([\w-]+)\"")
    sources = (file.read_text("utf-8") for folder in ("bot", "services") for file in (ROOT / folder).rglob("*.py"))
    assert {key for source in sources for key in created.findall(source)} == DETAILS
    assert {case[0].key for case in DETAIL_CASES if isinstance(case[0], AuditDetail)} == DETAILS | {"polished"}
