"""Replicas that share an inbox: crash detection and leader election.

With SQLite there is one process, held by a file lock. With PostgreSQL each replica holds a session-level advisory lock
on its own name. PostgreSQL releases it only when the replica or its connection dies, so a lock that stays free marks a
dead replica while a slow one keeps its lock. The first replica that notices requeues the dead one's jobs. The same
session may hold the leader lock, which permits polling Telegram.
"""

import asyncio
import contextlib
import os
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
import structlog

from core.clock import Clock
from core.errors import StorageError
from services.inbox.dbos_tables import BUSY_REPLICAS

log = structlog.get_logger()

ALIVE_LOCK = 0x756E64
LEADER_LOCK = 0x6C6561
"""Class ids of the advisory locks; their object ids are hashed names."""

Recover = Callable[[str], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class ReplicaTiming:
    """Intervals of crash detection and leader election.

    Args:
        check_s: pause between two checks of the other replicas and of the leader lock.
        grace_s: how long a lock must be free before its replica counts as dead; after a restart of PostgreSQL all
            replicas have to take theirs again.
        reconnect_s: pause before a lost session is opened again.
        query_timeout_s: longest time of one query.
    """

    check_s: float = 1.0
    grace_s: float = 5.0
    reconnect_s: float = 0.5
    query_timeout_s: float = 5.0


class Replicas(Protocol):
    """The processes that share an inbox."""

    async def watch(self, recover: Recover) -> None:
        """Detect dead replicas until cancelled; `recover` requeues the jobs of one and returns how many."""
        ...

    def lead(self) -> contextlib.AbstractAsyncContextManager[asyncio.Event]:
        """Wait for leadership; the event is set when it is lost."""
        ...


class SingleReplica:
    """The only process: it leads for ever and has no others to watch."""

    async def watch(self, recover: Recover) -> None:
        """Wait until cancelled."""
        del recover
        await asyncio.Event().wait()

    @asynccontextmanager
    async def lead(self) -> AsyncGenerator[asyncio.Event]:
        """Lead at once; the event is never set."""
        yield asyncio.Event()


class PostgresReplicas:
    """Replicas that share a PostgreSQL database.

    Args:
        conninfo: libpq connection string.
        replica: unique name of this process.
        group: name of the leadership that replicas compete for: a bot's id.
        clock: measures pauses.
        timing: intervals.
    """

    def __init__(
        self, conninfo: str, replica: str, group: str, clock: Clock, timing: ReplicaTiming | None = None
    ) -> None:
        self._conninfo = conninfo
        self._replica = replica
        self._group = group
        self._clock = clock
        self._timing = timing or ReplicaTiming()
        self._leading = asyncio.Event()
        self._lost = asyncio.Event()
        self._candidates = 0
        self._free_since: dict[str, float] = {}

    async def watch(self, recover: Recover) -> None:
        """Hold this replica's locks and watch the others, reconnecting after every failure."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, **_KEEPALIVE
                ) as connection:
                    await self._hold(connection, recover)
            except (psycopg.Error, OSError, TimeoutError, StorageError) as error:
                log.warning("replicas.connection_lost", error=type(error).__name__)
            finally:
                self._step_down()
            await self._clock.sleep(self._timing.reconnect_s)

    @asynccontextmanager
    async def lead(self) -> AsyncGenerator[asyncio.Event]:
        """Wait for leadership; it is released on exit."""
        self._candidates += 1
        try:
            await self._leading.wait()
            yield self._lost
        finally:
            self._candidates -= 1

    async def _hold(self, connection: psycopg.AsyncConnection, recover: Recover) -> None:
        # Blocks briefly while another replica probes this lock.
        await self._query(connection, "SELECT pg_advisory_lock(%s, %s)", ALIVE_LOCK, _lock_key(self._replica))
        log.info("replicas.joined", replica=self._replica)
        self._free_since.clear()
        while True:
            await self._update_leadership(connection)
            await self._recover_dead(connection, recover)
            await self._clock.sleep(self._timing.check_s)

    async def _update_leadership(self, connection: psycopg.AsyncConnection) -> None:
        key = _lock_key(self._group)
        if self._candidates and not self._leading.is_set():
            acquired = await self._query(connection, "SELECT pg_try_advisory_lock(%s, %s)", LEADER_LOCK, key)
            if acquired == [(True,)]:
                log.info("replicas.leadership_acquired", replica=self._replica)
                self._lost = asyncio.Event()
                self._leading.set()
        elif not self._candidates and self._leading.is_set():
            await self._query(connection, "SELECT pg_advisory_unlock(%s, %s)", LEADER_LOCK, key)
            self._step_down()

    async def _recover_dead(self, connection: psycopg.AsyncConnection, recover: Recover) -> None:
        busy = await self._query(connection, BUSY_REPLICAS, self._replica)
        now = self._clock.monotonic()
        free_since: dict[str, float] = {}
        for (name,) in busy:
            replica = str(name)
            if await self._is_alive(connection, replica):
                continue
            free_since[replica] = since = self._free_since.get(replica, now)
            if now - since >= self._timing.grace_s:
                jobs = await recover(replica)
                log.warning("replicas.recovered", replica=replica, jobs=jobs)
        self._free_since = free_since

    async def _is_alive(self, connection: psycopg.AsyncConnection, replica: str) -> bool:
        # A shared lock, so that replicas that probe at the same instant do not mistake each other for the owner.
        key = _lock_key(replica)
        acquired = await self._query(connection, "SELECT pg_try_advisory_lock_shared(%s, %s)", ALIVE_LOCK, key)
        if acquired != [(True,)]:
            return True
        await self._query(connection, "SELECT pg_advisory_unlock_shared(%s, %s)", ALIVE_LOCK, key)
        return False

    def _step_down(self) -> None:
        self._leading.clear()
        self._lost.set()

    async def _query(
        self, connection: psycopg.AsyncConnection, query: str, *arguments: object
    ) -> list[tuple[object, ...]]:
        async with asyncio.timeout(self._timing.query_timeout_s):
            cursor = await connection.execute(query, arguments)  # pyright: ignore[reportArgumentType]  # constants only
            return await cursor.fetchall()


_KEEPALIVE: dict[str, Any] = {  # Any: libpq parameters
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Detects a dead host within seconds; the defaults take two hours."""


def _lock_key(name: str) -> int:
    """Hash a name to the object id of an advisory lock: 32 bits, signed."""
    return zlib.crc32(name.encode()) - 2**31


def replica_name() -> str:
    """Return a name that is unique per process and start."""
    return f"{os.uname().nodename}-{os.getpid()}-{os.urandom(4).hex()}"
