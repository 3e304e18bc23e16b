"""Batches small writes of concurrent callers into one transaction."""

import asyncio

from sqlalchemy import Executable

from core.db.database import Database
from core.errors import StorageError

_Write = tuple[Executable, asyncio.Future[None]]


class GroupCommit:
    """Batches idempotent statements of concurrent callers into one transaction.

    For writes that must be durable before their caller proceeds, above all the record of a sent message. Committed one
    by one they would queue behind each other and behind all other writes, and a process that dies meanwhile would not
    know which messages it sent. A statement may be executed twice.

    Args:
        database: its other waiting writers are overtaken.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: list[_Write] = []
        self._commit_lock = asyncio.Lock()

    async def execute(self, statement: Executable) -> None:
        """Execute a statement; it is committed when this returns.

        Raises:
            StorageError: the database rejected it or is unavailable.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((statement, done))
        try:
            async with self._commit_lock:
                # The previous holder of the lock may have committed this statement.
                if not done.done():
                    await self._commit_all()
            await done
        finally:
            done.cancel()

    async def _commit_all(self) -> None:
        batch, self._pending = self._pending, []
        try:
            await self._commit_or_fail(batch)
        except BaseException:
            # A cancellation concerns only the caller that holds the lock; the others commit their own writes.
            self._pending = [*(write for write in batch if not write[1].done()), *self._pending]
            raise

    async def _commit_or_fail(self, batch: list[_Write]) -> None:
        try:
            await self._commit(batch)
        except StorageError as error:
            if len(batch) > 1 and error.permanent:
                # One statement is at fault: commit each alone to find it.
                for write in batch:
                    await self._commit_or_fail([write])
            else:
                _fail(batch, error)

    async def _commit(self, batch: list[_Write]) -> None:
        async with self._database.session(urgent=True) as session:
            for statement, _ in batch:
                await session.execute(statement)
        for _, done in batch:
            if not done.done():
                done.set_result(None)


def _fail(batch: list[_Write], error: StorageError) -> None:
    for _, done in batch:
        if not done.done():
            done.set_exception(error)
