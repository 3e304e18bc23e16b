"""Fixtures: a database of each kind, empty, migrated and closed behind each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.database import Database
from tests.support.postgres_server import PostgresServer, missing


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


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a new, empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'understudy.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.create_database()
    yield url
    server.drop_database(url)


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
