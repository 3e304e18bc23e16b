"""The engines of both kinds of database, a SQLite file and PostgreSQL."""

import asyncio
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_, greenlet_spawn

from core.db.driver_errors import LOCKED, describe_storage_error
from core.errors import ConfigurationError

log = structlog.get_logger()

SQLITE_POOL: Final = 4
POSTGRES_POOL: Final = 4
"""Connections of sessions that stay open; as many more are opened under load."""
POSTGRES_LANE: Final = 8
"""Connections of the lane."""
COMPACTED_BYTES: Final = 1 << 28
"""Size up to which a SQLite file is rewritten; it takes about a second."""
STANDSTILL_S: Final = 10.0
"""The longest wait for a connection during which none comes free; a queue that moves never times out."""
BEGIN: Final = "sqlite_begin"
"""Execution option of sessions on SQLite: the statement that begins a transaction; empty: autocommit."""


class SQLiteConnection(sqlite3.Connection):
    """Rolls back before it closes.

    A cancelled statement has its connection closed while a cursor, which the traceback of the cancellation refers to,
    is still open. SQLite keeps such a connection, and its lock on the file, until the cursor is collected: every other
    write waited for five seconds and failed.
    """

    def close(self) -> None:
        """Ends an open transaction, and closes."""
        with suppress(sqlite3.Error):
            if self.in_transaction:
                self.rollback()
        super().close()


def parse_url(url: str) -> URL:
    """Parses the URL of a database and selects the bundled driver.

    Raises:
        ConfigurationError: it is malformed or names an unsupported engine.
    """
    drivers = {
        "postgresql": "postgresql+psycopg",
        "postgres": "postgresql+psycopg",
        "postgresql+psycopg": "postgresql+psycopg",
        "sqlite": "sqlite+aiosqlite",
        "sqlite+aiosqlite": "sqlite+aiosqlite",
    }
    try:
        parsed = make_url(url)
        return parsed.set(drivername=drivers[parsed.drivername])
    except (ArgumentError, KeyError, ValueError):
        # The value may contain a password: it must appear neither in the message nor in the cause.
        mistake = "DATABASE_URL: not an address of a database, for example postgresql://user:password@host:5432/name"
        raise ConfigurationError([mistake]) from None


def libpq_timeouts(url: URL) -> dict[str, int]:
    """Returns libpq options that detect a dead host within seconds instead of minutes; options in the URL win."""
    timeouts = {
        "connect_timeout": 5,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
    }
    return {name: value for name, value in timeouts.items() if name not in url.query}


def open_session_engine(url: URL, busy_timeout_s: float) -> AsyncEngine:
    """Opens the engine of the sessions.

    Args:
        url: URL as returned by `parse_url`.
        busy_timeout_s: longest wait for a lock held by another transaction.
    """
    if url.get_backend_name() == "sqlite":
        # aiosqlite runs a thread per connection.
        engine = create_async_engine(
            url,
            hide_parameters=True,
            pool_size=SQLITE_POOL,
            max_overflow=SQLITE_POOL,
            pool_timeout=STANDSTILL_S,
            connect_args={"timeout": busy_timeout_s, "factory": SQLiteConnection},
        )
        event.listen(engine.sync_engine, "do_connect", _connect_sqlite)
    else:
        engine = create_async_engine(
            url,
            hide_parameters=True,
            # With the 8 connections of the inbox and two more sessions, three replicas fit PostgreSQL's default of 100.
            pool_size=POSTGRES_POOL,
            max_overflow=POSTGRES_POOL,
            pool_timeout=STANDSTILL_S,
            # Costs a round trip and survives a server restart between two uses.
            pool_pre_ping=True,
            connect_args=libpq_timeouts(url),
        )
    _prepare(engine.sync_engine, busy_timeout_s)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def open_lane_engine(url: URL, busy_timeout_s: float) -> Engine:
    """Opens the engine of the lane, with the arguments of `open_session_engine`. On SQLite it begins no transaction."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url.set(drivername="sqlite"),
            hide_parameters=True,
            pool_size=2,
            connect_args={"timeout": busy_timeout_s, "check_same_thread": False},
        )
    else:
        engine = create_engine(
            url,
            hide_parameters=True,
            pool_size=POSTGRES_LANE,
            max_overflow=0,
            pool_timeout=STANDSTILL_S,
            pool_pre_ping=True,
            connect_args=libpq_timeouts(url),
        )
    _prepare(engine, busy_timeout_s)
    return engine


def _prepare(engine: Engine, busy_timeout_s: float) -> None:
    """Registers the preparation of new connections."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        return

    def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        with closed_on_failure(connection):
            cursor = connection.cursor()
            cursor.execute(f"SET lock_timeout = {int(busy_timeout_s * 1000)}")
            cursor.close()
            connection.commit()

    event.listen(engine, "connect", prepare)


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # Disables sqlite3's implicit transactions, which begin late and never for DDL.
    connection.isolation_level = None
    with closed_on_failure(connection):
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        # FULL syncs each commit: negligible for two commits per turn beside seconds of model time, while
        # NORMAL loses the last answers on a power failure.
        cursor.execute("PRAGMA synchronous = FULL")
        # Deleted texts are overwritten, so that /forget leaves none in the file.
        cursor.execute("PRAGMA secure_delete = ON")
        cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    statement = connection.get_execution_options().get(BEGIN, "BEGIN DEFERRED")
    if statement:
        connection.exec_driver_sql(statement)


