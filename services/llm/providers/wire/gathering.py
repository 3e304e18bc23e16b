"""Gathers the text of an event stream that arrives within a window, so that it is read at once.

A read that waits for each piece costs a turn of the event loop and the waking of its task per piece, a third of what
an arrival costs. Here aiohttp's reader keeps the pieces, and an object in the place of its waiting read looks at each.

Private API of aiohttp 3.14: `StreamReader._waiter`, `_buffer` and `_size`; the tests of
tests/services/llm/providers/wire/test_merging.py fail if they move.
"""

# pyright: reportPrivateUsage=false

import asyncio
import re

import aiohttp

GATHERED_BYTES = 16 << 10
"""Bytes that end a window early: far more than a model writes in it."""
_NOT_TEXT = re.compile(
    rb'"(?:finish_?[rR]eason|stop_reason|refusal)"\s*:\s*"|"(?:usage|tool_calls|function_call)"\s*:\s*[{\[]'
    rb'|"(?:error|functionCall|tool_use|input_json_delta|message_stop|message_delta)"|content_block_st|\[DONE\]'
)
"""Events of the protocols that are handed on at once; a match within text only ends a window early."""


async def gather_text(content: aiohttp.StreamReader, piece: bytes, until: float) -> tuple[bytes, float]:
    """Returns the pieces that arrive until an instant as one; earlier at one without text, and at its longest length.

    An error of the stream is left to the next read.

    Returns:
        The piece, and the time since its last part arrived, in seconds.
    """
    if _NOT_TEXT.search(piece) or len(piece) >= GATHERED_BYTES:
        return piece, 0.0
    gathering = _Gathering(content, GATHERED_BYTES - len(piece))
    await gathering.wait(until)
    if not content.exception():
        piece += content.read_nowait()
    return piece, asyncio.get_running_loop().time() - gathering.arrived_at


class _Gathering:
    """Stands in the place of the future that a read waits for; aiohttp resolves it with each piece.

    Args:
        content: the reader, without a waiting read.
        most_bytes: bytes in its buffer that end the wait.
    """

    def __init__(self, content: aiohttp.StreamReader, most_bytes: int) -> None:
        self._content = content
        self._most_bytes = most_bytes
        self._loop = asyncio.get_running_loop()
        self._is_over = self._loop.create_future()
        self._seen_bytes = content.total_bytes
        self.arrived_at = self._loop.time()
        """The event loop's time of the newest piece."""

    async def wait(self, until: float) -> None:
        """Waits until an instant, or for a piece that is not to be held."""
        content = self._content
        if content.is_eof() or content.exception():
            return
        timer = self._loop.call_at(until, self._end)
        self._arm()
        try:
            await self._is_over
        finally:
            timer.cancel()
            content._waiter = None

    def done(self) -> bool:
        """Returns False: every piece is looked at."""
        return False

    def set_result(self, _: None) -> None:
        """Looks at the newest piece, if there is one, and waits for the next unless the wait is over."""
        content = self._content
        is_new = content.total_bytes > self._seen_bytes
        if is_new:
            self._seen_bytes = content.total_bytes
            self.arrived_at = self._loop.time()
        buffer, size = content._buffer, content._size
        if content.is_eof() or size >= self._most_bytes or (is_new and _NOT_TEXT.search(buffer[-1])):
            self._end()
        else:
            self._arm()

    def set_exception(self, _: BaseException) -> None:
        """Ends the wait; the next read raises the error."""
        self._end()

    def _arm(self) -> None:
        self._content._waiter = self  # pyright: ignore[reportAttributeAccessIssue] - as a future is used

    def _end(self) -> None:
        if not self._is_over.done():
            self._is_over.set_result(None)
