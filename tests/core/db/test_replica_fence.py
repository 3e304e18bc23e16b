"""A replaced replica commits nothing: its connections end, and it opens no new ones."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from sqlalchemy import text

from core.db.database import Database
from core.db.replica_fence import ReplicaFence
from core.errors import StorageError

pytestmark = pytest.mark.integration


@pytest.fixture
async def fence() -> ReplicaFence:
    return ReplicaFence("host-1-abc")


@pytest.fixture
async def database(postgres_url: str, fence: ReplicaFence) -> AsyncIterator[Database]:
    database = Database(postgres_url, fence=fence)
    await database.start()
    yield database
    await database.close()


async def register(database: Database, fence: ReplicaFence) -> None:
    async with database.session() as session:
        await session.execute(text("INSERT INTO replicas VALUES ('host-1-abc', now())"))
    fence.is_registered = True


async def write(database: Database) -> None:
    async with database.session() as session:
        await session.execute(text("INSERT INTO replicas VALUES (gen_random_uuid()::text, now())"))


async def test_connections_bear_the_name_of_the_replica(database: Database) -> None:
    async with database.reading() as session:
        assert (await session.execute(text("SHOW application_name"))).scalar_one() == "host-1-abc"


async def test_registered_replica_opens_connections(database: Database, fence: ReplicaFence) -> None:
    await register(database, fence)
    await database.engine.dispose()
    await write(database)


@pytest.mark.parametrize("act", ["DELETE FROM replicas", "UPDATE replicas SET expires_at = '-infinity'"])
async def test_replaced_replica_is_refused(
    database: Database, fence: ReplicaFence, postgres_url: str, act: str
) -> None:
    await register(database, fence)
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(act.encode())
        # The takeover ends open connections.
        other.execute(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE application_name = 'host-1-abc'"
        )
        with pytest.raises(StorageError):
            await write(database)
        rows = other.execute("SELECT count(*) FROM replicas WHERE name <> 'host-1-abc'").fetchall()
    assert rows == [(0,)]


async def test_open_transaction_of_a_replaced_replica_is_rolled_back(
    database: Database, fence: ReplicaFence, postgres_url: str
) -> None:
    await register(database, fence)

    async def commit_late() -> None:
        async with database.session() as session:
            await session.execute(text("INSERT INTO replicas VALUES ('written before the takeover', now())"))
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("UPDATE replicas SET expires_at = '-infinity'")
                other.execute(
                    "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE application_name = 'host-1-abc'"
                )

    with pytest.raises(StorageError):
        await commit_late()
    with psycopg.connect(postgres_url) as other:
        assert other.execute("SELECT name FROM replicas").fetchall() == [("host-1-abc",)]


async def test_abort_ends_a_wait_for_a_database_that_does_not_answer(database: Database, fence: ReplicaFence) -> None:
    async def wait() -> None:
        async with database.reading() as session:
            await session.execute(text("SELECT pg_sleep(60)"))

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.3)
    assert fence.abort() >= 1
    async with asyncio.timeout(10):
        with pytest.raises(StorageError):
            await waiting
