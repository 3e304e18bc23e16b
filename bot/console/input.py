"""What is typed, line by line: at a prompt on a terminal, or out of a pipe or file."""

import asyncio
import codecs
import contextlib
import os
import threading
from typing import Protocol

PROMPT = "> "
_CHUNK_BYTES = 65536


class InputReader(Protocol):
    """Where lines come from."""

    async def next(self) -> str | None:
        """The next one; None when there are no more."""
        ...


class PromptInput:
    """A prompt that can be edited, with a history of this session."""

    def __init__(self) -> None:
        # Imported here: 60 ms that piped input need not wait for.
        from prompt_toolkit import PromptSession  # noqa: PLC0415 - see above
        from prompt_toolkit.history import InMemoryHistory  # noqa: PLC0415 - the same

        self._session = PromptSession[str](PROMPT, history=InMemoryHistory())

    async def next(self) -> str | None:
        """The next line; Ctrl-C empties the one that is being written, Ctrl-D in an empty one ends."""
        from prompt_toolkit.patch_stdout import patch_stdout  # noqa: PLC0415 - as above

        while True:
            try:
                # The log may speak meanwhile: its lines go above the prompt, with their colours.
                with patch_stdout(raw=True):
                    # The signal itself is ours; at a prompt Ctrl-C is a key.
                    return await self._session.prompt_async(handle_sigint=False)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None


class PipedInput:
    """The lines of a file descriptor, whatever it is.

    Each read is a daemon thread of its own: a pipe, a terminal and a file all work, nobody waits at the end for a
    read that never returns, and no more is read than is asked for.

    Args:
        descriptor: where to read; None is an empty input.
    """

    def __init__(self, descriptor: int | None, encoding: str = "utf-8") -> None:
        self._descriptor = descriptor
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._rest = ""
        self._ended = descriptor is None

    async def next(self) -> str | None:
        """The next line, without its end."""
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
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(arrive, chunk)

        threading.Thread(target=read, name="console.read", daemon=True).start()
        return await arrived
