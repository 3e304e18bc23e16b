"""A job that one process after the other hands back at its shutdown is no poison."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from core.clock import SystemClock
from core.db.database import Database
from services.inbox.album_parts import AlbumParts
from services.inbox.crash_counts import CrashCounter
from services.inbox.dbos_queue import JobQueue
from services.inbox.dead_letters import DeadLetters
from services.inbox.inbox import ALONE, TOGETHER, Inbox
from services.inbox.job import Job
from services.inbox.sent_messages import SentMessages

LIVES = 1 + TOGETHER + ALONE + 2
"""More than a job has that the process dies over."""


class Patient:
    """Does jobs when the gate is open."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.done = asyncio.Event()

    async def do(self, job: Job) -> None:
        del job
        self.begun.set()
        await self.gate.wait()
        self.done.set()

    async def apologise(self, job: Job, error: Exception | None) -> None:
        raise AssertionError(f"{job.id} was given up: {error!r}")


@asynccontextmanager
async def life(database: Database, path: Path) -> AsyncIterator[Inbox]:
    """The inbox as one process has it; at the end everything is handed back at once."""
    clock = SystemClock()
    inbox = Inbox(
        lambda run: JobQueue(URL.create("sqlite", database=str(path)), "inbox-1", "local", run),
        CrashCounter(database, clock),
        DeadLetters(database, clock),
        SentMessages(database, clock),
        AlbumParts(database, clock),
        clock,
    )
    await inbox.start()
    try:
        yield inbox
    finally:
        await inbox.queue.drain(0)
        await inbox.queue.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_shutdowns_do_not_count_against_a_job(database: Database, tmp_path: Path) -> None:
    """However many there were, the next process does it, beside others."""
    async with life(database, tmp_path / "inbox.db") as inbox:
        await inbox.put([Job("tg-1-1", "lane", 1, "{}")])
    for _ in range(LIVES):
        worker = Patient()
        async with life(database, tmp_path / "inbox.db") as inbox:
            await inbox.work(worker)
            await asyncio.wait_for(worker.begun.wait(), 10)
    worker = Patient()
    worker.gate.set()
    async with life(database, tmp_path / "inbox.db") as inbox:
        await inbox.work(worker)
        await asyncio.wait_for(worker.done.wait(), 10)
        assert await inbox.dead_letters.newest() == []
