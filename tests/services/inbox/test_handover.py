"""A job that repeated shutdowns requeue is not mistaken for one that crashes the process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from core.clock import SystemClock
from core.db.database import Database
from services.inbox.album_parts import AlbumParts
from services.inbox.dbos_queue import JobQueue
from services.inbox.dead_letters import CrashCounter, DeadLetters
from services.inbox.inbox import MAX_ISOLATED_RUNS, MAX_SHARED_RESTARTS, Inbox
from services.inbox.job import Job
from services.inbox.sent_messages import SentMessages

pytestmark = pytest.mark.integration

STARTS = 1 + MAX_SHARED_RESTARTS + MAX_ISOLATED_RUNS + 2
"""More starts than a crashing job gets."""


class GatedHandler:
    """Finishes jobs once its gate is open."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        self.finished = asyncio.Event()

    async def handle(self, job: Job) -> None:
        del job
        self.started.set()
        await self.gate.wait()
        self.finished.set()

    def is_outside_fault(self, error: Exception) -> bool:
        raise AssertionError(f"it failed: {error!r}")

    async def notify_failure(self, job: Job, error: Exception | None) -> None:
        raise AssertionError(f"{job.id} was given up: {error!r}")


@asynccontextmanager
async def open_inbox(database: Database, path: Path) -> AsyncIterator[Inbox]:
    """Open the inbox as a process does; on exit unfinished jobs are requeued at once."""
    clock = SystemClock()
    inbox = Inbox(
        lambda run: JobQueue(URL.create("sqlite", database=str(path)), "inbox-1", "local", run),
        CrashCounter(database, clock),
        DeadLetters(database, clock),
        SentMessages(database, clock),
        AlbumParts(database, clock),
        clock,
    )
    await inbox.queue.start()
    try:
        yield inbox
    finally:
        await inbox.queue.drain(0)
        await inbox.queue.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_shutdowns_are_not_counted_as_crashes(database: Database, tmp_path: Path) -> None:
    """After any number of shutdowns the next process runs the job, concurrently with others."""
    async with open_inbox(database, tmp_path / "inbox.db") as inbox:
        await inbox.put([Job("tg-1-1", "lane", 1, "{}")])
    for _ in range(STARTS):
        handler = GatedHandler()
        async with open_inbox(database, tmp_path / "inbox.db") as inbox:
            await inbox.work(handler)
            await asyncio.wait_for(handler.started.wait(), 10)
    handler = GatedHandler()
    handler.gate.set()
    async with open_inbox(database, tmp_path / "inbox.db") as inbox:
        await inbox.work(handler)
        await asyncio.wait_for(handler.finished.wait(), 10)
        assert await inbox.dead_letters.newest() == []
