"""Renders long texts on a thread of its own, so that the event loop keeps answering others."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from bot.telegram.markdown.pages import Pages


@dataclass(frozen=True, slots=True)
class RenderThreadLimits:
    """What is short enough for the event loop itself, and how much is rendered at once.

    Args:
        units: work of the page's last update, about 3 ms.
        characters: of new text.
        slice: characters of new text in one update, about a page: each update has its own bound of work.
    """

    units: int = 1200
    characters: int = 2048
    slice: int = 4096


class RenderThread:
    """Updates pages: a short update at once, a long one on the thread.

    There is one thread for all answers: rendering takes Python's lock, and several threads would leave the event loop
    less than half of its time. On one, the loop waits 5 ms at most for the lock.
    """

    def __init__(self, limits: RenderThreadLimits | None = None) -> None:
        self._limits = limits or RenderThreadLimits()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="render")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def fill(self, pages: Pages, text: str) -> None:
        """Updates pages to a text, slice by slice. After a cancellation no update is running."""
        while not pages.overflows and pages.taken < len(text):
            end = min(len(text), pages.taken + self._limits.slice)
            await self._update(pages, text[:end])
            if end == len(text):
                # Half of a line end or of a character may be left for the next update.
                return

    async def _update(self, pages: Pages, text: str) -> None:
        if pages.spent <= self._limits.units and len(text) - pages.taken <= self._limits.characters:
            pages.update(text)
            return
        update = asyncio.get_running_loop().run_in_executor(self._executor, pages.update, text)
        try:
            await asyncio.shield(update)
        except asyncio.CancelledError:
            await asyncio.wait([update])
            raise
