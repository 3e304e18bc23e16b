"""The right of a process to act: a lease that ends by its own clock unless it is renewed, and a lock on DATA_DIR.

A replica that was stopped, blocked or cut off from the database cannot be told that another one has taken its work
over. It finds out by itself: each call to Telegram waits while the lease has lapsed. Without PostgreSQL there is one
process per data directory, which the lock on a file enforces; with it, a session holds the locks of the replica.
"""

import asyncio
import fcntl
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, LiteralString

import psycopg
import structlog

from core.clock import Clock
from core.errors import StartupError

log = structlog.get_logger()
WAIT_S = 35.0
"""Longest wait for a previous process that is still finishing its replies."""
RETRY_S = 1.0
END_POLL_S = 0.02


def boot_time() -> float:
    """Returns seconds since the start of the machine, including those during which it was suspended."""
    # Only Linux has a clock of that name; elsewhere the monotonic one is the closest.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class ReplicaLease:
    """Permission to act until an instant; without `require` it is held for ever. For one event loop.

    Args:
        now: seconds that never step back and go on while the process or the machine stands still.
    """

    def __init__(self, now: Callable[[], float] = boot_time) -> None:
        self.now = now
        self._until = float("inf")
        self._changed = asyncio.Event()

    @property
    def is_held(self) -> bool:
        """True while this process may act."""
        return self.now() < self._until

    def require(self) -> None:
        """Lets the lease lapse until it is renewed: there are other replicas."""
        self._until = float("-inf")

    def renew(self, until: float) -> None:
        """Holds the lease until an instant of `now`."""
        self._until = until
        self._changed.set()

    def revoke(self) -> None:
        """Ends the lease; another replica has taken over."""
        self._until = float("-inf")

    async def wait_until_held(self) -> None:
        """Returns at once while the lease is held, else when it is renewed; after `revoke` that may be never."""
        while not self.is_held:
            self._changed.clear()
            await self._changed.wait()


class FileLock:
    """Advisory lock that the operating system releases when the process dies.

    Args:
        path: the lock file, created if missing.
        clock: measures the wait.
        wait_s: how long to wait for another holder.
    """

    def __init__(self, path: Path, clock: Clock, *, wait_s: float = WAIT_S) -> None:
        self._path = path
        self._clock = clock
        self._wait_s = wait_s
        self._file: IO[bytes] | None = None

    async def acquire(self) -> None:
        """Acquires the lock, waiting for a holder that may be about to exit.

        Raises:
            StartupError: the file cannot be locked, or its holder does not release it in time.
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

    def release(self) -> None:
        """Releases the lock. Safe to call twice."""
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _lock(self, file: IO[bytes]) -> None:
        deadline = self._clock.monotonic() + self._wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._clock.monotonic() >= deadline:
                    raise StartupError(
                        f"DATA_DIR: another process of the bot uses {self._path.parent}; stop it, give this one "
                        "another folder, or share a database: DATABASE_URL=postgresql://user:password@host:5432/name"
                    ) from None
                log.info("inbox.waiting_for_lock", detail="another process uses DATA_DIR")
                await self._clock.sleep(RETRY_S)
            except OSError as error:
                raise StartupError(f"DATA_DIR: {self._path} cannot be locked: {error.strerror}") from error
            else:
                return


class ReplicaSession:
    """The connection in which a replica holds its locks.

    Args:
        timeout_s: longest time of one query.
    """

    def __init__(self, connection: psycopg.AsyncConnection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def query(self, query: LiteralString, *arguments: object) -> list[tuple[object, ...]]:
        """Executes a statement and returns its rows.

        Raises:
            TimeoutError: the database does not answer.
        """
        async with asyncio.timeout(self._timeout_s):
            cursor = await self._connection.execute(query, arguments)
            return await cursor.fetchall() if cursor.description is not None else []

    async def end_connections(self, names: list[str], wait_s: float) -> None:
        """Terminates all connections with one of these application names, and waits until they have ended."""
        those = (
            "FROM pg_stat_activity WHERE application_name = ANY(%s) AND datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )
        await self.query(f"SELECT pg_terminate_backend(pid) {those}", names)
        deadline = time.monotonic() + wait_s
        while await self.query(f"SELECT 1 {those} LIMIT 1", names) and time.monotonic() < deadline:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(END_POLL_S)


@asynccontextmanager
async def open_session(conninfo: str, replica: str, timeout_s: float) -> AsyncGenerator[ReplicaSession]:
    """Opens a session of a replica; its locks end with it.

    Args:
        conninfo: libpq connection string.
        timeout_s: longest time of connecting, and of one query.

    Raises:
        psycopg.Error: the database is unreachable.
        TimeoutError: it does not answer.
    """
    async with asyncio.timeout(timeout_s):
        # The keepalives detect a dead host within seconds; the defaults take two hours.
        connection = await psycopg.AsyncConnection.connect(
            conninfo,
            autocommit=True,
            application_name=session_name(replica),
            connect_timeout=2,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=10_000,
        )
    try:
        yield ReplicaSession(connection, timeout_s)
    finally:
        await connection.close()


def session_name(replica: str) -> str:
    """Returns the application name of the session that holds a replica's locks."""
    return f"{replica}/lock"
