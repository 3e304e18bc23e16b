"""Queues in front of the database: for a connection of the pool, for SQLite's one writer, and for a shared commit.

Under load of our own a request waits, however long the queue is; only a standstill fails.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Executable

from core.errors import StorageError

T = TypeVar("T")


class ConnectionSlots:
    """As many slots as the pool has connections, given out first in, first out; for one event loop.

    The pool itself fails every request that has waited for its timeout, so that of thousands at one instant most would
    fail although the database answers. Here only a standstill fails.

    Args:
        count: connections of the pool.
        standstill_s: the longest wait without any connection coming free.
    """

    def __init__(self, count: int, standstill_s: float) -> None:
        self._free = count
        self._standstill_s = standstill_s
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._releases = 0

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiters)

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None]:
        """Holds a slot while the context lasts.

        Raises:
            TimeoutError: no connection came free for `standstill_s`.
        """
        await self._acquire()
        try:
            yield
        finally:
            self._release()

    async def _acquire(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            while not turn.done():
                releases = self._releases
                await asyncio.wait([turn], timeout=self._standstill_s)
                if not turn.done() and self._releases == releases:
                    turn.cancel()
                    raise TimeoutError
        except asyncio.CancelledError:
            if turn.done():
                # Given out at the moment of the cancellation.
                self._release()
            turn.cancel()
            raise

    def _release(self) -> None:
        self._releases += 1
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class WriteLock:
    """FIFO lock with a priority lane. Not reentrant; for one event loop."""

    def __init__(self) -> None:
        self._is_locked = False
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._commits = 0

    @property
    def waiting(self) -> int:
        """Transactions that wait for the lock."""
        return len(self._urgent) + len(self._waiters)

    async def acquire(self, timeout_s: float, *, urgent: bool) -> None:
        """Acquires the lock.

        Args:
            timeout_s: the longest wait without a commit by any holder; a long queue that progresses never times out.
            urgent: whether to be served before waiters that are not.

        Raises:
            TimeoutError: no holder committed for `timeout_s`.
        """
        if not self._is_locked:
            self._is_locked = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._urgent if urgent else self._waiters).append(turn)
        try:
            while not turn.done():
                commits = self._commits
                await asyncio.wait([turn], timeout=timeout_s)
                if not turn.done() and self._commits == commits:
                    turn.cancel()
                    raise TimeoutError
        except asyncio.CancelledError:
            if turn.done():
                # Acquired at the moment of the cancellation.
                self.release(committed=False)
            turn.cancel()
            raise

    def release(self, *, committed: bool) -> None:
        """Releases the lock to the next waiter."""
        self._commits += committed
        for waiters in (self._urgent, self._waiters):
            while waiters:
                turn = waiters.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._is_locked = False


class TransactionRunner(Protocol):
    """Executes transactions, each a function of a connection; see `Database.run`."""

    async def run(self, work: Callable[[Connection], T], *, urgent: bool = False, reading: bool = False) -> T:
        """Executes a transaction."""
        ...


_Write = tuple[Executable, asyncio.Future[None]]


class GroupCommit:
    """Batches idempotent statements of concurrent callers into one transaction.

    For writes that must be durable before their caller proceeds, above all the record of a sent message. Committed one
    by one they would queue behind each other and behind all other writes, and a process that dies meanwhile would not
    know which messages it sent. A statement may be executed twice.

    Args:
        database: its other waiting writers are overtaken.
    """

    def __init__(self, database: TransactionRunner) -> None:
        self._database = database
        self._pending: list[_Write] = []
        self._commit_lock = asyncio.Lock()

    async def execute(self, statement: Executable) -> None:
        """Executes a statement; it is committed when this returns.

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
        def work(connection: Connection) -> None:
            for statement, _ in batch:
                connection.execute(statement)

        await self._database.run(work, urgent=True)
        for _, done in batch:
            if not done.done():
                done.set_result(None)


def _fail(batch: list[_Write], error: StorageError) -> None:
    for _, done in batch:
        if not done.done():
            done.set_exception(error)
