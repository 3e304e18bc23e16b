"""A job queue on each kind of database."""

import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from core.db.database import Database
from services.inbox.dbos_queue import JobQueue, QueueTiming
from services.inbox.job import Job
from services.inbox.queue_health import HealthLimits
from tests.support.inbox_harness import RecordingRunner
from tests.support.processes.queue_process import QUEUE, sync_url

OpenQueue = Callable[..., AbstractAsyncContextManager[JobQueue]]


@pytest.fixture
async def file(tmp_path: Path, migrated: Path) -> AsyncIterator[Database]:
    """A migrated, empty SQLite file with the default busy timeout."""
    path = tmp_path / "understudy.db"
    shutil.copy(migrated, path)
    database = Database(f"sqlite:///{path}")
    await database.start()
    yield database
    await database.close()


@pytest.fixture
async def runner() -> RecordingRunner:
    return RecordingRunner()


@pytest.fixture
def queue_url(database_url: str, tmp_path: Path) -> sa.URL:
    """The database of the queue; on SQLite a file of its own."""
    url = sync_url(database_url)
    return url.set(database=str(tmp_path / "inbox.db")) if url.get_backend_name() == "sqlite" else url


@pytest.fixture
def open_queue(queue_url: sa.URL, runner: RecordingRunner) -> OpenQueue:
    """Opens the queue as a process does; one at a time."""

    @asynccontextmanager
    async def open_(
        run: Callable[[Job], Awaitable[None]] | None = None,
        name: str = QUEUE,
        replica: str = "local",
        timing: QueueTiming | None = None,
        limits: HealthLimits | None = None,
    ) -> AsyncGenerator[JobQueue]:
        queue = JobQueue(queue_url, name, replica, run or runner.run, timing, limits)
        await queue.start()
        try:
            yield queue
        finally:
            runner.gate.set()
            await queue.drain(5)
            await queue.close()

    return open_


@pytest.fixture
async def queue(open_queue: OpenQueue) -> AsyncIterator[JobQueue]:
    """A started queue whose worker is not running."""
    async with open_queue() as queue:
        yield queue
