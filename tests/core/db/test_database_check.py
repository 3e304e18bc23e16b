"""The check of a database, which neither creates, migrates nor changes it."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from core.db.database import Database
from core.errors import StartupError

pytestmark = pytest.mark.integration


async def test_check_of_an_empty_database_creates_no_schema(database_url: str) -> None:
    """Twice the same answer: nothing was created."""
    database = Database(database_url)
    for _ in range(2):
        assert await database.check() in {"not created yet", "empty"}
    await database.close()


async def test_check_of_a_missing_file_does_not_create_it(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'folder' / 'x.db'}")
    assert await database.check() == "not created yet"
    assert not await asyncio.to_thread((tmp_path / "folder").exists)


async def test_check_of_a_current_database_has_nothing_to_say(database: Database) -> None:
    assert await database.check() is None


async def test_check_of_an_older_schema_does_not_migrate_it(database: Database) -> None:
    async with database.session() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert await database.check() == "to be migrated"
    async with database.reading() as session:
        assert (await session.execute(text("SELECT version_num FROM alembic_version"))).scalar() == "0001"


async def test_check_rejects_a_newer_schema(database: Database) -> None:
    async with database.session() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StartupError, match="newer"):
        await database.check()


async def test_check_names_a_database_of_another_program(database_url: str) -> None:
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE other (id INTEGER)"))
    assert await database.check() == "without a schema"
    async with database.engine.connect() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == ["other"]
    await database.close()


async def test_check_rejects_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_text("This is no database, and never was one. " * 100)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(StartupError, match=r"the file is damaged or no database \(DATA_DIR\)$"):
        await database.check()
    await database.close()


async def test_check_rejects_a_file_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="cannot be written to"):
        await Database(f"sqlite:///{tmp_path / 'file' / 'x.db'}").check()


async def test_check_rejects_an_unreachable_server() -> None:
    database = Database("postgresql://u:secret@127.0.0.1:1/d")
    with pytest.raises(StartupError, match=r"127.0.0.1:1/d cannot be used: it is unreachable \(DATABASE_URL\)$"):
        await database.check()
    await database.close()
