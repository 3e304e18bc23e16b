"""SQL database: a SQLite file by default, PostgreSQL for replicas; migrated at startup."""

import asyncio
import os
import sqlite3
import zlib
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import structlog
from pydantic import SecretStr
from sqlalchemy import URL, Engine, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from core.db.connection_slots import ConnectionSlots
from core.db.driver_errors import BUSY, LOCKED, READ_ONLY, describe_storage_error, translate_errors
from core.db.drivers import (
    BEGIN,
    POSTGRES_LANE,
    POSTGRES_POOL,
    SQLITE_POOL,
    STANDSTILL_S,
    compact_file,
    create_file,
    enable_wal,
    open_lane_engine,
    open_session_engine,
    parse_url,
)
from core.db.lane import WRITE, Lane, SqliteLane, WriteLock
from core.db.migrations import HEAD
from core.db.postgres_lane import PostgresLane
from core.db.replica_fence import ReplicaFence
from core.db.schema import NEWER, has_tables, migrate, read_revision
from core.errors import StartupError, StorageError

log = structlog.get_logger()

FILE_NAME = "understudy.db"
KEY_LOCK = 0x6B6579
"""Class id of the advisory locks of PostgreSQL; services/inbox uses others."""


class DatabaseSettings(Protocol):
    """Settings that locate the database."""

    @property
    def database_url(self) -> SecretStr | None:
        """Database URL; None: a SQLite file in `data_dir`."""
        ...

    @property
    def data_dir(self) -> Path:
        """Directory for persistent files."""
        ...


def resolve_url(settings: DatabaseSettings) -> str:
    """Returns the configured database URL.

    Raises:
        ConfigurationError: DATABASE_URL is malformed or names an unsupported engine.
    """
    if settings.database_url is not None and (url := settings.database_url.get_secret_value()):
        return parse_url(url).render_as_string(hide_password=False)
    path = (settings.data_dir / FILE_NAME).absolute()
    return URL.create("sqlite+aiosqlite", database=str(path)).render_as_string(hide_password=False)


