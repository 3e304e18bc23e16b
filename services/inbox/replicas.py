"""Replicas that share an inbox: detection of dead and hanging ones, and leader election.

With SQLite there is one process, held by a file lock. With PostgreSQL each replica holds a session-level advisory lock
on its own name, and a lease: a row that it renews every second from its event loop, in the same session. PostgreSQL
releases the lock when the replica or its connection dies, so a lock that stays free marks a dead replica. A replica
that is stopped, blocked or cut off keeps its lock, and lets its lease expire.

The first replica that notices either marks the row as replaced, ends the other's connections (see
`core/db/replica_fence.py`) and requeues its jobs. The replaced one counts its lease by its own clock, which ends before
the row expires, and then acts no more. The same session may hold the leader lock, which permits polling Telegram.
"""

import asyncio
import contextlib
import os
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import psycopg
import structlog

from core.clock import Clock
from core.db.replica_fence import ReplicaFence
from core.errors import ReplicaReplaced, StorageError
from services.inbox.dbos_tables import BUSY_REPLICAS
from services.inbox.lease import ReplicaLease, ReplicaSession, open_session, session_name

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
        query_timeout_s: longest time of one query, and of opening the session.
        lease_s: how long a lease lasts in the database after each renewal.
        margin_s: how much earlier it ends by the replica's own clock: requests sent by then have arrived before
            another replica takes over. `lease_s - margin_s` must not exceed `grace_s`, since the session that holds
            the lock is the one that renews the lease.
        settle_s: how long a new session watches before it takes expired leases over; after a restart of PostgreSQL
            all of them are expired.
        end_s: longest wait for the end of a replaced replica's connections.
        recover_s: longest time of requeueing its jobs, during which the own lease is not renewed.
    """

    check_s: float = 1.0
    grace_s: float = 5.0
    reconnect_s: float = 0.5
    query_timeout_s: float = 2.0
    lease_s: float = 7.0
    margin_s: float = 2.0
    settle_s: float = 4.0
    end_s: float = 1.0
    recover_s: float = 4.0


class Replicas(Protocol):
    """The processes that share an inbox."""

    async def watch(self, recover: Recover) -> None:
        """Detects dead replicas until cancelled; `recover` requeues the jobs of one and returns how many.

        Raises:
            ReplicaReplaced: another replica has taken over from this one.
        """
        ...

    async def leave(self) -> None:
        """Unregisters at a shutdown."""
        ...

    def lead(self) -> contextlib.AbstractAsyncContextManager[asyncio.Event]:
        """Waits for leadership; the event is set when it is lost."""
        ...


class SingleReplica:
    """The only process: it leads for ever and has no others to watch."""

    async def watch(self, recover: Recover) -> None:
        """Waits until cancelled."""
        del recover
        await asyncio.Event().wait()

    async def leave(self) -> None:
        """Does nothing: there is no lease."""

    @asynccontextmanager
    async def lead(self) -> AsyncGenerator[asyncio.Event]:
        """Leads at once; the event is never set."""
        yield asyncio.Event()


class PostgresReplicas:
    """Replicas that share a PostgreSQL database.

    Args:
        conninfo: libpq connection string.
        replica: unique name of this process.
        group: name of the leadership that replicas compete for: a bot's id.
        clock: measures pauses.
        timing: intervals.
        lease: permission of this process to act.
        fence: ends the other connections of this process once it was replaced.
    """

    def __init__(
        self,
        conninfo: str,
        replica: str,
        group: str,
        clock: Clock,
        timing: ReplicaTiming | None = None,
        *,
        lease: ReplicaLease | None = None,
        fence: ReplicaFence | None = None,
    ) -> None:
        self._conninfo = conninfo
        self._replica = replica
        self._group = group
        self._clock = clock
        self._timing = timing or ReplicaTiming()
        self._lease = lease or ReplicaLease()
        self._fence = fence or ReplicaFence(replica)
        self._lease.require()
        self._leading = asyncio.Event()
        self._lost = asyncio.Event()
        self._candidates = 0
        self._free_since: dict[str, float] = {}

    async def watch(self, recover: Recover) -> None:
        """Holds this replica's lock and lease and watches the others, reconnecting after every failure.

        Raises:
            ReplicaReplaced: another replica has taken over; nothing may be done under this name any more.
        """
        while True:
            try:
                async with open_session(self._conninfo, self._replica, self._timing.query_timeout_s) as session:
                    await self._hold(session, recover)
            except ReplicaReplaced:
                self._lease.revoke()
                self._fence.abort()
                raise
            except (psycopg.Error, OSError, TimeoutError, StorageError) as error:
                log.warning("replicas.connection_lost", error=type(error).__name__)
                if not self._lease.is_held and (aborted := self._fence.abort()):
                    # Threads and tasks that wait for a database that does not answer must not wait for ever.
                    log.warning("replicas.lease_lapsed", connections=aborted)
            finally:
                self._step_down()
            await self._clock.sleep(self._timing.reconnect_s)

    async def leave(self) -> None:
        """Deletes this replica's lease at a shutdown, once its jobs are handed back. Logs a failure."""
        try:
            async with open_session(self._conninfo, self._replica, self._timing.query_timeout_s) as session:
                await session.query("DELETE FROM replicas WHERE name = %s", self._replica)
        except (psycopg.Error, OSError, TimeoutError) as error:
            # It expires, and another replica deletes it.
            log.info("replicas.lease_not_deleted", error=type(error).__name__)

    @asynccontextmanager
    async def lead(self) -> AsyncGenerator[asyncio.Event]:
        """Waits for leadership; it is released on exit."""
        self._candidates += 1
        try:
            await self._leading.wait()
            yield self._lost
        finally:
            self._candidates -= 1

    async def _hold(self, session: ReplicaSession, recover: Recover) -> None:
        # An earlier session of this replica may still hold the lock, if its end has not reached PostgreSQL.
        await session.end_connections([session_name(self._replica)], self._timing.end_s)
        # Blocks briefly while another replica probes this lock.
        await session.query("SELECT pg_advisory_lock(%s, %s)", ALIVE_LOCK, _lock_key(self._replica))
        await self._register(session)
        await self._renew(session)
        log.info("replicas.joined", replica=self._replica)
        self._free_since.clear()
        joined = self._clock.monotonic()
        while True:
            await self._renew(session)
            await self._update_leadership(session)
            await self._recover_dead(session, recover)
            if self._clock.monotonic() - joined >= self._timing.settle_s:
                await self._replace_hanging(session, recover)
            await self._clock.sleep(self._timing.check_s)

    async def _register(self, session: ReplicaSession) -> None:
        """Creates this replica's row, the first time; from then on only `_renew` keeps it."""
        if self._fence.is_registered:
            return
        await session.query(_REGISTER, self._replica, self._timing.lease_s)
        self._fence.is_registered = True

    async def _renew(self, session: ReplicaSession) -> None:
        began = self._lease.now()
        if not await session.query(_RENEW, self._timing.lease_s, self._replica):
            raise ReplicaReplaced(f"another replica has taken over from {self._replica}")
        self._lease.renew(began + self._timing.lease_s - self._timing.margin_s)

    async def _update_leadership(self, session: ReplicaSession) -> None:
        key = _lock_key(self._group)
        if self._candidates and not self._leading.is_set():
            acquired = await session.query("SELECT pg_try_advisory_lock(%s, %s)", LEADER_LOCK, key)
            if acquired == [(True,)]:
                log.info("replicas.leadership_acquired", replica=self._replica)
                self._lost = asyncio.Event()
                self._leading.set()
        elif not self._candidates and self._leading.is_set():
            await session.query("SELECT pg_advisory_unlock(%s, %s)", LEADER_LOCK, key)
            self._step_down()

    async def _recover_dead(self, session: ReplicaSession, recover: Recover) -> None:
        """Takes over from replicas with jobs or a lease if their lock has been free for a while."""
        others = await session.query(_OTHERS, self._replica, self._replica)
        now = self._clock.monotonic()
        free_since: dict[str, float] = {}
        for (name,) in others:
            replica = str(name)
            if await self._is_alive(session, replica):
                continue
            free_since[replica] = since = self._free_since.get(replica, now)
            if now - since >= self._timing.grace_s:
                await session.query("UPDATE replicas SET expires_at = '-infinity' WHERE name = %s", replica)
                await self._take_over(session, replica, recover)
        self._free_since = free_since

    async def _replace_hanging(self, session: ReplicaSession, recover: Recover) -> None:
        """Takes over from replicas with an expired lease although their lock is held."""
        expired = await session.query(
            "UPDATE replicas SET expires_at = '-infinity' WHERE expires_at < clock_timestamp() AND name <> %s "
            "RETURNING name",
            self._replica,
        )
        for (name,) in expired:
            log.warning("replicas.lease_expired", replica=name)
            await self._take_over(session, str(name), recover)

    async def _take_over(self, session: ReplicaSession, replica: str, recover: Recover) -> None:
        await session.end_connections([replica, session_name(replica)], self._timing.end_s)
        async with asyncio.timeout(self._timing.recover_s):
            jobs = await recover(replica)
        # Last: until then another replica would take over again if this one died meanwhile.
        await session.query("DELETE FROM replicas WHERE name = %s AND expires_at = '-infinity'", replica)
        log.warning("replicas.recovered", replica=replica, jobs=jobs)
        await self._update_leadership(session)

    async def _is_alive(self, session: ReplicaSession, replica: str) -> bool:
        # A shared lock, so that replicas that probe at the same instant do not mistake each other for the owner.
        key = _lock_key(replica)
        acquired = await session.query("SELECT pg_try_advisory_lock_shared(%s, %s)", ALIVE_LOCK, key)
        if acquired != [(True,)]:
            return True
        await session.query("SELECT pg_advisory_unlock_shared(%s, %s)", ALIVE_LOCK, key)
        return False

    def _step_down(self) -> None:
        self._leading.clear()
        self._lost.set()


_REGISTER = """
INSERT INTO replicas (name, expires_at) VALUES (%s, clock_timestamp() + make_interval(secs => %s))
ON CONFLICT DO NOTHING
"""
_RENEW = """
UPDATE replicas SET expires_at = clock_timestamp() + make_interval(secs => %s)
WHERE name = %s AND expires_at > '-infinity' RETURNING 1
"""
_OTHERS = BUSY_REPLICAS + " UNION SELECT name FROM replicas WHERE name <> %s"  # noqa: S608 - constants


def _lock_key(name: str) -> int:
    """Hashes a name to the object id of an advisory lock: 32 bits, signed."""
    return zlib.crc32(name.encode()) - 2**31


def replica_name() -> str:
    """Returns a name, unique per process and registration. PostgreSQL cuts application names at 63 characters."""
    return f"{os.uname().nodename[:32]}-{os.getpid()}-{os.urandom(4).hex()}"
