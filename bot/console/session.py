"""A visit to the console, from the greeting to the end of input."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import structlog

from bot.console.chat import ConsoleChat
from bot.console.commands import QUIT, Commands
from bot.console.input import InputReader, PipedInput, PromptInput
from bot.console.terminal import Terminal
from core.errors import StorageError
from core.i18n import Texts

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OpenConsole:
    """An open console: its conversation, its commands and its texts."""

    chat: ConsoleChat
    commands: Commands
    texts: Texts


ConsoleOpener = Callable[[Terminal], AbstractAsyncContextManager[OpenConsole]]


async def run(open_console: ConsoleOpener) -> int:
    """Chat until `/quit`, the end of input or a signal; the exit code.

    Args:
        open_console: starts the services, prints the banner on a terminal, and closes the services again.

    Raises:
        ConfigurationError: DATA_DIR cannot be used.
        StartupError: the database cannot be used.
    """
    visit = _Session(Terminal(sys.stdout), _lines())
    task = asyncio.create_task(visit.run(open_console), name="console.visit")
    try:
        with _signals(interrupt=lambda: visit.interrupt() or task.cancel(), leave=task.cancel):
            await asyncio.wait({task})
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():
        task.result()
    return 0


@contextlib.contextmanager
def _signals(interrupt: Callable[[], object], leave: Callable[[], object]) -> Generator[None]:
    loop = asyncio.get_running_loop()
    handled: list[int] = []
    with contextlib.suppress(NotImplementedError, AttributeError):  # Windows has no such handlers, and no SIGHUP
        for number, act in ((signal.SIGINT, interrupt), (signal.SIGTERM, leave), (signal.SIGHUP, leave)):
            loop.add_signal_handler(number, act)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def _lines() -> InputReader:
    # Without an input (`<&-`), the interpreter has no sys.stdin at all.
    stdin, stdout = sys.stdin, sys.stdout
    if stdin is None or stdin.closed:  # pyright: ignore[reportUnnecessaryComparison] - typeshed does not say so
        return PipedInput(None)
    if stdin.isatty() and stdout.isatty():
        return PromptInput()
    return PipedInput(stdin.fileno(), stdin.encoding)


class _Session:
    """Reads lines and has each carried out before the next is read."""

    def __init__(self, screen: Terminal, lines: InputReader) -> None:
        self._screen = screen
        self._lines = lines
        self._talk: ConsoleChat | None = None
        self._act: asyncio.Task[None] | None = None

    async def run(self, open_console: ConsoleOpener) -> None:
        async with open_console(self._screen) as console:
            self._talk = console.chat
            while (line := await self._lines.next()) is not None:
                line = line.strip()
                if line.lower() == QUIT:
                    break
                if line:
                    act = console.commands.run(line) if line.startswith("/") else console.chat.ask(line)
                    self._act = asyncio.create_task(act, name="console.act")
                    await self._carried_out(self._act, console.texts, console.chat.language)

    def interrupt(self) -> bool:
        """Stop what is going on; False if nothing is."""
        if self._talk is not None and self._talk.stop():
            return True
        return self._act is not None and self._act.cancel()

    async def _carried_out(self, act: asyncio.Task[None], texts: Texts, language: str | None) -> None:
        try:
            await act
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is not None and this.cancelling():
                raise
            self._screen.aside(texts.get("stopped", language))
        except BrokenPipeError:
            # Nobody reads what we write any more.
            raise
        except StorageError as error:
            self._screen.say(texts.get("console-storage-failed", language, reason=str(error)))
        except Exception:
            log.exception("console.failed")
            self._screen.say(texts.get("failed-unexpected", language))
