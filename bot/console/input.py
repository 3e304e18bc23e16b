"""Input lines: from a prompt on a terminal, or from a pipe or file."""

import asyncio
import codecs
import contextlib
import os
import sys
import termios
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TextIO

PROMPT = "> "
_CHUNK_BYTES = 65536


class InputReader(Protocol):
    """A source of lines."""

    async def next(self) -> str | None:
        """Returns the next line, or None at the end."""
        ...

    def hide_typing(self) -> AbstractContextManager[None]:
        """Keeps typed-ahead input out of the output; it becomes the next line."""
        ...


class PromptInput:
    """An editable prompt with a history that lasts, and completion by the Tab key.

    Args:
        history: file of the history; only its owner can read it.
    """

    def __init__(self, history: Path) -> None:
        # Imported here: 60 ms that piped input need not wait for.
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import CompleteEvent, Completer, Completion
        from prompt_toolkit.document import Document
        from prompt_toolkit.history import FileHistory, History, InMemoryHistory

        self.complete: Callable[[str], Sequence[str]] = lambda _: ()
        """Returns the words that may stand at the end of a line."""
        prompt = self

        class WordCompletion(Completer):
            def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
                del complete_event
                line = document.text_before_cursor
                begun = line.rpartition(" ")[2]
                return [Completion(word, -len(begun)) for word in prompt.complete(line)]

        kept: History = FileHistory(str(history)) if _is_writable(history) else InMemoryHistory()
        self._session = PromptSession[str](
            PROMPT, history=kept, completer=WordCompletion(), complete_while_typing=False
        )

    async def next(self) -> str | None:
        """Returns the next line. Ctrl-C clears the line being edited, Ctrl-D on an empty line ends the input."""
        from prompt_toolkit.patch_stdout import patch_stdout

        while True:
            try:
                # Log lines are printed above the prompt, with their colours.
                with patch_stdout(raw=True):
                    # SIGINT is handled by the session; at the prompt Ctrl-C is a key.
                    return await self._session.prompt_async(handle_sigint=False)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None

    @contextlib.contextmanager
    def hide_typing(self) -> Generator[None]:
        """Switches the echo of the terminal off."""
        try:
            descriptor = sys.stdin.fileno()
            before = termios.tcgetattr(descriptor)
            hidden = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
            termios.tcsetattr(descriptor, termios.TCSANOW, hidden)
        except (OSError, termios.error):
            # The terminal has gone.
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(descriptor, termios.TCSANOW, before)


class PipedInput:
    """Lines of a file descriptor: pipe, terminal or file.

    Each read runs in its own daemon thread, so the process does not wait at exit for a read that never returns. No more
    is read than requested.

    Args:
        descriptor: None for an empty input.
    """

    def __init__(self, descriptor: int | None, encoding: str = "utf-8") -> None:
        self._descriptor = descriptor
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._rest = ""
        self._ended = descriptor is None

    async def next(self) -> str | None:
        """Returns the next line without its newline."""
        while "\n" not in self._rest and not self._ended:
            chunk = await self._read()
            self._ended = not chunk
            self._rest += self._decoder.decode(chunk, final=self._ended)
        line, newline, self._rest = self._rest.partition("\n")
        return line if line or newline else None

    def hide_typing(self) -> AbstractContextManager[None]:
        """Does nothing: piped input is not echoed."""
        return contextlib.nullcontext()

    async def _read(self) -> bytes:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[bytes] = loop.create_future()

        def arrive(chunk: bytes) -> None:
            if not arrived.done():
                arrived.set_result(chunk)

        def read() -> None:
            try:
                chunk = os.read(self._descriptor or 0, _CHUNK_BYTES)
            except OSError:
                chunk = b""
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(arrive, chunk)

        threading.Thread(target=read, name="console.read", daemon=True).start()
        return await arrived


def _is_writable(path: Path) -> bool:
    """Returns whether a file can be appended to; a new one is created for its owner alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600))
    except OSError:
        return False
    return True


def open_input(stdin: TextIO | None, stdout: TextIO, history: Path) -> InputReader:
    """Returns the reader that suits standard input; the interpreter has none when started with `<&-`."""
    if stdin is None or stdin.closed:
        return PipedInput(None)
    if stdin.isatty() and stdout.isatty():
        return PromptInput(history)
    return PipedInput(stdin.fileno(), stdin.encoding)
