"""What the database did not take waits here, in memory and in order, until it does."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from core.errors import StorageError

log = structlog.get_logger()

Save = Callable[[], Awaitable[None]]


class DeferredWrites:
    """Saves now or later.

    Args:
        limit: how many may wait; the oldest gives way.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._waiting: deque[Save] = deque()
        self._flushing = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    async def save(self, save: Save) -> bool:
        """Save behind what waits, or wait too where the database takes nothing; whether it is saved.

        Raises:
            StorageError: the database never will take it.
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
        """Save what waits, as far as the database takes it now; whether nothing is left."""
        if self._flushing.locked():
            # Each try may take a whole busy timeout: a crowd shares one.
            async with self._flushing:
                return not self._waiting
        async with self._flushing:
            while self._waiting:
                save = self._waiting[0]
                try:
                    await save()
                    log.info("turn.saved_late")
                except StorageError as error:
                    if not error.permanent:
                        return False
                    log.warning("turn.refused", error=str(error))
                except Exception:
                    # A bug of ours must not keep the others waiting.
                    log.exception("turn.lost")
                # While it was saved, it may have given way to a newer one.
                if self._waiting and self._waiting[0] is save:
                    self._waiting.popleft()
        return True

    def _put(self, save: Save) -> None:
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            log.error("turn.lost", waiting=self._limit)
        self._waiting.append(save)
