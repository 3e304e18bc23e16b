"""Input lines: from a prompt on a terminal, or from a pipe or file."""

import asyncio
import codecs
import contextlib
import os
import threading
from typing import Protocol, TextIO

PROMPT = "> "
_CHUNK_BYTES = 65536


class InputReader(Protocol):
    """A source of lines."""

    async def next(self) -> str | None:
        """Returns the next line, or None at the end."""
        ...


class PromptInput:
    """An editable prompt with the history of this session."""

    def __init__(self) -> None:
        # Imported here: 60 ms that piped input need not wait for.
        from prompt_toolkit import PromptSession  # noqa: PLC0415 - see above
        from prompt_toolkit.history import InMemoryHistory  # noqa: PLC0415 - the same

        self._session = PromptSession[str](PROMPT, history=InMemoryHistory())

    async def next(self) -> str | None:
        """Returns the next line. Ctrl-C clears the line being edited, Ctrl-D on an empty line ends the input."""
        from prompt_toolkit.patch_stdout import patch_stdout  # noqa: PLC0415 - as above

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


def open_input(stdin: TextIO | None, stdout: TextIO) -> InputReader:
    """Returns the reader that suits standard input; the interpreter has none when started with `<&-`."""
    if stdin is None or stdin.closed:
        return PipedInput(None)
    if stdin.isatty() and stdout.isatty():
        return PromptInput()
    return PipedInput(stdin.fileno(), stdin.encoding)
