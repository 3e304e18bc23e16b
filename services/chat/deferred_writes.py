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
        limit: pending writes; beyond it the oldest is dropped.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._pending: deque[Save] = deque()
        self._flush_lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._pending)

    async def save(self, save: Save) -> bool:
        """Save after all pending writes; queue it where the database rejects it. Returns whether it is saved.

        Raises:
            StorageError: the database will never accept it.
        """
        if await self.flush():
            try:
                await save()
            except StorageError as error:
                if error.permanent:
                    raise
                log.error("turn.not_saved", error=str(error))  # noqa: TRY400 - the error text is the reason
            else:
                return True
        self._queue(save)
        return False

    async def flush(self) -> bool:
        """Save the pending writes, as far as the database accepts them. Returns whether none is left."""
        if self._flush_lock.locked():
            # Each try may take a whole busy timeout; concurrent callers share one.
            async with self._flush_lock:
                return not self._pending
        async with self._flush_lock:
            while self._pending:
                save = self._pending[0]
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
                if self._pending and self._pending[0] is save:
                    self._pending.popleft()
        return True

    def _queue(self, save: Save) -> None:
        if len(self._pending) >= self._limit:
            self._pending.popleft()
            log.error("turn.lost", pending=self._limit)
        self._pending.append(save)
