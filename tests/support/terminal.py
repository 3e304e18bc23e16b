"""Drives the console: in this process through a pipe, or as a process at a pseudo-terminal."""

import asyncio
import fcntl
import io
import os
import pty
import re
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self

import pytest
from structlog.testing import capture_logs

from bot.composition.console import run_console
from core.config.settings import Settings

ROOT = Path(__file__).parents[2]
PATIENCE_S = 45.0
"""Processes start slowly on a busy machine."""
_STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


class Output:
    """Output so far, with waiting for more."""

    def __init__(self) -> None:
        self.text = ""
        self._passed = 0

    async def until(self, expected: str) -> str:
        """Wait until the text appears after the previous match; returns the output up to it."""
        deadline = time.monotonic() + PATIENCE_S
        while expected not in self.text[self._passed :]:
            assert time.monotonic() < deadline, f"{expected!r} was not printed, but {self.text[self._passed :]!r}"
            await asyncio.sleep(0.005)
        end = self.text.index(expected, self._passed) + len(expected)
        passed, self._passed = self.text[self._passed : end], end
        return passed


class _Stdout(io.StringIO):
    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def write(self, text: str) -> int:
        self._output.text += text
        return len(text)


class Console(Output):
    """A console in this process, with a pipe as its input; answers and remarks in the order of printing."""

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        reading, self._writing = os.pipe()
        self._stdin = os.fdopen(reading, encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", self._stdin)
        monkeypatch.setattr(sys, "stdout", _Stdout(self))
        monkeypatch.setattr(sys, "stderr", _Stdout(self))
        self._run = asyncio.create_task(run_console(settings))
        self._open = True

    def type(self, *lines: str) -> None:
        """Write lines."""
        os.write(self._writing, "".join(f"{line}\n" for line in lines).encode())

    async def leave(self) -> int:
        """End the input and return the exit code."""
        if self._open:
            self._open = False
            os.close(self._writing)
        try:
            return await asyncio.wait_for(self._run, PATIENCE_S)
        finally:
            self._stdin.close()


Opener = Callable[..., AbstractAsyncContextManager[Console]]
"""Opens a console on providers that are named by their base URLs."""


@asynccontextmanager
async def console(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Console]:
    """Open a console and wait for its banner."""
    with capture_logs():
        opened = Console(settings, monkeypatch)
        try:
            await opened.until("/help")
            await opened.until("\n\n")
            yield opened
        finally:
            await opened.leave()


class PseudoTerminal(Output):
    """A pseudo-terminal: keyboard, and output without styles; `raw` is the output with them."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = b""
        self._keyboard, self.end = pty.openpty()

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._keyboard, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._keyboard)
        os.close(self._keyboard)
        os.close(self.end)

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._keyboard, keys.encode())

    def _read(self) -> None:
        self.raw += os.read(self._keyboard, 65536)
        self.text = _STYLES.sub("", self.raw.decode(errors="replace"))


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process, without those of the test run."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SSL_CERT_FILE") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **variables}


@asynccontextmanager
async def process(
    directory: Path, variables: Mapping[str, str], command: Sequence[str] = ("-m", "bot"), terminal: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run Python as a process in a directory, at a terminal if one is given."""
    where = asyncio.subprocess.PIPE if terminal is None else terminal
    started = await asyncio.create_subprocess_exec(
        sys.executable, *command,
        cwd=directory, env=environment(variables),
        preexec_fn=None if terminal is None else partial(_take_terminal, terminal),
        stdin=where, stdout=where, stderr=asyncio.subprocess.PIPE if terminal is None else terminal,
    )  # fmt: skip
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


def _take_terminal(terminal: int) -> None:
    """Make a terminal the controlling one of this process, which Ctrl-C needs."""
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
