"""Database: errors of a PostgreSQL server."""

import psycopg
import pytest
from sqlalchemy import text

from core.db.database import Database
from core.errors import StartupError, StorageError
from tests.core.db.note_rows import note, notes
from tests.support.processes.postgres_server import PostgresServer

pytestmark = pytest.mark.integration


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
