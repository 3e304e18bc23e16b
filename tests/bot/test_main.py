"""Command line: which surface starts, and how mistakes are reported."""

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

pytestmark = pytest.mark.integration

PROVIDER = {"AVAILABLE_PROVIDERS": '{"a": ["m"]}', "A_BASE_URL": "http://127.0.0.1:1/v1"}
SENT = "123456:" + "A" * 35


@pytest.fixture(autouse=True)
def _clean(clean_process: None) -> None:
    """Isolates each test from the environment and the log."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces each surface by a stub and returns the list of those that were started."""
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
    # Replaces the module, so that aiogram is not imported.
    monkeypatch.setitem(sys.modules, "bot.composition.telegram", SimpleNamespace(run_daemon=telegram))
    return names


def setenv(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Sets environment variables."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("arguments", "token", "surface", "code"),
    [
        ([], None, "console", 0),
        ([], TOKEN, "telegram with a", 0),
        (["console"], TOKEN, "console", 0),  # the argument overrides the token
        (["telegram"], TOKEN, "telegram with a", 0),
        (["check"], None, "check", 1),  # the exit code is the surface's
    ],
)
def test_main_starts_the_surface(
    monkeypatch: pytest.MonkeyPatch,
    started: list[str],
    arguments: list[str],
    token: str | None,
    surface: str,
    code: int,
) -> None:
    """Chosen by the argument, else by whether a token is set."""
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
        (
            [],
            {"TELEGRAM_BOT_TOKEN": SENT, "AVAILABLE_PROVIDERS": '{"openai": ["m"]}'},
            "AVAILABLE_PROVIDERS: has no usable",
        ),
        (["console"], {"AVAILABLE_PROVIDERS": "{}", "DATA_DIR": "file/data"}, "DATA_DIR: cannot be written to"),
        (["console"], {"AVAILABLE_PROVIDERS": "{}", "DATABASE_URL": "sqlite:///junk.db"}, "the database "),
    ],
)
def test_main_reports_a_mistake_in_one_line_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    variables: dict[str, str],
    begins: str,
) -> None:
    """Never with a traceback."""
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


def test_main_reports_every_mistake_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line each."""
    setenv(monkeypatch, {"LOG_LEVEL": "loud", "HISTORY_TOKENS": "many", "A_TIMEOUT": "0", **PROVIDER})
    assert main([]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == ["A_TIMEOUT", "HISTORY_TOKENS", "LOG_LEVEL"]


def test_main_reports_a_startup_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even if a library's message has several lines."""

    async def console(settings: Settings) -> int:
        raise StartupError("the database is\n  not usable")

    monkeypatch.setattr("bot.composition.console.run_console", console)
    assert main(["console"]) == 1
    assert capsys.readouterr().err == "the database is not usable\n"


@pytest.mark.parametrize(
    ("variables", "root", "fallback"),
    [
        ({}, logging.WARNING, logging.ERROR),
        ({"LOG_LEVEL": "info"}, logging.INFO, logging.NOTSET),  # set, although it is the default
        ({"LOG_LEVEL": "error"}, logging.ERROR, logging.NOTSET),
    ],
)
def test_console_logs_warnings_only_unless_the_level_is_set(
    monkeypatch: pytest.MonkeyPatch, started: list[str], variables: dict[str, str], root: int, fallback: int
) -> None:
    """The conversation shows a failover; a warning in the log would repeat it."""
    setenv(monkeypatch, variables)
    assert main(["console"]) == 0
    assert logging.getLogger().level == root
    assert logging.getLogger("services.llm").level == fallback


def test_console_reads_the_log_level_from_the_env_file(started: list[str]) -> None:
    """It counts like the environment."""
    Path(".env").write_text("LOG_LEVEL=debug\n")
    assert main(["console"]) == 0
    assert logging.getLogger().level == logging.DEBUG


def test_daemon_logs_the_warnings_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """At the level that is set, without secrets."""
    key = "sk-1234567890abcdef"
    setenv(monkeypatch, {**PROVIDER, "TELEGRAM_BOT_TOKEN": SENT, "A_API_KEYY": key, "LOG_FORMAT": "json"})
    assert main([]) == 0
    err = capsys.readouterr().err
    assert "settings.warning" in err
    assert "A_API_KEYY is unknown and ignored" in err
    assert key not in err
    assert SENT not in err


def test_main_replaces_characters_that_the_terminal_cannot_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may contain any character, and a terminal may not be UTF-8."""
    written = io.BytesIO()
    stdout = io.TextIOWrapper(written, encoding="ascii", write_through=True)

    async def console(settings: Settings) -> int:
        return stdout.write("“ёё”")

    monkeypatch.setattr("bot.composition.console.run_console", console)
    monkeypatch.setattr("sys.stdout", stdout)
    assert main(["console"]) == 4
    assert written.getvalue() == b"????"


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """And the default without one."""
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in ("telegram", "console", "check", "train"))
    assert "until TELEGRAM_BOT_TOKEN is set" in out
