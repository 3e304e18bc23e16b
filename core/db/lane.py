"""Whole transactions in threads beside the event loop: one hop each, where a session makes one for each statement.

The transactions of a turn cost more in hops than in statements. On SQLite, one thread executes the transactions that
wait in one commit; on PostgreSQL, a few threads execute one each.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from sqlalchemy import Connection, Engine

from core.db.driver_errors import DRIVER_ERRORS, LOCKED, to_storage_error
from core.errors import StorageError

T = TypeVar("T")

LARGEST_BATCH: Final = 100
"""Transactions in one commit."""

OWN_WRITER_TIMEOUTS: Final = 4
"""Busy timeouts for which the transactions of turns wait while a writer of this process does not commit.

In a burst of 3,000 people on a busy machine one commit took longer than a busy timeout, and eight answers had no
memory.
"""
READ: Final = "BEGIN DEFERRED"
WRITE: Final = "BEGIN IMMEDIATE"
"""On SQLite a transaction that reads before it writes fails immediately if another one wrote in between, regardless of
the busy timeout. IMMEDIATE takes the write lock up front."""
CLOSE_S: Final = 2.0
"""Seconds that closing waits for transactions whose callers were cancelled."""


class Lane(Protocol):
    """Executes transactions in threads, in order of arrival."""

    async def run(self, work: Callable[[Connection], T], *, urgent: bool = False, reading: bool = False) -> T:
        """Executes a read-write transaction in one hop to a thread; it is committed when this returns.

        On SQLite it may share its commit with others, and be executed again where one of them failed: the function
        returns values and has no other effect. After a cancellation the transaction is executed or not.

        Args:
            work: executes the statements.
            urgent: whether to acquire SQLite's write lock before waiters that are not.
            reading: whether it only reads; on SQLite it does not wait for writers.

        Raises:
            StorageError: the database is locked, read-only, full, unreachable, or rejected a statement.
        """
        ...

    @property
    def waiting(self) -> int:
        """Transactions that wait for their turn."""
        ...

    async def close(self) -> None:
        """Closes the connections; they are opened again when needed."""
        ...


@dataclass(slots=True, eq=False)
class _Transaction:
    work: Callable[[Connection], Any]  # Any: the type is known to the caller of `run`
    context: Context
    done: asyncio.Future[Any]
    urgent: bool


@dataclass(frozen=True, slots=True)
class Executed(Generic[T]):
    """The value of a transaction that was committed, or the error of one that was not."""

    value: T | None = None
    error: Exception | None = None

    @property
    def is_outage(self) -> bool:
        """True if the database rejects everything at the moment, not this transaction."""
        return isinstance(self.error, StorageError) and not self.error.permanent

    def hand_to(self, future: asyncio.Future[Any]) -> None:
        """Ends the wait of a caller, unless it was cancelled."""
        if future.done():
            return
        if self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(self.value)

    def result(self) -> T:
        """Returns the value, or raises the error."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)  # None only where T admits it


class LaneThreads:
    """Threads that execute functions in order of arrival. A thread that hangs does not keep the process from ending.

    Args:
        count: threads, started on first use.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[Thread] = []

    def submit(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Executes a function, which raises nothing, and returns the future of its result."""
        if not self._threads:
            self._threads = [
                Thread(target=_serve, args=(self._queue,), name="database", daemon=True) for _ in range(self._count)
            ]
            for thread in self._threads:
                thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def execute() -> None:
            result = function()
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, done, result)

        self._queue.put(execute)
        return done

    async def stop(self, timeout_s: float) -> None:
        """Ends the threads once they have executed the submitted work, also that of cancelled callers.

        A thread that hangs is not waited for longer than `timeout_s`.
        """
        threads, self._threads = self._threads, []
        # A thread that hangs leaves its end marker in the old queue; work submitted later needs another one.
        queue, self._queue = self._queue, SimpleQueue()
        for _ in threads:
            queue.put(None)
        if threads:
            await asyncio.to_thread(_join, threads, timeout_s)


def _serve(queue: SimpleQueue[Callable[[], None] | None]) -> None:
    while (execute := queue.get()) is not None:
        execute()
        del execute  # an idle thread keeps no transaction alive


