"""Database: startup, migrations and transactions on each engine, and its address."""

import asyncio
import json
import multiprocessing
from dataclasses import dataclass
from datetime import UTC, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Connection, inspect, select, text

from core.db import schema
from core.db.database import Database, resolve_url
from core.db.migrations import HEAD
from core.db.operator_tables import AuditRow
from core.db.tables import Base, NoteRow, PreferenceRow, TurnRow
from core.errors import ConfigurationError, StartupError, StorageError
from tests.core.db.note_rows import NOON, note, notes

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Location:
    """Settings that locate the database."""

    database_url: SecretStr | None
    data_dir: Path


def differences(connection: Connection) -> list[object]:
    """The changes that alembic would make to the schema."""
    return compare_metadata(MigrationContext.configure(connection), Base.metadata)


def describe_schema(connection: Connection) -> list[str]:
    """The engine's description of the tables, sorted: a column that was added later stands last."""
    inspector = inspect(connection)
    kinds = {
        "column": inspector.get_multi_columns(),
        "index": inspector.get_multi_indexes(),
        "foreign key": inspector.get_multi_foreign_keys(),
        "unique": inspector.get_multi_unique_constraints(),
        "check": inspector.get_multi_check_constraints(),
        "primary key": {table: [key] for table, key in inspector.get_multi_pk_constraint().items()},
    }
    return sorted(
        json.dumps([kind, table, each], default=str, sort_keys=True)
        for kind, by_table in kinds.items()
        for (_, table), found in by_table.items()
        for each in found
    )


async def test_new_database_has_the_declared_tables(database: Database) -> None:
    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrations_match_the_tables_and_go_back(database: Database) -> None:
    """They lead to the schema that a new database gets at once, and undone they leave nothing."""
    async with database.engine.begin() as connection:
        created = await connection.run_sync(describe_schema)
        await connection.run_sync(lambda connection: command.downgrade(schema.migrations(connection), "base"))
        assert await connection.run_sync(lambda connection: inspect(connection).get_table_names()) == [
            "alembic_version"
        ]
        await connection.run_sync(schema.upgrade)
        assert await connection.run_sync(differences) == []
        assert await connection.run_sync(describe_schema) == created
        assert len(created) > 400


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


async def test_start_rejects_a_newer_schema(database: Database, database_url: str) -> None:
    """An older version does not modify the database of a newer one."""
    async with database.session() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StartupError, match="newer"):
        await Database(database_url).start()


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
