"""SQL database: a SQLite file by default, PostgreSQL for replicas; migrated at startup."""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import structlog
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from core.db import (  # noqa: F401 - they register the schema
    account_tables,  # pyright: ignore[reportUnusedImport] - as above
    history_tables,  # pyright: ignore[reportUnusedImport] - as above
    moderation_tables,  # pyright: ignore[reportUnusedImport] - as above
    operator_tables,  # pyright: ignore[reportUnusedImport] - as above
    schedule_tables,  # pyright: ignore[reportUnusedImport] - as above
    tables,  # pyright: ignore[reportUnusedImport] - as above
)
from core.db.driver_errors import BUSY, LOCKED, READ_ONLY, describe_storage_error, translate_errors
from core.db.lane import Lane, PostgresLane, SqliteLane
from core.db.migrations import HEAD
from core.db.queues import ConnectionSlots, WriteLock
from core.db.replica_fence import ReplicaFence
from core.db.tables import Base
from core.errors import ConfigurationError, StartupError, StorageError

log = structlog.get_logger()

T = TypeVar("T")

FILE_NAME = "understudy.db"

NEWER = "the database belongs to another, probably newer, version of Understudy"
SQLITE_POOL = 4
POSTGRES_POOL = 4
"""Connections of sessions that stay open; as many more are opened under load."""
POSTGRES_LANE = 8
"""Connections of the lane."""
COMPACTED_BYTES = 1 << 28
"""Size up to which a SQLite file is rewritten; it takes about a second."""
STANDSTILL_S = 10.0
"""The longest wait for a connection during which none comes free; a queue that moves never times out."""
_BEGIN = "sqlite_begin"  # execution option: mode of BEGIN on SQLite; empty: autocommit
_MIGRATION_LOCK = 0x756E6465727374  # arbitrary constant: "underst"
_MIGRATION_LOCK_TIMEOUT = "10min"  # longest wait for the migration of another replica


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
        return _engine_url(url).render_as_string(hide_password=False)
    path = (settings.data_dir / FILE_NAME).absolute()
    return URL.create("sqlite+aiosqlite", database=str(path)).render_as_string(hide_password=False)


def _engine_url(url: str) -> URL:
    """Parses the URL and selects the bundled driver."""
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


