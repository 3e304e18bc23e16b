"""Database: errors of a SQLite file, and its locks."""

import asyncio
import gc
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from core.db import drivers
from core.db.database import Database
from core.db.tables import NoteRow
from core.errors import StartupError, StorageError
from tests.core.db.note_rows import note, notes
from tests.support.sqlite_file import migrate_database

pytestmark = pytest.mark.integration


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

    @pytest.mark.parametrize("cancellations", [1, 2])
    async def test_cancelled_caller_leaves_no_connection_that_was_being_opened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancellations: int
    ) -> None:
        """A thread opens it, and has done so when nothing waits for it any more."""
        begun, may_open, closed = threading.Event(), threading.Event(), threading.Event()

        class SlowConnection(drivers.SQLiteConnection):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                begun.set()
                may_open.wait()
                super().__init__(*arguments, **options)

            def close(self) -> None:
                super().close()
                closed.set()

        await migrate_database(url := f"sqlite:///{tmp_path / 'u.db'}")
        monkeypatch.setattr(drivers, "SQLiteConnection", SlowConnection)
        database = Database(url)
        reader = asyncio.create_task(notes(database))
        await asyncio.to_thread(begun.wait)
        for _ in range(cancellations):
            reader.cancel()
            await asyncio.wait([reader], timeout=0)
        may_open.set()
        await asyncio.wait([reader])
        assert reader.cancelled()
        assert await asyncio.to_thread(closed.wait, 5)
        assert await notes(database) == []
        await database.close()

    async def test_cancelled_close_closes_every_connection(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The lane waits for a transaction meanwhile."""
        opened: list[drivers.SQLiteConnection] = []

        class WatchedConnection(drivers.SQLiteConnection):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                opened.append(self)

        await migrate_database(url := f"sqlite:///{tmp_path / 'u.db'}")
        monkeypatch.setattr(drivers, "SQLiteConnection", WatchedConnection)
        database, may_end = Database(url), threading.Event()
        await notes(database)
        work = asyncio.create_task(database.run(lambda _: may_end.wait()))
        await asyncio.sleep(0)
        closing = asyncio.create_task(database.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        may_end.set()
        await work
        assert len(opened) == 1
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            opened[0].execute("SELECT 1")
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
