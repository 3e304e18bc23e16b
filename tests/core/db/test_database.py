"""Database: startup, migrations, transactions, and errors of each engine."""

import asyncio
import gc
import multiprocessing
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Connection, select, text

from core.db.database import Database, resolve_url
from core.db.migrations import HEAD
from core.db.operator_tables import AuditRow
from core.db.tables import Base, NoteRow, PreferenceRow, TurnRow
from core.errors import ConfigurationError, StartupError, StorageError
from tests.support.processes.postgres_server import PostgresServer

pytestmark = pytest.mark.integration

NOON = datetime(2027, 1, 2, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Location:
    """Settings that locate the database."""

    database_url: SecretStr | None
    data_dir: Path


def note(text: str = "likes tea", created_at: datetime = NOON) -> NoteRow:
    """Return a row to insert."""
    return NoteRow(user_id=1, scope="telegram:1", text=text, created_at=created_at)


async def notes(database: Database) -> list[str]:
    """Return the stored texts."""
    async with database.reading() as session:
        return list(await session.scalars(select(NoteRow.text).order_by(NoteRow.id)))


async def test_migrations_match_the_tables(database: Database) -> None:
    """A new database has exactly the declared tables."""

    def differences(connection: Connection) -> list[object]:
        return compare_metadata(MigrationContext.configure(connection), Base.metadata)

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


def test_head_is_the_newest_revision() -> None:
    """The shortcut that skips alembic must know the last revision."""
    config = Config()
    config.set_main_option("script_location", "core:db/migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


async def test_schema_allows_one_current_thread_per_conversation(database: Database) -> None:
    """The index is partial and unique on both engines; comparing metadata does not cover that."""
    insert = text(
        "INSERT INTO threads (surface, chat_id, topic_id, is_current, created_at) "
        "VALUES ('telegram', 1, 0, :current, '2027-01-01 00:00:00')"
    )
    async with database.session() as session:
        for current in (False, False, True):
            await session.execute(insert, {"current": current})
    with pytest.raises(StorageError):
        async with database.session() as session:
            await session.execute(insert, {"current": True})


async def test_start_keeps_existing_data(database_url: str) -> None:
    """A restart on the same database."""
    for expected in ([], ["likes tea"], ["likes tea", "likes tea"]):
        database = Database(database_url)
        await database.start()
        assert await notes(database) == expected
        async with database.session() as session:
            session.add(note())
        await database.close()


async def test_concurrent_starts_migrate_once(database_url: str) -> None:
    """One migrates, the others wait for it, none fails."""
    replicas = [Database(database_url) for _ in range(6)]
    await asyncio.gather(*(replica.start() for replica in replicas))
    async with replicas[0].reading() as session:
        assert list(await session.scalars(text("SELECT version_num FROM alembic_version"))) == [HEAD]
    for replica in replicas:
        await replica.close()


def _start(url: str) -> None:
    async def start() -> None:
        database = Database(url)
        await database.start()
        await database.close()

    asyncio.run(start())


def test_concurrent_processes_migrate_once(database_url: str) -> None:
    """Across processes only SQLite's own locks serialise the migration."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_start, args=(database_url,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]


async def test_session_rolls_back_on_an_exception(database: Database) -> None:
    """The exception passes through unchanged."""

    async def write_and_fail() -> None:
        async with database.session() as session:
            session.add(note())
            await session.flush()
            raise LookupError

    with pytest.raises(LookupError):
        await write_and_fail()
    assert await notes(database) == []


async def test_cancelled_writer_releases_lock_and_connection(database: Database) -> None:
    """It is cancelled in the middle of its transaction."""
    wrote = asyncio.Event()

    async def write_and_wait() -> None:
        async with database.session() as session:
            session.add(note("of the cancelled writer"))
            await session.flush()
            wrote.set()
            await asyncio.Event().wait()

    writer = asyncio.create_task(write_and_wait())
    await wrote.wait()
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer
    async with database.session() as session:
        session.add(note())
    assert await notes(database) == ["likes tea"]


async def test_concurrent_writers_of_two_replicas_succeed(database: Database, replica: Database) -> None:
    """A transaction that reads before it writes does not fail because another one wrote in between."""

    async def count_up(through: Database) -> None:
        async with through.session() as session:
            await session.scalars(select(NoteRow.text))
            session.add(note())

    await asyncio.gather(*(count_up(through) for through in (database, replica) * 20))
    assert len(await notes(database)) == 40


async def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    """Uncommitted rows are invisible."""
    async with database.session() as session:
        session.add(note())
        await session.flush()
        assert await notes(database) == []


async def test_datetimes_are_returned_in_utc(database: Database) -> None:
    """From any time zone."""
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    async with database.session() as session:
        session.add(note(created_at=elsewhere))
    async with database.reading() as session:
        stored = (await session.scalars(select(NoteRow.created_at))).one()
    assert stored == NOON
    assert stored.tzinfo is UTC


async def test_plain_text_is_cleaned(database: Database) -> None:
    """NUL is dropped, surrogate pairs are joined, lone surrogates replaced."""
    async with database.session() as session:
        session.add(note("a\x00b \ud83d\ude00 \ud83d c"))
    assert await notes(database) == ["ab \U0001f600 \ufffd c"]


async def test_ids_have_64_bits(database: Database) -> None:
    """Telegram's ids exceed 32 bits."""
    async with database.session() as session:
        session.add(AuditRow(at=NOON, actor_id=-(2**62), action="test"))
    async with database.reading() as session:
        assert (await session.scalars(select(AuditRow.actor_id))).one() == -(2**62)


async def test_rejected_statement_raises_a_permanent_storage_error(database: Database) -> None:
    """It quotes no user data."""
    turn = TurnRow(
        thread_id=404, created_at=NOON, status="running", speaker_id=1, prompt="secret words",
        estimated_tokens=0, attachment_count=0,
    )  # fmt: skip
    with pytest.raises(StorageError, match="the database failed: it refused the statement") as caught:
        async with database.session() as session:
            session.add(turn)
    assert "secret words" not in str(caught.value.__cause__)
    assert caught.value.permanent


async def test_insert_supports_on_conflict(database: Database) -> None:
    """In both dialects."""
    statement = database.insert(PreferenceRow).values(scope="a", updated_at=NOON).on_conflict_do_nothing()
    async with database.session() as session:
        await session.execute(statement)
        await session.execute(statement)
        assert len(list(await session.scalars(select(PreferenceRow)))) == 1


class TestSqlite:
    """Errors of a SQLite file."""

    async def test_connections_have_the_pragmas(self, tmp_path: Path) -> None:
        """Write-ahead log, foreign keys, synced commits and the busy timeout, in every connection."""
        database = Database(f"sqlite:///{tmp_path / 'new' / 'deep' / 'u.db'}")
        await database.start()
        async with database.session() as one, database.reading() as two:
            for session in (one, two):
                values = [
                    (await session.execute(text(f"PRAGMA {name}"))).scalar()
                    for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
                ]
                assert values == ["wal", 1, 2, 5000]
        await database.close()

    async def test_locked(self, tmp_path: Path) -> None:
        """A locked file fails writes after the busy timeout, as a temporary error; reads continue."""
        path = tmp_path / "u.db"
        database = Database(f"sqlite:///{path}", busy_timeout_s=0.1)
        await database.start()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            began = time.monotonic()
            with pytest.raises(StorageError, match="the database failed: it is locked by another process") as caught:
                async with database.session() as session:
                    session.add(note())
            assert time.monotonic() - began < 2
            assert not caught.value.permanent
            assert await notes(database) == []
        async with database.session() as session:
            session.add(note())
        assert await notes(database) == ["likes tea"]
        await database.close()

    async def test_turn_waits_for_a_slow_writer_of_its_own_process(self, tmp_path: Path) -> None:
        """For longer than the busy timeout: a burst must not cost answers their memory."""
        database = Database(f"sqlite:///{tmp_path / 'slow.db'}", busy_timeout_s=1.0)
        await database.start()
        async with database.session() as session:
            session.add(note())
            turn = asyncio.create_task(database.run(lambda connection: connection.execute(select(NoteRow.id)).all()))
            await asyncio.sleep(1.3)
        assert len(await turn) == 1
        await database.close()

    async def test_cancelled_writer_leaves_no_lock_on_the_file(self, tmp_path: Path) -> None:
        """At whatever instant it is cancelled, and although its cursors are not collected yet."""
        database = Database(f"sqlite:///{tmp_path / 'cancelled.db'}", busy_timeout_s=1.0)
        await database.start()

        async def write() -> None:
            async with database.session() as session:
                session.add(note())
                await session.flush()
                await session.execute(select(NoteRow))

        gc.disable()
        try:
            for rounds in range(80):
                writer = asyncio.create_task(write())
                for _ in range(rounds):
                    await asyncio.sleep(0.0001)
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
                await write()
        finally:
            gc.enable()
            await database.close()

    async def test_queued_writers_share_the_busy_timeout(self, tmp_path: Path) -> None:
        """Writers that queue behind a stuck one time out together, not one after the other."""
        path = tmp_path / "u.db"
        database = Database(f"sqlite:///{path}", busy_timeout_s=0.2)
        await database.start()

        async def write() -> None:
            async with database.session() as session:
                session.add(note())

        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            began = time.monotonic()
            outcomes = await asyncio.gather(*(write() for _ in range(30)), return_exceptions=True)
            assert time.monotonic() - began < 2
        assert {type(outcome) for outcome in outcomes} == {StorageError}
        await database.close()

    async def test_read_only_while_running(self, tmp_path: Path) -> None:
        """Writes fail with the reason; reads work."""
        path = tmp_path / "u.db"
        first = Database(f"sqlite:///{path}")
        await first.start()
        await first.close()
        database = Database(f"sqlite:///file:{path}?mode=ro&uri=true")
        with pytest.raises(StorageError, match="the database failed: it is read-only"):
            async with database.session() as session:
                session.add(note())
        assert await notes(database) == []
        await database.close()

    async def test_full(self, tmp_path: Path) -> None:
        """A full disk is reported, and nothing is written partially."""
        database = Database(f"sqlite:///{tmp_path / 'u.db'}")
        await database.start()

        async def write() -> None:
            async with database.session() as session:
                await session.execute(text("PRAGMA max_page_count = 1"))
                session.add(note("x" * 1_000_000))

        with pytest.raises(StorageError, match="the database failed: its disk is full"):
            await write()
        assert await notes(database) == []
        await database.close()

    @pytest.mark.parametrize(
        ("prepare", "reason"),
        [
            # a directory where the file should be
            (lambda path: path.mkdir(), "the file cannot be opened"),
            # a file of another kind
            (lambda path: path.write_text("not a database, but long enough to be taken for one" * 20), "damaged"),
            # a file where the directory should be
            (lambda path: (path.parent.rmdir(), path.parent.write_text("")), r"File exists|Not a directory"),
        ],
    )
    async def test_start_reports_an_unusable_path(
        self, tmp_path: Path, prepare: Callable[[Path], object], reason: str
    ) -> None:
        """In one line that names the file and the setting."""
        directory = tmp_path / "data"
        directory.mkdir()
        prepare(directory / "u.db")
        with pytest.raises(StartupError, match=reason) as caught:
            await Database(f"sqlite:///{directory / 'u.db'}").start()
        assert str(directory / "u.db") in str(caught.value)
        assert "DATA_DIR" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_failed_start_leaves_no_thread(self, tmp_path: Path) -> None:
        """Otherwise the process prints the thread's traceback after its one line."""
        before = threading.active_count()
        for _ in range(20):
            with pytest.raises(StartupError):
                asyncio.run(Database(f"sqlite:///{tmp_path}").start())
            assert threading.active_count() == before

    @pytest.mark.parametrize("exists", [True, False])
    async def test_start_fails_on_a_read_only_file(self, tmp_path: Path, exists: bool) -> None:  # a parameter
        """A bot that cannot store anything does not start."""
        path = tmp_path / "u.db"
        if exists:
            first = Database(f"sqlite:///{path}")
            await first.start()
            await first.close()
        with pytest.raises(StartupError, match=r"it is read-only|cannot be opened"):
            await Database(f"sqlite:///file:{path}?mode=ro&uri=true").start()

    async def test_start_fails_on_a_locked_file(self, tmp_path: Path) -> None:
        """Within the busy timeout."""
        path = tmp_path / "u.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StartupError, match="it is locked by another process"):
                await Database(f"sqlite:///{path}", busy_timeout_s=0.1).start()


async def test_start_rejects_a_newer_schema(database: Database, database_url: str) -> None:
    """An older version does not modify the database of a newer one."""
    async with database.session() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StartupError, match="newer"):
        await Database(database_url).start()


class TestPostgres:
    """Errors of a PostgreSQL server."""

    async def test_reconnects_after_a_restart(self, postgres: PostgresServer, postgres_url: str) -> None:
        """Each use fails while the server is down and works again once it is back."""
        database = Database(postgres_url)
        await database.start()
        async with database.session() as session:
            session.add(note())
        postgres.stop()
        try:
            for _ in range(2):
                with pytest.raises(StorageError, match="the database failed: it is unreachable"):
                    await notes(database)
        finally:
            postgres.start()
        assert await notes(database) == ["likes tea"]
        await database.close()

    async def test_lost_connection_fails_the_transaction(self, postgres: PostgresServer, postgres_url: str) -> None:
        """The server stops in the middle of it."""
        database = Database(postgres_url)
        await database.start()

        async def write_and_lose() -> None:
            async with database.session() as session:
                session.add(note())
                await session.flush()
                postgres.stop()

        try:
            with pytest.raises(StorageError, match="the database failed: it is unreachable"):
                await write_and_lose()
        finally:
            postgres.start()
        assert await notes(database) == []
        await database.close()

    async def test_locked(self, postgres_url: str) -> None:
        """A locked table is reported after the busy timeout."""
        database = Database(postgres_url, busy_timeout_s=0.1)
        await database.start()
        with psycopg.connect(postgres_url) as other:
            other.execute("LOCK TABLE notes")
            with pytest.raises(StorageError, match="the database failed: it is locked by another process"):
                await notes(database)
        await database.close()

    async def test_read_only(self, postgres_url: str) -> None:
        """A standby, or a database set to read-only."""
        database = Database(postgres_url)
        await database.start()

        async def write() -> None:
            async with database.session() as session:
                await session.execute(text("SET TRANSACTION READ ONLY"))
                session.add(note())

        with pytest.raises(StorageError, match="the database failed: it is read-only"):
            await write()
        await database.close()

    async def test_start_reports_a_missing_database(self, postgres: PostgresServer) -> None:
        """In one line that names the location and the setting."""
        with pytest.raises(StartupError, match="no such database") as caught:
            await Database(postgres.url("nowhere")).start()
        assert "/nowhere" in str(caught.value)
        assert "DATABASE_URL" in str(caught.value)

    async def test_start_reports_an_unreachable_server(self) -> None:
        """At once, in one line without the password."""
        with pytest.raises(StartupError, match="it is unreachable") as caught:
            await Database("postgresql://u:hidden@127.0.0.1:1/x").start()
        assert "hidden" not in str(caught.value)
        assert "\n" not in str(caught.value)


class TestResolveUrl:
    """URLs from settings."""

    def test_default_is_a_file_in_data_dir(self, tmp_path: Path) -> None:
        url = resolve_url(Location(None, tmp_path))
        assert url == f"sqlite+aiosqlite:///{tmp_path}/understudy.db"
        assert resolve_url(Location(SecretStr(""), tmp_path)) == url

    @pytest.mark.parametrize("name", ["with space", "100%", "a#b", "a+b", "é"])
    async def test_path_is_escaped(self, tmp_path: Path, name: str) -> None:
        """Characters with a meaning in URLs are valid in paths."""
        database = Database(resolve_url(Location(None, tmp_path / name)))
        await database.start()
        await database.close()
        assert (tmp_path / name / "understudy.db").is_file()

    @pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
    def test_postgresql_selects_the_bundled_driver(self, scheme: str, tmp_path: Path) -> None:
        url = resolve_url(Location(SecretStr(f"{scheme}://user:p%40ss@db:5433/name?sslmode=require"), tmp_path))
        assert url == "postgresql+psycopg://user:p%40ss@db:5433/name?sslmode=require"

    @pytest.mark.parametrize("url", ["mysql://u:hidden@h/x", "nonsense hidden", "postgresql://u:hidden@h:port/x"])
    def test_invalid_url_is_not_quoted(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"DATABASE_URL: .*for example") as caught:
            resolve_url(Location(SecretStr(url), tmp_path))
        assert "hidden" not in str(caught.value)
        assert caught.value.__cause__ is None
