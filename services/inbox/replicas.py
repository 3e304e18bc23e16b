"""Who is alive, and who leads: what is known of the other processes that share the inbox.

With SQLite there is one process, and a lock on a file keeps it so. With PostgreSQL each replica holds a session's
advisory lock under its own name. A lock that stays free says that its replica is dead, since only its death, or that
of its connection, lets go of it; a process that is merely slow keeps it. What a dead replica was doing is put back into
the queue by whoever notices first. In the same session a replica may hold the lead: the right to poll Telegram.
"""

import asyncio
import contextlib
import fcntl
import os
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import psycopg
import structlog

from core.clock import Clock
from core.errors import StartupError, StorageError

log = structlog.get_logger()

ALIVE = 0x756E64
LEAD = 0x6C6561
"""The first halves of the advisory locks' names: for who is alive, and for who leads."""
LOOK_S = 1.0
"""How often the others are looked after, and how often a replica that stands by tries to take the lead."""
GRACE_S = 5.0
"""A lock must have been free for so long: after PostgreSQL was restarted everybody takes theirs anew."""
RECONNECT_S = 0.5
QUERY_S = 5.0
FILE_PATIENCE_S = 35.0
"""How long a process waits for one before it that is still finishing its answers."""

Recover = Callable[[str], Awaitable[int]]


class Replicas(Protocol):
    """The processes that share an inbox."""

    async def watch(self, recover: Recover) -> None:
        """Look after the others until cancelled: `recover` puts back what a dead one was doing."""
        ...

    def lead(self) -> contextlib.AbstractAsyncContextManager[asyncio.Event]:
        """Wait until this replica leads. The event says that it does not any more."""
        ...


class FileLock:
    """The one process that may use a folder.

    Args:
        path: the file that is locked.
        clock: what the wait is measured by.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._file: IO[bytes] | None = None

    async def claim(self) -> None:
        """Take the folder; one that another process has is waited for, since that may be about to leave.

        Raises:
            StartupError: it does not leave.
        """
        try:
            file = self._path.open("ab")
        except OSError as error:
            raise StartupError(f"DATA_DIR: {self._path} cannot be opened: {error.strerror}") from error
        try:
            await self._lock(file)
        except BaseException:
            file.close()
            raise
        self._file = file

    async def _lock(self, file: IO[bytes]) -> None:
        deadline = self._clock.monotonic() + FILE_PATIENCE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._clock.monotonic() >= deadline:
                    raise StartupError(
                        f"DATA_DIR: another process of the bot uses {self._path.parent}; stop it, give this one "
                        "another folder, or share a database: DATABASE_URL=postgresql://user:password@host:5432/name"
                    ) from None
                log.info("inbox.folder_in_use", detail="waiting for the process before this one to leave")
                await self._clock.sleep(LOOK_S)
            except OSError as error:
                raise StartupError(f"DATA_DIR: {self._path} cannot be locked: {error.strerror}") from error
            else:
                return

    def release(self) -> None:
        """Leave the folder to another process."""
        if self._file is not None:
            self._file.close()
            self._file = None

    async def watch(self, recover: Recover) -> None:
        """There is nobody else to look after."""
        del recover
        await asyncio.Event().wait()

    @asynccontextmanager
    async def lead(self) -> AsyncGenerator[asyncio.Event]:
        """The only process leads, for ever."""
        yield asyncio.Event()


class PostgresReplicas:
    """The replicas that share a PostgreSQL database.

    Args:
        conninfo: the database, as libpq takes it.
        replica: who this one is.
        leads: what there is to lead, the same for all that compete: a bot's id.
        clock: what pauses are measured by.
    """

    def __init__(self, conninfo: str, replica: str, leads: str, clock: Clock) -> None:
        self._conninfo = conninfo
        self._replica = replica
        self._leads = leads
        self._clock = clock
        self._leading = asyncio.Event()
        self._lost = asyncio.Event()
        self._wanted = 0
        self._free_since: dict[str, float] = {}

    async def watch(self, recover: Recover) -> None:
        """Hold this replica's locks and look after the others, through every restart of the database."""
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
            await self._clock.sleep(RECONNECT_S)

    @asynccontextmanager
    async def lead(self) -> AsyncGenerator[asyncio.Event]:
        """Wait until this replica leads; when it is left another one may."""
        self._wanted += 1
        try:
            await self._leading.wait()
            yield self._lost
        finally:
            self._wanted -= 1

    async def _hold(self, connection: psycopg.AsyncConnection, recover: Recover) -> None:
        # Waits where somebody looks at this very lock at this moment.
        await _query(connection, "SELECT pg_advisory_lock(%s, %s)", ALIVE, _number(self._replica))
        log.info("replicas.joined", replica=self._replica)
        self._free_since.clear()
        while True:
            await self._run_for_lead(connection)
            await self._look_after_others(connection, recover)
            await self._clock.sleep(LOOK_S)

    async def _run_for_lead(self, connection: psycopg.AsyncConnection) -> None:
        if self._wanted and not self._leading.is_set():
            taken = await _query(connection, "SELECT pg_try_advisory_lock(%s, %s)", LEAD, _number(self._leads))
            if taken == [(True,)]:
                log.info("replicas.leads", replica=self._replica)
                self._lost = asyncio.Event()
                self._leading.set()
        elif not self._wanted and self._leading.is_set():
            await _query(connection, "SELECT pg_advisory_unlock(%s, %s)", LEAD, _number(self._leads))
            self._step_down()

    async def _look_after_others(self, connection: psycopg.AsyncConnection, recover: Recover) -> None:
        at_work = await _query(
            connection,
            "SELECT DISTINCT executor_id FROM dbos.workflow_status WHERE status = 'PENDING' AND executor_id <> %s",
            self._replica,
        )
        now = self._clock.monotonic()
        free: dict[str, float] = {}
        for (other,) in at_work:
            if await self._is_alive(connection, str(other)):
                continue
            free[str(other)] = since = self._free_since.get(str(other), now)
            if now - since >= GRACE_S:
                jobs = await recover(str(other))
                log.warning("replicas.recovered", dead=other, jobs=jobs)
        self._free_since = free

    async def _is_alive(self, connection: psycopg.AsyncConnection, other: str) -> bool:
        # Shared, so that those who look at the same instant do not take each other for the one that they look for.
        taken = await _query(connection, "SELECT pg_try_advisory_lock_shared(%s, %s)", ALIVE, _number(other))
        if taken != [(True,)]:
            return True
        await _query(connection, "SELECT pg_advisory_unlock_shared(%s, %s)", ALIVE, _number(other))
        return False

    def _step_down(self) -> None:
        self._leading.clear()
        self._lost.set()


_KEEPALIVE: dict[str, Any] = {  # Any: parameters of libpq
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A host that is gone is noticed after some seconds, and not after two hours."""


async def _query(connection: psycopg.AsyncConnection, query: str, *arguments: object) -> list[tuple[object, ...]]:
    async with asyncio.timeout(QUERY_S):
        cursor = await connection.execute(query, arguments)  # pyright: ignore[reportArgumentType]  # constants, all
        return await cursor.fetchall()


def _number(name: str) -> int:
    """A name as the second half of an advisory lock's: 32 bits, signed."""
    return zlib.crc32(name.encode()) - 2**31


def replica_name() -> str:
    """A name that no other process, and no other life of this one, has."""
    return f"{os.uname().nodename}-{os.getpid()}-{os.urandom(4).hex()}"
