"""Writes that the database rejected, kept in memory in order until it accepts them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from core.errors import StorageError

log = structlog.get_logger()

Save = Callable[[], Awaitable[None]]


class DeferredWrites:
    """Saves at once, or later while the database is unavailable.

    Args:
        limit: the most that may wait; the oldest is dropped.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._waiting: deque[Save] = deque()
        self._flushing = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    async def save(self, save: Save) -> bool:
        """Save after everything that waits; queue it where the database rejects it. Returns whether it is saved.

        Raises:
            StorageError: the database will never accept it.
        """
        if await self.flush():
            try:
                await save()
            except StorageError as error:
                if error.permanent:
                    raise
                log.error("turn.not_saved", error=str(error))  # noqa: TRY400 - the reason says it all
            else:
                return True
        self._put(save)
        return False

    async def flush(self) -> bool:
        """Save what waits, as far as the database accepts it. Returns whether nothing is left."""
        if self._flushing.locked():
            # Each try may take a whole busy timeout; concurrent callers share one.
            async with self._flushing:
                return not self._waiting
        async with self._flushing:
            while self._waiting:
                save = self._waiting[0]
                try:
                    await save()
                    log.info("turn.backlog_flushed")
                except StorageError as error:
                    if not error.permanent:
                        return False
                    log.warning("turn.write_rejected", error=str(error))
                except Exception:
                    # A bug in one write must not block the others.
                    log.exception("turn.lost")
                # It may have been dropped for a newer one while it was being saved.
                if self._waiting and self._waiting[0] is save:
                    self._waiting.popleft()
        return True

    def _put(self, save: Save) -> None:
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            log.error("turn.lost", waiting=self._limit)
        self._waiting.append(save)
