"""Whole transactions in threads beside the event loop: one hop each, where a session makes one for each statement.

The transactions of a turn cost more in hops than in statements. On SQLite, one thread executes the transactions that
wait in one commit; on PostgreSQL, a few threads execute one each.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from sqlalchemy import Connection, Engine

from core.db.drivers import BUSY, LOCKED, translate_errors
from core.db.queues import ConnectionSlots, TransactionRunner, WriteLock
from core.errors import StorageError

T = TypeVar("T")

LARGEST_BATCH: Final = 100
"""Transactions in one commit."""

OWN_WRITER_TIMEOUTS: Final = 4
"""Busy timeouts for which the transactions of turns wait while a writer of this process does not commit.

In a burst of 3,000 people on a busy machine one commit took longer than a busy timeout, and eight answers had no
memory.
"""
CLOSE_S: Final = 2.0
"""Seconds that closing waits for transactions whose callers were cancelled."""


class Lane(TransactionRunner, Protocol):
    """Executes transactions in threads, in order of arrival."""

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
class _Outcome(Generic[T]):
    value: T | None = None
    error: Exception | None = None

    @property
    def is_outage(self) -> bool:
        """True if the database rejects everything at the moment, not this transaction."""
        return isinstance(self.error, StorageError) and not self.error.permanent

    def hand_to(self, future: asyncio.Future[Any]) -> None:
        if future.done():
            return
        if self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(self.value)

    def result(self) -> T:
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


class SqliteLane:
    """One thread that writes and one that reads. The transactions that wait for the writing one share a commit.

    If one of them is at fault, all are rolled back and executed one by one, so that it takes no other along. A
    transaction may therefore be executed twice, and is committed once.

    Args:
        engine: begins transactions that read.
        writing: begins transactions that write.
        write_lock: shared with the sessions of this process.
        busy_timeout_s: the longest wait for the lock without a commit by any holder.
    """

    def __init__(self, engine: Engine, writing: Engine, write_lock: WriteLock, busy_timeout_s: float) -> None:
        self._engine = engine
        self._writing = writing
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
            executed = await self._reader.submit(partial(_execute, self._engine, copy_context(), work))
            return executed.result()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append(_Transaction(work, copy_context(), done, urgent))
        if self._executing is None:
            # A task of its own: a cancelled caller must take no other along.
            self._executing = asyncio.create_task(self._execute_pending(), name="database.lane")
        return await done

    async def close(self) -> None:
        """Finishes the transactions and closes the connections."""
        if self._executing is not None:
            await self._executing
        # Threads end first: disposing of the pool leaves connections open that are in use.
        await asyncio.gather(self._writer.stop(CLOSE_S), self._reader.stop(CLOSE_S))
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
                _Outcome(error=StorageError(f"the database failed: {LOCKED}")).hand_to(transaction.done)
            return
        batch = [each for each in self._pending[:LARGEST_BATCH] if not each.done.cancelled()]
        del self._pending[:LARGEST_BATCH]
        outcomes: Sequence[_Outcome[Any]] = ()
        try:
            if batch:
                outcomes = await self._writer.submit(partial(self._execute_together, batch))
        finally:
            self._write_lock.release(committed=any(each.error is None for each in outcomes))
        for transaction, outcome in zip(batch, outcomes, strict=True):
            outcome.hand_to(transaction.done)

    def _execute_together(self, batch: Sequence[_Transaction]) -> Sequence[_Outcome[Any]]:
        if len(batch) > 1:

            def work(connection: Connection) -> list[Any]:
                return [each.context.run(each.work, connection) for each in batch]

            # A span of the commit belongs to the first; a context can be entered once only.
            together = _execute(self._writing, batch[0].context.copy(), work)
            if together.error is None:
                return [_Outcome(value) for value in together.result()]
            if together.is_outage:
                return [together] * len(batch)
        outcomes: list[_Outcome[Any]] = []
        for each in batch:
            # During an outage each would wait for the whole busy timeout.
            is_outage = bool(outcomes) and outcomes[-1].is_outage
            outcomes.append(outcomes[-1] if is_outage else _execute(self._writing, each.context, each.work))
        return outcomes


class PostgresLane:
    """A few threads, each with a connection of the pool and a transaction of its own.

    Args:
        threads: as many as the pool has connections.
        standstill_s: the longest wait for a thread during which none comes free.
    """

    def __init__(self, engine: Engine, threads: int, standstill_s: float) -> None:
        self._engine = engine
        self._slots = ConnectionSlots(threads, standstill_s)
        self._threads = LaneThreads(threads)
        self._executing: set[asyncio.Task[Any]] = set()

    @property
    def waiting(self) -> int:
        """Transactions that wait for a thread."""
        return self._slots.waiting

    async def run(self, work: Callable[[Connection], T], *, urgent: bool = False, reading: bool = False) -> T:
        """Executes a transaction. Writers do not wait for each other here, so none is urgent."""
        del urgent, reading
        # A task of its own: the slot is taken until the thread is free, also when the caller is cancelled.
        executing = asyncio.create_task(self._execute(work), name="database.lane")
        self._executing.add(executing)
        executing.add_done_callback(self._executing.discard)
        executed = await asyncio.shield(executing)
        return executed.result()

    async def close(self) -> None:
        """Closes the connections; a transaction that hangs is not waited for longer than `CLOSE_S`."""
        deadline = time.monotonic() + CLOSE_S
        if self._executing:
            await asyncio.wait(self._executing, timeout=CLOSE_S)
        # Threads end first: disposing of the pool leaves connections open that are in use.
        await self._threads.stop(max(0.0, deadline - time.monotonic()))
        self._engine.dispose()

    async def _execute(self, work: Callable[[Connection], T]) -> _Outcome[T]:
        try:
            async with self._slots.slot():
                return await self._threads.submit(partial(_execute, self._engine, copy_context(), work))
        except TimeoutError:
            return _Outcome(error=StorageError(f"the database failed: {BUSY}"))


def _execute(engine: Engine, context: Context, work: Callable[[Connection], T]) -> _Outcome[T]:
    def transact() -> _Outcome[T]:
        with translate_errors(), engine.begin() as connection:
            return _Outcome(work(connection))

    try:
        # Begin and commit as well, of which a span is recorded.
        return context.run(transact)
    except Exception as error:  # noqa: BLE001 - raised where the transaction is awaited
        return _Outcome(error=error)
