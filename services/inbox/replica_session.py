"""The PostgreSQL session in which a replica holds its locks and renews its lease."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import LiteralString

import psycopg

END_POLL_S = 0.02


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
