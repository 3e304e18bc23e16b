"""Fixtures: a database of each kind, empty, migrated and closed behind each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.db.database import Database
from tests.support.processes.postgres_server import PostgresServer, missing


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run; a test that stops it starts it again."""
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
    """The address of a new, empty database on PostgreSQL."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new, empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'understudy.db'}"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A started database of each kind."""
    database = Database(database_url)
    await database.start()
    yield database
    await database.close()


@pytest.fixture
async def replica(database: Database, database_url: str) -> AsyncIterator[Database]:
    """A second process's view of the same database."""
    replica = Database(database_url)
    await replica.start()
    yield replica
    await replica.close()
