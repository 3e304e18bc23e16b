"""The SQL database: one SQLite file by default, PostgreSQL for many replicas; migrated at start."""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import structlog
from pydantic import SecretStr
from sqlalchemy import URL, Connection, event, inspect, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from core.db import moderation_tables  # noqa: F401 - its tables are part of the schema  # pyright: ignore[reportUnusedImport]
from core.db.driver_errors import LOCKED, describe_storage_error, translate_errors
from core.db.migrations import HEAD
from core.db.tables import Base
from core.errors import ConfigurationError, StartupError, StorageError

log = structlog.get_logger()

FILE_NAME = "understudy.db"

_BEGIN = "sqlite_begin"  # execution option: how a transaction on SQLite starts; empty: not at all
_MIGRATION_LOCK = 0x756E6465727374  # any constant of ours: "underst"
_MIGRATION_LOCK_TIMEOUT = "10min"  # how long a replica waits for another's migration


class DatabaseSettings(Protocol):
    """What the settings say about the database."""

    @property
    def database_url(self) -> SecretStr | None:
        """Where the database is; None: a file under `data_dir`."""
        ...

    @property
    def data_dir(self) -> Path:
        """Where files that must last are kept."""
        ...


def url_for(settings: DatabaseSettings) -> str:
    """The address of the database that the settings ask for.

    Raises:
        ConfigurationError: DATABASE_URL is no address of a kind that we know.
    """
    if settings.database_url is not None and (url := settings.database_url.get_secret_value()):
        return _engine_url(url).render_as_string(hide_password=False)
    path = (settings.data_dir / FILE_NAME).absolute()
    return URL.create("sqlite+aiosqlite", database=str(path)).render_as_string(hide_password=False)


def _engine_url(url: str) -> URL:
    """The address with the drivers that we ship."""
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
        # The value may hold a password, so it is not repeated, not even as the cause.
        mistake = "DATABASE_URL: not an address of a database, for example postgresql://user:password@host:5432/name"
        raise ConfigurationError([mistake]) from None


def busy_timeout(url: URL) -> dict[str, int]:
    """How long libpq waits for a host that is gone, whose defaults are minutes; what the address says comes first."""
    patience = {
        "connect_timeout": 5,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
    }
    return {name: value for name, value in patience.items() if name not in url.query}


