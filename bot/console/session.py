"""One console session: its start-up lines, then each line that is read is run before the next one."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any

import structlog

from bot.console.chat import ConsoleChat
from bot.console.commands import BARE_HELP, LEAVING, Commands
from bot.console.input import InputReader, PipedInput, PromptInput
from bot.console.terminal import Terminal
from core.background import cancel_and_wait
from core.config.providers import ProviderKind
from core.config.settings import Settings
from core.errors import StorageError
from core.i18n import Texts
from services.llm.providers.probe import ProbeResult

log = structlog.get_logger()


def print_banner(
    terminal: Terminal, texts: Texts, language: str | None, settings: Settings, probes: Sequence[ProbeResult]
) -> None:
    """Prints the state of each provider, warnings and a hint.

    Args:
        settings: effective settings, with the demo provider if it was added.
        probes: one per usable provider.
    """
    for probe in probes:
        terminal.print(_describe(probe, texts, language))
    for warning in settings.warnings:
        terminal.print_dimmed(warning)
    if any(provider.kind is ProviderKind.DEMO for provider in settings.providers) and not is_any_ready(probes):
        terminal.print_highlighted(texts.get("console-demo-stands-in", language))
    if settings.redis_url is None:
        terminal.print_dimmed(texts.get("console-embedded-store", language))
    terminal.print_dimmed(texts.get("console-hint", language))
    terminal.print_blank_line()


def is_any_ready(probes: Sequence[ProbeResult]) -> bool:
    """Returns whether any provider is available."""
    return any(probe.is_ready for probe in probes)


def _describe(probe: ProbeResult, texts: Texts, language: str | None) -> str:
    provider, model = probe.provider.id, probe.default_model
    if probe.reason is not None and not probe.has_no_list:
        return f"{provider}: {probe.reason}"
    key = "console-ready" if probe.is_ready else "console-model-missing"
    return texts.get(key, language, provider=provider, model=model)


async def run_until_interrupted(work: Coroutine[Any, Any, None], session: "Session") -> int:
    """Runs the work of a session until it ends or a signal ends it.

    Returns:
        The exit code: 1 if the input is piped and something in it was not answered.

    SIGINT stops the running answer or command; without one it ends the session, as SIGTERM and SIGHUP always do.
    """
    task = asyncio.create_task(work, name="console")
    try:
        with _handle_signals(interrupt=lambda: session.interrupt() or task.cancel(), leave=task.cancel):
            await asyncio.wait({task})
    finally:
        await cancel_and_wait(task)
    if not task.cancelled():
        task.result()
    return int(session.has_failed)


class Session:
    """Reads lines until the user leaves, by `/quit` for example, or the input ends."""

    def __init__(self, terminal: Terminal, lines: InputReader) -> None:
        self.terminal = terminal
        self._lines = lines
        self._chat: ConsoleChat | None = None
        self._running: asyncio.Task[None] | None = None
        self._is_any_line_failed = False

    @property
    def has_failed(self) -> bool:
        """True if a script that reads the output must know that a line was not answered."""
        is_any_unanswered = self._chat is not None and self._chat.is_any_unanswered
        return isinstance(self._lines, PipedInput) and (self._is_any_line_failed or is_any_unanswered)

    async def run(self, chat: ConsoleChat, commands: Commands, texts: Texts) -> None:
        """Runs each line as a command or as a message to the model."""
        self._chat = chat
        if isinstance(self._lines, PromptInput):
            self._lines.complete = commands.complete
        while (line := await self._lines.next()) is not None:
            line = line.strip()
            if line.lower() in LEAVING:
                break
            if line.lower() == BARE_HELP:
                line = f"/{BARE_HELP}"
            if line:
                work = commands.run(line) if line.startswith("/") else chat.ask(line)
                self._running = asyncio.create_task(work, name="console.line")
                with self._lines.hide_typing():
                    await self._finish(self._running, texts, chat.language)

    def interrupt(self) -> bool:
        """Stops the running answer or command. Returns False when nothing is running."""
        if self._chat is not None and self._chat.stop():
            return True
        return self._running is not None and self._running.cancel()

    async def _finish(self, running: asyncio.Task[None], texts: Texts, language: str | None) -> None:
        try:
            await running
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is not None and this.cancelling():
                raise
            self.terminal.print_dimmed(texts.get("stopped", language))
        except BrokenPipeError:
            # The reader of our output is gone.
            raise
        except StorageError as error:
            self._is_any_line_failed = True
            self.terminal.print(texts.get("console-storage-failed", language, reason=str(error)))
        except Exception:
            self._is_any_line_failed = True
            log.exception("console.failed")
            self.terminal.print(texts.get("failed-unexpected", language))


@contextlib.contextmanager
def _handle_signals(interrupt: Callable[[], object], leave: Callable[[], object]) -> Generator[None]:
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