def _connect_sqlite(
    dialect: Dialect, _entry: ConnectionPoolEntry, arguments: list[Any], options: dict[str, Any]
) -> DBAPIConnection:
    # Any: the arguments are sqlite3's.
    return await_(_open_connection(dialect, arguments, options))


async def _open_connection(dialect: Dialect, arguments: list[Any], options: dict[str, Any]) -> DBAPIConnection:
    """Opens a connection, and closes it if the caller is cancelled meanwhile.

    aiosqlite drops the connection that its thread is opening then, and it stayed open until it was collected.
    """
    opening = asyncio.ensure_future(greenlet_spawn(dialect.connect, *arguments, **options))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:

        def close(opened: asyncio.Future[DBAPIConnection]) -> None:
            if not opened.cancelled() and opened.exception() is None:
                dialect.do_terminate(opened.result())

        opening.add_done_callback(close)
        # Until then the caller counts as one that uses the file.
        await asyncio.wait([opening])
        raise


def create_file(engine: AsyncEngine) -> None:
    """Creates the file of a SQLite engine and its directory with plain sqlite3.

    When aiosqlite cannot open a file, it leaves a thread that reports to the event loop later. A process that exits on
    the error has no loop by then, and a traceback would follow the one-line message.
    """
    path = engine.url.database
    if path and not path.startswith(("file:", ":memory:")):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    arguments, options = engine.dialect.create_connect_args(engine.url)
    sqlite3.connect(arguments[0], **options).close()


async def enable_wal(engine: AsyncEngine, busy_timeout_s: float) -> None:
    """Enables write-ahead logging, so that readers do not block on the writer. The mode is stored in the file.

    SQLite ignores its busy timeout when two processes switch a new file at once, hence the retry loop.
    """
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            async with engine.execution_options(**{BEGIN: ""}).connect() as connection:
                mode = (await connection.exec_driver_sql("PRAGMA journal_mode = WAL")).scalar()
        except SQLAlchemyError as error:
            if describe_storage_error(error) != LOCKED or time.monotonic() >= deadline:
                raise
            await asyncio.sleep(0.02)
        else:
            if mode != "wal":
                log.warning("database.wal_unavailable", mode=mode)
            return


def compact_file(engine: Engine) -> None:
    """Rewrites a SQLite file and empties its write-ahead log: deleted rows of earlier releases are in neither then.

    Readers go on meanwhile; writers wait. A file that is larger than `COMPACTED_BYTES` is left as it is, since writers
    would wait for seconds: what this release deletes is overwritten in it anyway.
    """
    with engine.execution_options(**{BEGIN: ""}).connect() as connection:
        pages = int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())
        page_bytes = int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())
        if pages * page_bytes <= COMPACTED_BYTES:
            connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()


@contextmanager
def closed_on_failure(connection: DBAPIConnection) -> Generator[None]:
    """Closes a connection that failed to initialise; the pool does not own it yet."""
    try:
        yield
    except BaseException:
        connection.close()
        raise