class Database:
    """Opens sessions and migrates the schema.

    Args:
        url: `postgresql://...` or `sqlite:///path`.
        busy_timeout_s: longest wait for a lock held by another transaction.
        fence: ends the connections of a replica that was replaced; PostgreSQL only.
    """

    def __init__(self, url: str, *, busy_timeout_s: float = 5.0, fence: ReplicaFence | None = None) -> None:
        self._url = _engine_url(url)
        self._busy_timeout_s = busy_timeout_s
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = self._sqlite_engine() if self._is_sqlite else self._postgres_engine()
        self._lane_engine = self._open_lane_engine()
        if fence is not None and not self._is_sqlite:
            for engine in self.engines:
                fence.attach(engine)
        # Half of them are opened under load only.
        self._slots = ConnectionSlots(2 * (SQLITE_POOL if self._is_sqlite else POSTGRES_POOL), STANDSTILL_S)
        # On SQLite a transaction that reads before it writes fails immediately if another one wrote in between,
        # regardless of the busy timeout. BEGIN IMMEDIATE takes the write lock up front.
        self._writing = self._engine.execution_options(**{_BEGIN: "IMMEDIATE"})
        self._untransacted = self._engine.execution_options(**{_BEGIN: ""})
        # SQLite allows one writer. Writers of this process queue here in order and wake at once, instead of polling
        # for the file lock.
        self._write_lock = WriteLock() if self._is_sqlite else None
        self._lane: Lane
        if self._write_lock is not None:
            writing = self._lane_engine.execution_options(**{_BEGIN: "IMMEDIATE"})
            self._lane = SqliteLane(self._lane_engine, writing, self._write_lock, busy_timeout_s)
        else:
            self._lane = PostgresLane(self._lane_engine, POSTGRES_LANE, STANDSTILL_S)

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
                    await asyncio.to_thread(self._create_file)
                    await self._enable_wal()
                async with self._writing.begin() as connection:
                    await connection.run_sync(_migrate)
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
                revision = await connection.run_sync(_revision)
                is_empty = revision is None and not await connection.run_sync(_has_tables)
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
        await self._lane.close()
        await self._engine.dispose()

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
        return await self._lane.run(work, urgent=urgent, reading=reading)

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

    def insert(self, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
        """Returns an INSERT that supports ON CONFLICT, in the dialect of this database."""
        return sqlite.insert(table) if self._is_sqlite else postgresql.insert(table)

    def _sqlite_engine(self) -> AsyncEngine:
        # aiosqlite runs a thread per connection.
        engine = create_async_engine(
            self._url,
            hide_parameters=True,
            pool_size=SQLITE_POOL,
            max_overflow=SQLITE_POOL,
            pool_timeout=STANDSTILL_S,
            connect_args={"timeout": self._busy_timeout_s},
        )

        self._prepare_sqlite(engine.sync_engine)
        return engine

    def _prepare_sqlite(self, engine: Engine) -> None:
        def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
            # Disables sqlite3's implicit transactions, which begin late and never for DDL; `begin` below replaces them.
            connection.isolation_level = None
            with _closed_on_failure(connection):
                cursor = connection.cursor()
                cursor.execute("PRAGMA foreign_keys = ON")
                # FULL syncs each commit: negligible for two commits per turn beside seconds of model time, while
                # NORMAL loses the last answers on a power failure.
                cursor.execute("PRAGMA synchronous = FULL")
                # Deleted texts are overwritten, so that /forget leaves none in the file.
                cursor.execute("PRAGMA secure_delete = ON")
                cursor.close()

        def begin(connection: Connection) -> None:
            mode = connection.get_execution_options().get(_BEGIN, "DEFERRED")
            if mode:
                connection.exec_driver_sql(f"BEGIN {mode}")

        event.listen(engine, "connect", prepare)
        event.listen(engine, "begin", begin)

    def _postgres_engine(self) -> AsyncEngine:
        engine = create_async_engine(
            self._url,
            hide_parameters=True,
            # With the 8 connections of the inbox and its lock session, three replicas fit PostgreSQL's default of 100.
            pool_size=POSTGRES_POOL,
            max_overflow=POSTGRES_POOL,
            pool_timeout=STANDSTILL_S,
            # Costs a round trip and survives a server restart between two uses.
            pool_pre_ping=True,
            connect_args=libpq_timeouts(self._url),
        )

        self._prepare_postgres(engine.sync_engine)
        return engine

    def _prepare_postgres(self, engine: Engine) -> None:
        def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
            with _closed_on_failure(connection):
                cursor = connection.cursor()
                cursor.execute(f"SET lock_timeout = {int(self._busy_timeout_s * 1000)}")
                cursor.close()
                connection.commit()

        event.listen(engine, "connect", prepare)

    def _open_lane_engine(self) -> Engine:
        if self._is_sqlite:
            engine = create_engine(
                self._url.set(drivername="sqlite"),
                hide_parameters=True,
                pool_size=2,
                connect_args={"timeout": self._busy_timeout_s, "check_same_thread": False},
            )
            self._prepare_sqlite(engine)
            return engine
        engine = create_engine(
            self._url,
            hide_parameters=True,
            pool_size=POSTGRES_LANE,
            max_overflow=0,
            pool_timeout=STANDSTILL_S,
            pool_pre_ping=True,
            connect_args=libpq_timeouts(self._url),
        )
        self._prepare_postgres(engine)
        return engine

    def _create_file(self) -> None:
        """Creates the file and its directory with plain sqlite3.

        When aiosqlite cannot open a file, it leaves a thread that reports to the event loop later. A process that
        exits on the error has no loop by then, and a traceback would follow the one-line message.
        """
        path = self._url.database
        if path and not path.startswith(("file:", ":memory:")):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        arguments, options = self._engine.dialect.create_connect_args(self._url)
        sqlite3.connect(arguments[0], **options).close()

    async def _enable_wal(self) -> None:
        """Enables write-ahead logging, so that readers do not block on the writer. The mode is stored in the file.

        SQLite ignores its busy timeout when two processes switch a new file at once, hence the retry loop.
        """
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                async with self._untransacted.connect() as connection:
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
    with engine.execution_options(**{_BEGIN: ""}).connect() as connection:
        pages = int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())
        page_bytes = int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())
        if pages * page_bytes <= COMPACTED_BYTES:
            connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()


@contextmanager
def _closed_on_failure(connection: DBAPIConnection) -> Generator[None]:
    """Closes a connection that failed to initialise; the pool does not own it yet."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _migrate(connection: Connection) -> None:
    """Migrates the schema to HEAD in the connection's transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{_MIGRATION_LOCK_TIMEOUT}'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    if _revision(connection) == HEAD:
        # Beginning a transaction does not reveal a read-only file or standby server; a write does.
        connection.execute(text("UPDATE alembic_version SET version_num = version_num"))
        return
    from alembic import command  # noqa: PLC0415  # 0.3 s, needed only to migrate
    from alembic.config import Config  # noqa: PLC0415  # the same
    from alembic.util import CommandError  # noqa: PLC0415  # the same

    config = Config()
    config.set_main_option("script_location", "core.db:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StartupError(NEWER) from error


def _has_tables(connection: Connection) -> bool:
    return bool(inspect(connection).get_table_names())


def _revision(connection: Connection) -> str | None:
    """Returns the revision of the schema; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
