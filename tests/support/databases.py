"""Fixtures: databases of each kind, empty, migrated, and closed after each test."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.db.database import Database
from tests.support.processes.postgres_server import PostgresServer, missing
from tests.support.sqlite_file import migrate_database, migrated_file


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server for the session; a test that stops it must start it again."""
    if reason := missing():
        pytest.skip(reason)
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """URL of a new, empty PostgreSQL database."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def migrated_postgres(postgres: PostgresServer) -> str:
    """URL of a migrated PostgreSQL database without rows, to copy as `migrated`."""
    url = postgres.create_database()
    asyncio.run(migrate_database(url))
    return url


@pytest.fixture
def migrated_postgres_url(postgres: PostgresServer, migrated_postgres: str) -> Iterator[str]:
    """URL of a new, migrated PostgreSQL database."""
    url = postgres.create_database(template=migrated_postgres)
    yield url
    postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new database of each kind: migrated for a test that uses `database`, otherwise empty."""
    is_migrated = "database" in request.fixturenames
    if request.param == "postgresql":
        return request.getfixturevalue("migrated_postgres_url" if is_migrated else "postgres_url")
    path = tmp_path / "understudy.db"
    if is_migrated:
        shutil.copy(request.getfixturevalue("migrated"), path)
    return f"sqlite:///{path}"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A started database of each kind."""
    database = Database(database_url)
    await database.start()
    yield database
    await database.close()


@pytest.fixture
async def replica(database: Database, database_url: str) -> AsyncIterator[Database]:
    """The same database as opened by a second process."""
    replica = Database(database_url)
    await replica.start()
    yield replica
    await replica.close()


@pytest.fixture(scope="session")
def migrated() -> Path:
    """A migrated SQLite file without rows to copy, because migrating takes a while."""
    return migrated_file()


@pytest.fixture
async def file(tmp_path: Path, migrated: Path) -> AsyncIterator[Database]:
    """A SQLite database with a short busy timeout."""
    path = tmp_path / "data" / "understudy.db"
    path.parent.mkdir()
    shutil.copy(migrated, path)
    database = Database(f"sqlite:///{path}", busy_timeout_s=0.2)
    await database.start()
    yield database
    await database.close()
