"""The lane of PostgreSQL: a few threads, which execute one transaction each."""

import asyncio
import time
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from core.db.connection_slots import ConnectionSlots
from core.db.driver_errors import BUSY
from core.db.lane import CLOSE_S, Executed, LaneThreads, execute_transaction
from core.errors import StorageError

T = TypeVar("T")


class PostgresLane:
    """A few threads, each with a connection of the pool and a transaction of its own.

    Args:
        threads: number of threads, that of the pool's connections.
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
        try:
            if self._executing:
                await asyncio.wait(self._executing, timeout=CLOSE_S)
            # Threads end first: disposing of the pool leaves connections open that are in use.
            await self._threads.stop(max(0.0, deadline - time.monotonic()))
        finally:
            self._engine.dispose()

    async def _execute(self, work: Callable[[Connection], T]) -> Executed[T]:
        try:
            async with self._slots.slot():
                return await self._threads.submit(partial(execute_transaction, self._engine, copy_context(), work))
        except TimeoutError:
            return Executed(error=StorageError(f"the database failed: {BUSY}"))
