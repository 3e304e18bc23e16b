"""A job runner that records its runs, and database failures of the inbox queue on demand."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from services.inbox.dbos_queue import JobQueue
from services.inbox.job import Job


class RecordingRunner:
    """Runs jobs and records them."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.finished: list[str] = []
        self.payloads: list[str] = []
        self.cancelled: list[str] = []
        self.running: Counter[str] = Counter()
        """Running jobs by lane."""
        self.peak = 0
        """Most jobs that ran at once, over all lanes."""
        self.overlapping: set[str] = set()
        """Lanes that ran more than one job at once."""
        self.gate = asyncio.Event()
        """Jobs finish while it is set."""
        self.gate.set()
        self.failing: set[str] = set()
        self._changed = asyncio.Event()

    async def run(self, job: Job) -> None:
        self.started.append(job.id)
        self.payloads.append(job.payload)
        self.running[job.lane] += 1
        self.peak = max(self.peak, self.running.total())
        if self.running[job.lane] > 1:
            self.overlapping.add(job.lane)
        self._notify()
        try:
            await self.gate.wait()
            if job.id in self.failing:
                raise ValueError("out of tune")
            self.finished.append(job.id)
        except asyncio.CancelledError:
            self.cancelled.append(job.id)
            raise
        finally:
            self.running[job.lane] -= 1
            self._notify()

    async def until(self, predicate: Callable[[], object], within_s: float = 15) -> None:
        """Wait until a condition on this runner holds."""
        async with asyncio.timeout(within_s):
            while not predicate():
                await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def lose_claim_reply(queue: JobQueue) -> asyncio.Event:
    """Commit the queue's next claim but fail its reply; the event is set when that has happened."""
    loop = asyncio.get_running_loop()
    lost = asyncio.Event()
    database: Any = queue._runtime._dbos._sys_db
    original = database.start_queued_partitioned_workflows

    def claim(*arguments: object, **options: object) -> list[str]:
        claimed: list[str] = original(*arguments, **options)
        if claimed:
            database.start_queued_partitioned_workflows = original
            loop.call_soon_threadsafe(lost.set)
            raise sa.exc.OperationalError("COMMIT", None, OSError("the connection broke"))
        return claimed

    database.start_queued_partitioned_workflows = claim
    return lost


def lose_outcomes(queue: JobQueue, times: int = 2) -> None:
    """Fail the recording of job outcomes; the library tries each twice."""
    database: Any = queue._runtime._dbos._sys_db
    original = database.update_workflow_outcome
    remaining = times

    def record(*arguments: object, **options: object) -> object:
        nonlocal remaining
        if remaining:
            remaining -= 1
            raise sa.exc.OperationalError("UPDATE", None, OSError("the connection broke"))
        return original(*arguments, **options)

    database.update_workflow_outcome = record