def _join(threads: Sequence[Thread], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _resolve(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


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


class SqliteLane:
    """One thread that writes and one that reads. The transactions that wait for the writing one share a commit.

    If one of them is at fault, all are rolled back and executed one by one, so that it takes no other along. A
    transaction may therefore be executed twice, and is committed once.

    Args:
        engine: opens connections, which begin no transaction by themselves.
        write_lock: shared with the sessions of this process.
        busy_timeout_s: the longest wait for the lock without a commit by any holder.
    """

    def __init__(self, engine: Engine, write_lock: WriteLock, busy_timeout_s: float) -> None:
        self._engine = engine
        self._write_lock = write_lock
        self._busy_timeout_s = busy_timeout_s
        self._writer, self._reader = LaneThreads(1), LaneThreads(1)
        self._pending: list[_Transaction] = []
        self._executing: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Transactions that wait for the writing thread."""
        return len(self._pending)

    async def run(self, work: Callable[[Connection], T], *, urgent: bool = False, reading: bool = False) -> T:
        """Executes a transaction."""
        if reading:
            executed = await self._reader.submit(partial(execute_transaction, self._engine, copy_context(), work, READ))
            return executed.result()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append(_Transaction(work, copy_context(), done, urgent))
        if self._executing is None:
            # A task of its own: a cancelled caller must take no other along.
            self._executing = asyncio.create_task(self._execute_pending(), name="database.lane")
        return await done

    async def close(self) -> None:
        """Finishes the transactions and closes the connections."""
        try:
            if self._executing is not None:
                # Not awaited itself: a cancellation would reach it, and its callers would wait for ever.
                await asyncio.wait([self._executing])
            # Threads end first: disposing of the pool leaves connections open that are in use.
            await asyncio.gather(self._writer.stop(CLOSE_S), self._reader.stop(CLOSE_S))
        finally:
            self._engine.dispose()

    async def _execute_pending(self) -> None:
        try:
            while self._pending:
                await self._execute_batch()
        finally:
            self._executing = None

    async def _execute_batch(self) -> None:
        try:
            patience_s = OWN_WRITER_TIMEOUTS * self._busy_timeout_s
            await self._write_lock.acquire(patience_s, urgent=any(each.urgent for each in self._pending))
        except TimeoutError:
            batch, self._pending = self._pending, []
            for transaction in batch:
                Executed(error=StorageError(f"the database failed: {LOCKED}")).hand_to(transaction.done)
            return
        batch = [each for each in self._pending[:LARGEST_BATCH] if not each.done.cancelled()]
        del self._pending[:LARGEST_BATCH]
        outcomes: Sequence[Executed[Any]] = ()
        try:
            if batch:
                outcomes = await self._writer.submit(partial(self._execute_together, batch))
        finally:
            self._write_lock.release(committed=any(each.error is None for each in outcomes))
        for transaction, outcome in zip(batch, outcomes, strict=True):
            outcome.hand_to(transaction.done)

    def _execute_together(self, batch: Sequence[_Transaction]) -> Sequence[Executed[Any]]:
        if len(batch) > 1:

            def work(connection: Connection) -> list[Any]:
                return [each.context.run(each.work, connection) for each in batch]

            # A span of the commit belongs to the first; a context can be entered once only.
            together = execute_transaction(self._engine, batch[0].context.copy(), work, WRITE)
            if together.error is None:
                return [Executed(value) for value in together.result()]
            if together.is_outage:
                return [together] * len(batch)
        outcomes: list[Executed[Any]] = []
        for each in batch:
            # During an outage each would wait for the whole busy timeout.
            is_outage = bool(outcomes) and outcomes[-1].is_outage
            outcomes.append(
                outcomes[-1] if is_outage else execute_transaction(self._engine, each.context, each.work, WRITE)
            )
        return outcomes


def execute_transaction(
    engine: Engine, context: Context, work: Callable[[Connection], T], begin: str | None = None
) -> Executed[T]:
    """Executes and commits a transaction in the current thread. Raises nothing.

    Args:
        begin: the statement that begins it, where the driver begins none by itself.
    """

    def transact() -> T:
        with engine.begin() as connection:
            if begin is not None:
                connection.exec_driver_sql(begin)
            return work(connection)

    try:
        # Begin and commit as well, of which a span is recorded.
        return Executed(context.run(transact))
    except DRIVER_ERRORS as error:
        return Executed(error=to_storage_error(error))
    except Exception as error:  # noqa: BLE001 - raised where the transaction is awaited
        return Executed(error=error)
