"""Journals of sends: a note survives any end of its process."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy import text

from core.clock import SystemClock
from core.db.database import Database
from services.inbox.lease import ReplicaLease
from services.inbox.postgres_journal import PostgresSendJournal
from services.inbox.sent_messages import FileSendJournal, PendingSend, SendJournal
from tests.support.clock import until

BEGUN = PendingSend(floor=10, shared_floor=20)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sends.journal"


async def test_next_process_knows_the_sends_of_the_previous_one(path: Path) -> None:
    first = FileSendJournal(path)
    first.begin(1, 0, BEGUN)
    first.begin(1, 1, BEGUN)
    first.accept(1, 0, 77)
    first.begin(2, 0, BEGUN)
    first.close(2)
    second = FileSendJournal(path)
    assert await second.load(1) == {0: PendingSend(10, 20, 77), 1: BEGUN}
    assert await second.load(2) == {}
    assert mode_of(path) == 0o600
    first.shut()
    second.shut()


async def test_line_that_was_cut_off_is_skipped(path: Path) -> None:
    first = FileSendJournal(path)
    first.begin(1, 0, BEGUN)
    first.shut()
    with path.open("a") as file:
        file.write('[1, 1, 4\n[2, "x"]\nnull\n[3, 0, 5')
    second = FileSendJournal(path)
    assert await second.load(1) == {0: BEGUN}
    assert await second.load(3) == {}
    second.shut()


async def test_failed_rewrite_keeps_the_file_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that was closed belongs to the next file that this process opens."""
    journal = FileSendJournal(path, max_bytes=1)
    open_number = os.open

    def open_another(name: Path, *arguments: int) -> int:
        if name == path:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return open_number(name, *arguments)

    journal.begin(1, 0, BEGUN)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_another)
        journal.close(1)
    with path.with_suffix(".other").open("w") as other:
        journal.begin(2, 0, BEGUN)
        journal.shut()
        other.write("whole")
    assert path.with_suffix(".other").read_text() == "whole"


async def test_file_is_rewritten_without_delivered_answers(path: Path) -> None:
    journal = FileSendJournal(path, max_bytes=2000)
    journal.begin(1, 0, BEGUN)
    for turn in range(2, 500):
        journal.begin(turn, 0, BEGUN)
        journal.accept(turn, 0, turn)
        journal.close(turn)
        assert size_of(path) < 2100
    journal.shut()
    again = FileSendJournal(path)
    assert await again.load(1) == {0: BEGUN}
    again.shut()


@pytest.mark.integration
async def test_file_survives_a_killed_process(path: Path) -> None:
    """The note is in the file as soon as the call returns."""
    script = (
        "import os, sys; from pathlib import Path; from services.inbox.sent_messages import *\n"
        "journal = FileSendJournal(Path(sys.argv[1])); journal.begin(1, 0, PendingSend(10, 20))\n"
        "os.kill(os.getpid(), 9)"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script, str(path)], cwd=ROOT, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode == -signal.SIGKILL
    journal = FileSendJournal(path)
    assert await journal.load(1) == {0: BEGUN}
    journal.shut()


async def read(journal: SendJournal, turn_id: int) -> Mapping[int, PendingSend]:
    """Return the notes of a turn as soon as there are any."""
    async with asyncio.timeout(10):
        while not (notes := await journal.load(turn_id)):
            await asyncio.sleep(0.01)
    return notes


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def size_of(path: Path) -> int:
    return path.stat().st_size


class TestPostgres:
    """Statements that are sent without waiting for their result."""

    @pytest.fixture
    async def database(self, postgres_url: str) -> AsyncIterator[Database]:
        database = Database(postgres_url)
        await database.start()
        async with database.session() as session:
            thread = (
                "INSERT INTO threads (id, surface, chat_id, topic_id, is_current, created_at) "
                "VALUES (1, 'telegram', 7, 0, true, now())"
            )
            await session.execute(text(thread))
            turns = text(
                "INSERT INTO turns (id, thread_id, created_at, status, speaker_id, prompt, estimated_tokens, "
                "attachment_count) SELECT id, 1, now(), 'running', 7, '', 0, 0 FROM generate_series(1, 2) AS id"
            )
            await session.execute(turns)
        yield database
        await database.close()

    @pytest.fixture
    async def journal(self, database: Database, postgres_url: str) -> AsyncIterator[PostgresSendJournal]:
        self.lease = ReplicaLease()
        journal = PostgresSendJournal(postgres_url, "one", database, SystemClock(), self.lease)
        task = asyncio.create_task(journal.run())
        await until(lambda: journal._pgconn is not None)
        yield journal
        task.cancel()
        await asyncio.wait([task])

    async def test_another_replica_reads_the_notes(self, journal: PostgresSendJournal) -> None:
        for page in range(50):
            journal.begin(1, page, BEGUN)
        journal.accept(1, 0, 77)
        journal.begin(2, 0, BEGUN)
        journal.close(2)
        # The statements are carried out in order.
        journal.begin(2, 1, BEGUN)
        assert set(await read(journal, 2)) == {1}
        notes = await read(journal, 1)
        assert (len(notes), notes[0], notes[1]) == (50, PendingSend(10, 20, 77), BEGUN)

    async def test_refused_note_stops_no_other(self, journal: PostgresSendJournal) -> None:
        """A turn that was deleted meanwhile."""
        journal.begin(999, 0, BEGUN)
        journal.begin(1, 0, BEGUN)
        assert await read(journal, 1)

    async def test_connection_is_opened_again(self, journal: PostgresSendJournal, database: Database) -> None:
        broken = journal._pgconn
        async with database.session() as session:
            await session.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'one'")
            )
        await until(lambda: journal._pgconn not in {None, broken})
        journal.begin(1, 0, BEGUN)
        assert await read(journal, 1)

    async def test_nothing_is_noted_without_the_lease(self, journal: PostgresSendJournal) -> None:
        self.lease.revoke()
        journal.begin(1, 0, BEGUN)
        self.lease.renew(self.lease.now() + 60)
        journal.begin(2, 0, BEGUN)
        assert await read(journal, 2)
        assert await journal.load(1) == {}