class Database:
    """Sessions with the database.

    Args:
        url: `postgresql://...` or `sqlite:///path`.
        busy_timeout_s: how long a statement waits for a lock that somebody else holds.
    """

    def __init__(self, url: str, *, busy_timeout_s: float = 5.0) -> None:
        self._url = _engine_url(url)
        self._busy_timeout_s = busy_timeout_s
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = self._sqlite_engine() if self._is_sqlite else self._postgres_engine()
        # A transaction that reads first and writes later fails at once on SQLite when somebody else wrote in
        # between, whatever the busy timeout. So a writing one takes the write lock at its beginning.
        self._writing = self._engine.execution_options(**{_BEGIN: "IMMEDIATE"})
        self._untransacted = self._engine.execution_options(**{_BEGIN: ""})
        # SQLite has one writer at a time. In this process they queue here, in order and woken at once, instead
        # of polling for the file's lock.
        self._writers = _WriteLock() if self._is_sqlite else None

    @property
    def engine(self) -> AsyncEngine:
        """The engine itself, for what sessions cannot do."""
        return self._engine

    @property
    def name(self) -> str:
        """Which database this is, without its password."""
        if self._is_sqlite:
            return str(self._url.database)
        return f"{self._url.host or 'localhost'}:{self._url.port or 5432}/{self._url.database or ''}"

    async def start(self) -> None:
        """Make the file where it is missing, and bring the schema up to date.

        Several replicas may do so at once: one migrates, the others wait for it.

        Raises:
            StartupError: the database cannot be used; one line with the reason.
        """
        variable = "DATA_DIR" if self._is_sqlite else "DATABASE_URL"
        try:
            if self._is_sqlite:
                await asyncio.to_thread(self._make_file)
                await self._switch_to_wal()
            async with self._writing.begin() as connection:
                await connection.run_sync(_migrate)
        except (SQLAlchemyError, sqlite3.Error) as error:
            await self.close()
            reason = describe_storage_error(error)
            raise StartupError(f"the database {self.name} cannot be used: {reason} ({variable})") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StartupError(f"the database {self.name} cannot be used: {reason} ({variable})") from error
        except StartupError:
            await self.close()
            raise
        log.info("database.ready", engine=self._url.get_backend_name(), revision=HEAD)

    async def close(self) -> None:
        """Let go of every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def session(self, *, first: bool = False) -> AsyncGenerator[AsyncSession]:
        """A session in a transaction that may write; it commits on exit.

        Args:
            first: whether it goes before others that wait, where one waits for another.

        Raises:
            StorageError: the database is locked, read-only, full, gone, or refused a statement.
        """
        if self._writers is None:
            async with self._transaction(self._engine) as session:
                yield session
            return
        try:
            await self._writers.acquire(self._busy_timeout_s, first=first)
        except TimeoutError:
            raise StorageError(f"the database failed: {LOCKED}") from None
        has_written = False
        try:
            async with self._transaction(self._writing) as session:
                yield session
            has_written = True
        finally:
            self._writers.release(has_written=has_written)

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncSession]:
        """A session in a transaction that only reads: on SQLite it waits for no writer.

        Raises:
            StorageError: as `session`.
        """
        async with self._transaction(self._engine) as session:
            yield session

    @asynccontextmanager
    async def _transaction(self, engine: AsyncEngine) -> AsyncGenerator[AsyncSession]:
        with translate_errors():
            async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
                yield session

    def insert(self, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT, in the dialect of this database."""
        return sqlite.insert(table) if self._is_sqlite else postgresql.insert(table)

    def _sqlite_engine(self) -> AsyncEngine:
        # Each connection is a thread; readers beyond these wait for one.
        engine = create_async_engine(
            self._url,
            hide_parameters=True,
            pool_size=4,
            max_overflow=4,
            pool_timeout=10,
            connect_args={"timeout": self._busy_timeout_s},
        )

        def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
            # Python's sqlite3 would begin transactions by itself, late and never for DDL: `begin` below does.
            connection.isolation_level = None  # pyright: ignore[reportAttributeAccessIssue]  # sqlite3's own
            with _closed_on_failure(connection):
                cursor = connection.cursor()
                cursor.execute("PRAGMA foreign_keys = ON")
                # FULL syncs each commit. A turn commits twice beside seconds of waiting for a model, so it costs
                # nothing that anyone notices; NORMAL would forget the last answers when the power fails.
                cursor.execute("PRAGMA synchronous = FULL")
                cursor.close()

        def begin(connection: Connection) -> None:
            mode = connection.get_execution_options().get(_BEGIN, "DEFERRED")
            if mode:
                connection.exec_driver_sql(f"BEGIN {mode}")

        event.listen(engine.sync_engine, "connect", prepare)
        event.listen(engine.sync_engine, "begin", begin)
        return engine

    def _postgres_engine(self) -> AsyncEngine:
        engine = create_async_engine(
            self._url,
            hide_parameters=True,
            # With the inbox's 8 and its session of locks, three replicas fit into PostgreSQL's default of 100.
            pool_size=8,
            max_overflow=8,
            pool_timeout=10,
            # One round trip more, and a server that was restarted in between is not noticed.
            pool_pre_ping=True,
            connect_args=busy_timeout(self._url),
        )

        def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
            with _closed_on_failure(connection):
                cursor = connection.cursor()
                cursor.execute(f"SET lock_timeout = {int(self._busy_timeout_s * 1000)}")
                cursor.close()
                connection.commit()

        event.listen(engine.sync_engine, "connect", prepare)
        return engine

    def _make_file(self) -> None:
        """Open the file once without aiosqlite.

        Where the file cannot be opened, aiosqlite leaves a thread behind that reports to the event loop later. A
        program that ends because of it has no loop any more, and a traceback would follow the one line.
        """
        path = self._url.database
        if path and not path.startswith(("file:", ":memory:")):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        arguments, options = self._engine.dialect.create_connect_args(self._url)
        sqlite3.connect(arguments[0], **options).close()

    async def _switch_to_wal(self) -> None:
        """Let readers and the writer work side by side; the file remembers it.

        SQLite does not wait its busy timeout when two processes switch a new file at once: hence the loop.
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
                    log.warning("database.without_wal", mode=mode)
                return


class _WriteLock:
    """A lock whose waiters are served in order, but for those that go first."""

    def __init__(self) -> None:
        self._is_taken = False
        self._first: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()
        self._written = 0

    async def acquire(self, patience_s: float, *, first: bool) -> None:
        """Wait for a turn.

        Raises:
            TimeoutError: nobody has written anything for so long. A long queue that moves is no reason to give up.
        """
        if not self._is_taken:
            self._is_taken = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._first if first else self._others).append(turn)
        try:
            while not turn.done():
                written = self._written
                await asyncio.wait([turn], timeout=patience_s)
                if not turn.done() and self._written == written:
                    turn.cancel()
                    raise TimeoutError
        except asyncio.CancelledError:
            if turn.done():
                # It got the lock at the moment when it gave up.
                self.release(has_written=False)
            turn.cancel()
            raise

    def release(self, *, has_written: bool) -> None:
        """Let the next one have its turn."""
        self._written += has_written
        for waiting in (self._first, self._others):
            while waiting:
                turn = waiting.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._is_taken = False


@contextmanager
def _closed_on_failure(connection: DBAPIConnection) -> Generator[None]:
    """Close a connection that could not be prepared: the pool, which never got it, does not."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _migrate(connection: Connection) -> None:
    """Bring the schema to HEAD, within the transaction of the connection."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{_MIGRATION_LOCK_TIMEOUT}'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    if _revision(connection) == HEAD:
        # Beginning a transaction does not tell whether the file, or a standby server, takes any writing.
        connection.execute(text("UPDATE alembic_version SET version_num = version_num"))
        return
    from alembic import command  # noqa: PLC0415  # 0.3 s that only a migration needs
    from alembic.config import Config  # noqa: PLC0415  # the same
    from alembic.util import CommandError  # noqa: PLC0415  # the same

    config = Config()
    config.set_main_option("script_location", "core.db:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StartupError("the database is of another, probably newer, version of Understudy") from error


def _revision(connection: Connection) -> str | None:
    """Where the schema stands; None: nothing is there yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