class Database:
    """Opens sessions and migrates the schema.

    Args:
        url: `postgresql://...` or `sqlite:///path`.
        busy_timeout_s: longest wait for a lock held by another transaction.
        fence: ends the connections of a replica that was replaced; PostgreSQL only.
    """

    def __init__(self, url: str, *, busy_timeout_s: float = 5.0, fence: ReplicaFence | None = None) -> None:
        self._url = parse_url(url)
        self._busy_timeout_s = busy_timeout_s
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = open_session_engine(self._url, busy_timeout_s)
        self._lane_engine = open_lane_engine(self._url, busy_timeout_s)
        if fence is not None and not self._is_sqlite:
            for engine in self.engines:
                fence.attach(engine)
        # Half of them are opened under load only.
        self._slots = ConnectionSlots(2 * (SQLITE_POOL if self._is_sqlite else POSTGRES_POOL), STANDSTILL_S)
        self._writing = self._engine.execution_options(**{BEGIN: WRITE})
        # SQLite allows one writer. Writers of this process queue here in order and wake at once, instead of polling
        # for the file lock.
        self._write_lock = WriteLock() if self._is_sqlite else None
        self._lane: Lane
        if self._write_lock is not None:
            self._lane = SqliteLane(self._lane_engine, self._write_lock, busy_timeout_s)
        else:
            self._lane = PostgresLane(self._lane_engine, POSTGRES_LANE, STANDSTILL_S)
        self.run = self._lane.run
        """Executes a read-write transaction; see `Lane.run`."""
        self.insert = sqlite.insert if self._is_sqlite else postgresql.insert
        """Returns an INSERT that supports ON CONFLICT, in the dialect of this database."""

    @property
    def engine(self) -> AsyncEngine:
        """The engine of the sessions, for raw connections."""
        return self._engine

    @property
    def is_embedded(self) -> bool:
        """True for SQLite: its file belongs to one process."""
        return self._is_sqlite

    @property
    def engines(self) -> tuple[Engine, Engine]:
        """The engines of the sessions and of the lane, for instrumentation."""
        return self._engine.sync_engine, self._lane_engine

    @property
    def name(self) -> str:
        """Location of the database, without its password."""
        if self._is_sqlite:
            return str(self._url.database)
        return f"{self._url.host or 'localhost'}:{self._url.port or 5432}/{self._url.database or ''}"

    @property
    def backlog(self) -> int:
        """Transactions of this process that wait for a connection or for SQLite's write lock."""
        lock_waiting = self._write_lock.waiting if self._write_lock is not None else 0
        return self._slots.waiting + lock_waiting + self._lane.waiting

    async def start(self) -> None:
        """Creates the file if it is missing and migrates the schema.

        Safe to run in several replicas at once: one migrates, the others wait.

        Raises:
            StartupError: the database cannot be used; the message is one line with the reason.
        """
        try:
            with self._reporting_faults():
                if self._is_sqlite:
                    await asyncio.to_thread(create_file, self._engine)
                    await enable_wal(self._engine, self._busy_timeout_s)
                async with self._writing.begin() as connection:
                    await connection.run_sync(migrate)
        except StartupError:
            await self.close()
            raise
        log.info("database.ready", engine=self._url.get_backend_name(), revision=HEAD)

    async def check(self) -> str | None:
        """Verifies that the database can be used, without creating, migrating or changing it.

        Returns:
            The first step of the next start, in words; None if there is none.

        Raises:
            StartupError: the database cannot be used; the message is one line with the reason.
        """
        path = Path(self._url.database or "") if self._is_sqlite else None
        if path is not None and not path.exists():
            self._require_writable_parent(path)
            return "not created yet"
        with self._reporting_faults():
            if path is not None and not os.access(path, os.W_OK):
                raise StartupError(f"the database {self.name} cannot be used: {READ_ONLY} (DATA_DIR)")
            async with self._engine.connect() as connection:
                revision = await connection.run_sync(read_revision)
                is_empty = revision is None and not await connection.run_sync(has_tables)
        if revision == HEAD:
            return None
        if revision is None:
            return "empty" if is_empty else "without a schema"
        if revision > HEAD:
            raise StartupError(NEWER)
        return "to be migrated"

    def _require_writable_parent(self, path: Path) -> None:
        parent = next(each for each in path.absolute().parents if each.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise StartupError(f"the database {self.name} cannot be created: {parent} cannot be written to (DATA_DIR)")

    @contextmanager
    def _reporting_faults(self) -> Generator[None]:
        variable = "DATA_DIR" if self._is_sqlite else "DATABASE_URL"
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            reason = describe_storage_error(error)
            raise StartupError(f"the database {self.name} cannot be used: {reason} ({variable})") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StartupError(f"the database {self.name} cannot be used: {reason} ({variable})") from error

    async def close(self) -> None:
        """Closes all connections."""
        try:
            await self._lane.close()
        finally:
            await self._engine.dispose()

    @asynccontextmanager
    async def session(self, *, urgent: bool = False) -> AsyncGenerator[AsyncSession]:
        """Opens a session in a read-write transaction; it commits on exit.

        Args:
            urgent: whether to acquire SQLite's write lock before waiters that are not.

        Raises:
            StorageError: the database is locked, read-only, full, unreachable, or rejected a statement.
        """
        if self._write_lock is None:
            async with self._transaction(self._engine) as session:
                yield session
            return
        try:
            await self._write_lock.acquire(self._busy_timeout_s, urgent=urgent)
        except TimeoutError:
            raise StorageError(f"the database failed: {LOCKED}") from None
        committed = False
        try:
            async with self._transaction(self._writing) as session:
                yield session
            committed = True
        finally:
            self._write_lock.release(committed=committed)

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncSession]:
        """Opens a session in a read-only transaction; on SQLite it does not wait for writers.

        Raises:
            StorageError: as for `session`.
        """
        async with self._transaction(self._engine) as session:
            yield session

    async def compact(self) -> None:
        """Rewrites a SQLite file, so that nothing deleted is left in it; without effect on PostgreSQL.

        Raises:
            StorageError: the database is busy or unavailable.
        """
        if self._write_lock is None:
            return
        try:
            await self._write_lock.acquire(self._busy_timeout_s, urgent=False)
        except TimeoutError:
            raise StorageError(f"the database failed: {LOCKED}") from None
        try:
            with translate_errors():
                await asyncio.to_thread(compact_file, self._lane_engine)
        finally:
            self._write_lock.release(committed=True)

    @asynccontextmanager
    async def _transaction(self, engine: AsyncEngine) -> AsyncGenerator[AsyncSession]:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._slots.slot())
            except TimeoutError:
                raise StorageError(f"the database failed: {BUSY}") from None
            with translate_errors():
                async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
                    yield session

    async def lock(self, session: AsyncSession, key: str) -> None:
        """Waits for transactions that have locked this key, and keeps others waiting until this one ends.

        A read-write session of SQLite needs none: they follow each other.
        """
        if not self._is_sqlite:
            await session.execute(select(func.pg_advisory_xact_lock(KEY_LOCK, zlib.crc32(key.encode()) - 2**31)))
