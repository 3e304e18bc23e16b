"""Parts of the console that need no services."""

import asyncio
import io
import os
from pathlib import Path

import pytest

from bot.console import chat
from bot.console.chat import current_speaker, environment_language
from bot.console.input import PipedInput
from bot.console.terminal import Terminal
from core.config.providers import ProviderKind, ProviderSettings
from services.llm.providers.probe import ProbeResult


class FakeTerminal(io.StringIO):
    """A stream that reports to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({"LANG": "ru_RU.UTF-8"}, "ru-RU"),
        ({"LANG": "de_DE@euro"}, "de-DE"),
        ({"LANG": "ru", "LC_ALL": "en_US.UTF-8"}, "en-US"),  # as POSIX has it
        ({"LANG": "ru", "LC_MESSAGES": "de", "LC_ALL": ""}, "de"),
        ({"LANG": "C.UTF-8"}, None),
        ({"LANG": "POSIX"}, None),
        ({}, None),
    ],
)
def test_environment_language_returns_an_ietf_tag(environ: dict[str, str], language: str | None) -> None:
    assert environment_language(environ) == language


def test_current_speaker_without_a_user_name_is_you(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run under user ids without a name."""

    def nameless() -> str:
        raise KeyError("uid not found: 12345")

    monkeypatch.setattr(chat.getpass, "getuser", nameless)
    assert current_speaker({}).name == "you"


@pytest.mark.parametrize(
    ("stream", "environ", "styled"),
    [
        (FakeTerminal, {"TERM": "xterm"}, True),
        (FakeTerminal, {"TERM": "dumb"}, False),
        (FakeTerminal, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (io.StringIO, {"TERM": "xterm"}, False),  # a pipe or a file
    ],
)
def test_terminal_styles_remarks_where_supported(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], environ: dict[str, str], *, styled: bool
) -> None:
    """Answers are never styled."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    written = stream()
    terminal = Terminal(written)
    terminal.write("an answer")
    terminal.print_dimmed("dim")
    terminal.print_highlighted("noted")
    text = written.getvalue()
    assert text.startswith("an answer\n")
    assert ("\x1b[2mdim\x1b[0m\n" in text) is styled
    assert ("\x1b" in text) is styled


def test_log_lines_follow_the_answer_that_is_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    written = FakeTerminal()
    terminal = Terminal(written, styled=True)
    log = terminal.error_stream()
    log.write("[error] before\n")
    terminal.write("half ")
    log.write("[error] during\n")
    terminal.write("an answer")
    terminal.end_line()
    log.write("[error] after\n")
    assert written.getvalue() == "[error] before\nhalf an answer\n[error] during\n[error] after\n"


async def test_piped_input_reads_any_bytes_of_a_file(tmp_path: Path) -> None:
    """An event loop cannot wait for a regular file; reads may cut a character, and bytes may not be UTF-8."""
    long = "é" * 70_000
    path = tmp_path / "input"
    path.write_bytes(f"{long}\n\r\n".encode() + b"\xff\xfe\nlast")
    with path.open("rb") as file:
        lines = PipedInput(file.fileno())
        read = [await lines.next() for _ in range(6)]
    assert read == [long, "\r", "��", "last", None, None]


async def test_piped_input_without_a_descriptor_is_empty() -> None:
    """`python -m bot console <&-`."""
    assert await PipedInput(None).next() is None


async def test_piped_input_waits_without_blocking_the_loop() -> None:
    """The wait can be cancelled."""
    reading, writing = os.pipe()
    lines = PipedInput(reading)
    waiting = asyncio.create_task(lines.next())
    await asyncio.sleep(0.01)
    os.write(writing, b"hel")
    await asyncio.sleep(0.01)
    assert not waiting.done()
    os.write(writing, b"lo\n")
    assert await waiting == "hello"
    cancelled = asyncio.create_task(lines.next())
    await asyncio.sleep(0.01)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    os.close(writing)
    await asyncio.sleep(0.01)
    os.close(reading)


@pytest.mark.parametrize(
    ("listed", "unlisted"),
    [
        (("llama3.2",), ()),
        (("llama3.2:latest",), ()),  # as Ollama writes it
        (("llama3.2-20260101",), ()),  # the dated name behind an alias
        (("llama3.2-2026-01-01",), ()),
        (("llama3.2:70b", "llama3x2", "llama3.2-vision"), ("llama3.2",)),  # other models
        ((), ("llama3.2",)),
    ],
)
def test_probe_matches_spellings_of_a_listed_model(listed: tuple[str, ...], unlisted: tuple[str, ...]) -> None:
    """A wrong warning is worse than none."""
    provider = ProviderSettings(id="ollama", kind=ProviderKind.OLLAMA, models=("llama3.2",))
    probe = ProbeResult(provider, listed, None, 0.1)
    assert probe.unlisted == unlisted
    assert probe.is_ready is not bool(unlisted)
