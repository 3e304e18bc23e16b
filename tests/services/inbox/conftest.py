"""A queue in a database of each kind, and what does its jobs."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from core.db.database import Database
from services.inbox.dbos_queue import JobQueue
from services.inbox.job import Job
from tests.services.chat.conftest import migrated
from tests.support.databases import database, database_url, postgres, postgres_url, replica
from tests.support.processes.queue_process import QUEUE, sync_url

__all__ = ["database", "database_url", "migrated", "postgres", "postgres_url", "replica"]


class Workshop:
    """Does jobs, and remembers what it did."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self.payloads: list[str] = []
        self.broken_off: list[str] = []
        self.at_once: Counter[str] = Counter()
        """How many of a lane are being done."""
        self.most = 0
        """How many were done at once at most, over all lanes."""
        self.crowded: set[str] = set()
        """The lanes of which more than one was done at once."""
        self.gate = asyncio.Event()
        """Nothing is finished while it is closed."""
        self.gate.set()
        self.failing: set[str] = set()
        self._news = asyncio.Event()

    async def run(self, job: Job) -> None:
        self.begun.append(job.id)
        self.payloads.append(job.payload)
        self.at_once[job.lane] += 1
        self.most = max(self.most, self.at_once.total())
        if self.at_once[job.lane] > 1:
            self.crowded.add(job.lane)
        self._tell()
        try:
            await self.gate.wait()
            if job.id in self.failing:
                raise ValueError("out of tune")
            self.done.append(job.id)
        except asyncio.CancelledError:
            self.broken_off.append(job.id)
            raise
        finally:
            self.at_once[job.lane] -= 1
            self._tell()

    async def until(self, predicate: Callable[[], object], within_s: float = 15) -> None:
        """Wait until something is true of it."""
        async with asyncio.timeout(within_s):
            while not predicate():
                await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


OpenQueue = Callable[..., AbstractAsyncContextManager[JobQueue]]


@pytest.fixture
async def file(tmp_path: Path, migrated: Path) -> AsyncIterator[Database]:
    """A SQLite file, migrated and empty."""
    path = tmp_path / "understudy.db"
    shutil.copy(migrated, path)
    database = Database(f"sqlite:///{path}")
    await database.start()
    yield database
    await database.close()


@pytest.fixture
async def shop() -> Workshop:
    return Workshop()


@pytest.fixture
def queue_url(database_url: str, tmp_path: Path) -> sa.URL:
    """Where the queue is: on SQLite in a file of its own."""
    url = sync_url(database_url)
    return url.set(database=str(tmp_path / "inbox.db")) if url.get_backend_name() == "sqlite" else url


@pytest.fixture
def open_queue(queue_url: sa.URL, shop: Workshop) -> OpenQueue:
    """Opens the queue as a process does; one at a time."""

    @asynccontextmanager
    async def open_(
        run: Callable[[Job], Awaitable[None]] | None = None, name: str = QUEUE, replica: str = "local"
    ) -> AsyncGenerator[JobQueue]:
        queue = JobQueue(queue_url, name, replica, run or shop.run)
        await queue.start()
        try:
            yield queue
        finally:
            shop.gate.set()
            await queue.drain(5)
            await queue.close()

    return open_


@pytest.fixture
async def queue(open_queue: OpenQueue) -> AsyncIterator[JobQueue]:
    """A started queue that does not work yet."""
    async with open_queue() as queue:
        yield queue


def lose_the_answer_to_a_claim(queue: JobQueue) -> asyncio.Event:
    """Have the next claim of the queue carried out, and its caller told that the connection broke; set when it has."""
    loop = asyncio.get_running_loop()
    lost = asyncio.Event()
    database: Any = queue._dbos._sys_db
    carry_out = database.start_queued_partitioned_workflows

    def claim(*arguments: object, **options: object) -> list[str]:
        claimed: list[str] = carry_out(*arguments, **options)
        if claimed:
            database.start_queued_partitioned_workflows = carry_out
            loop.call_soon_threadsafe(lost.set)
            raise sa.exc.OperationalError("COMMIT", None, OSError("the connection broke"))
        return claimed

    database.start_queued_partitioned_workflows = claim
    return lost


def lose_ends(queue: JobQueue, times: int = 2) -> None:
    """Have the database gone when the queue wants to note how a job ended; the library tries twice."""
    database: Any = queue._dbos._sys_db
    carry_out = database.update_workflow_outcome
    left = times

    def note(*arguments: object, **options: object) -> object:
        nonlocal left
        if left:
            left -= 1
            raise sa.exc.OperationalError("UPDATE", None, OSError("the connection broke"))
        return carry_out(*arguments, **options)

    database.update_workflow_outcome = note
