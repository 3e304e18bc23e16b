"""The command line: what starts what, and how mistakes are told."""

import io
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bot.__main__ import main
from bot.composition.services import Services
from core.config.settings import Settings
from core.errors import StartupError
from tests.support.fake_telegram.server import TOKEN

PROVIDER = {"AVAILABLE_PROVIDERS": '{"a": ["m"]}', "A_BASE_URL": "http://127.0.0.1:1/v1"}
SENT = "123456:" + "A" * 35


@pytest.fixture(autouse=True)
def _clean(clean_process: None) -> None:
    """See there."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which surfaces were started; nothing more comes of it."""
    names: list[str] = []

    async def console(settings: Settings) -> int:
        names.append("console")
        return 0

    async def check(settings: Settings) -> int:
        names.append("check")
        return 1

    async def telegram(services: Services) -> int:
        names.append(f"telegram with {services.infra.settings.providers[0].id}")
        return 0

    monkeypatch.setattr("bot.composition.console.run_console", console)
    monkeypatch.setattr("bot.check.run", check)
    # In place of the module itself, so that aiogram is not imported for this.
    monkeypatch.setitem(sys.modules, "bot.composition.telegram", SimpleNamespace(run_daemon=telegram))
    return names


def setenv(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Set variables of the environment."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("arguments", "token", "surface", "code"),
    [
        ([], None, "console", 0),
        ([], TOKEN, "telegram with a", 0),
        (["console"], TOKEN, "console", 0),  # although there is a token
        (["telegram"], TOKEN, "telegram with a", 0),
        (["check"], None, "check", 1),  # the exit code is the surface's
    ],
)
def test_what_is_started(
    monkeypatch: pytest.MonkeyPatch,
    started: list[str],
    arguments: list[str],
    token: str | None,
    surface: str,
    code: int,
) -> None:
    """By the argument, or else by whether there is a token."""
    setenv(monkeypatch, {**PROVIDER, **({"TELEGRAM_BOT_TOKEN": token} if token else {}), "LOG_LEVEL": "critical"})
    assert main(arguments) == code
    assert started == [surface]


@pytest.mark.parametrize(
    ("arguments", "variables", "begins"),
    [
        ([], {"LOG_LEVEL": "loud"}, "LOG_LEVEL: must be debug"),
        ([], {"AVAILABLE_PROVIDERS": '{"a": ["m"], "a": ["n"]}'}, "AVAILABLE_PROVIDERS: "),  # duplicate keys
        ([], {"AVAILABLE_PROVIDERS": "nonsense"}, "AVAILABLE_PROVIDERS: is not JSON"),
        ([], {**PROVIDER, "A_KIND": "martian"}, "A_KIND: unknown kind"),
        (["check"], {"TELEGRAM_BOT_TOKEN": "nonsense"}, "TELEGRAM_BOT_TOKEN: is not a bot token"),
        (["telegram"], PROVIDER, "TELEGRAM_BOT_TOKEN: is not set"),
        ([], {"TELEGRAM_BOT_TOKEN": SENT, "AVAILABLE_PROVIDERS": '{"openai": ["m"]}'}, "AVAILABLE_PROVIDERS: leaves"),
        (["console"], {"AVAILABLE_PROVIDERS": "{}", "DATA_DIR": "file/data"}, "DATA_DIR: cannot be written to"),
        (["console"], {"AVAILABLE_PROVIDERS": "{}", "DATABASE_URL": "sqlite:///junk.db"}, "the database "),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code_of_one(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    variables: dict[str, str],
    begins: str,
) -> None:
    """Never a traceback, whatever is wrong and whatever was asked for."""
    Path("file").write_text("")
    Path("junk.db").write_text("This is no database, and never was one. " * 100)
    setenv(monkeypatch, variables)
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(begins)


def test_each_mistake_has_its_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them at once, so that nobody mends one after the other."""
    setenv(monkeypatch, {"LOG_LEVEL": "loud", "HISTORY_TOKENS": "many", "A_TIMEOUT": "0", **PROVIDER})
    assert main([]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == ["A_TIMEOUT", "HISTORY_TOKENS", "LOG_LEVEL"]


def test_a_fault_at_start_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where a library's words have several."""

    async def console(settings: Settings) -> int:
        raise StartupError("the world is not\n  as it should be")

    monkeypatch.setattr("bot.composition.console.run_console", console)
    assert main(["console"]) == 1
    assert capsys.readouterr().err == "the world is not as it should be\n"


@pytest.mark.parametrize(
    ("variables", "root", "fallback"),
    [
        ({}, logging.WARNING, logging.ERROR),
        ({"LOG_LEVEL": "info"}, logging.INFO, logging.NOTSET),  # asked for, although it is the default
        ({"LOG_LEVEL": "error"}, logging.ERROR, logging.NOTSET),
    ],
)
def test_the_console_logs_little_unless_more_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, started: list[str], variables: dict[str, str], root: int, fallback: int
) -> None:
    """A failover is told in the conversation: as a warning of the log it would stand there twice."""
    setenv(monkeypatch, variables)
    assert main(["console"]) == 0
    assert logging.getLogger().level == root
    assert logging.getLogger("services.llm").level == fallback


def test_the_level_may_be_asked_for_in_the_env_file(started: list[str]) -> None:
    """It counts as much as the environment."""
    Path(".env").write_text("LOG_LEVEL=debug\n")
    assert main(["console"]) == 0
    assert logging.getLogger().level == logging.DEBUG


def test_the_daemon_logs_what_the_settings_warn_of(
    monkeypatch: pytest.MonkeyPatch, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the level that is set, and nothing secret."""
    key = "sk-1234567890abcdef"
    setenv(monkeypatch, {**PROVIDER, "TELEGRAM_BOT_TOKEN": SENT, "A_API_KEYY": key, "LOG_FORMAT": "json"})
    assert main([]) == 0
    err = capsys.readouterr().err
    assert "settings.warning" in err
    assert "A_API_KEYY is not a setting" in err
    assert key not in err
    assert SENT not in err


def test_a_terminal_without_a_character_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may hold any character, and a terminal is not always one of UTF-8."""
    written = io.BytesIO()
    stdout = io.TextIOWrapper(written, encoding="ascii", write_through=True)

    async def console(settings: Settings) -> int:
        return stdout.write("“ёё”")

    monkeypatch.setattr("bot.composition.console.run_console", console)
    monkeypatch.setattr("sys.stdout", stdout)
    assert main(["console"]) == 4
    assert written.getvalue() == b"????"


def test_help_tells_what_can_be_started(capsys: pytest.CaptureFixture[str]) -> None:
    """And what happens without any."""
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in ("telegram", "console", "check", "train"))
    assert "until TELEGRAM_BOT_TOKEN is set" in out
