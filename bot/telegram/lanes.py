"""One conversation in order, conversations side by side."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable

import structlog

log = structlog.get_logger()

WAITING_LIMIT = 20
"""How many messages of one conversation may wait behind the one that is being answered."""

Job = Callable[[], Awaitable[None]]


class Lanes:
    """Runs jobs: those of one key one after the other, those of different keys at the same time.

    A lane exists only while it has work, so memory follows what is in flight and not who ever wrote.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[Job]] = {}
        self._workers: dict[Hashable, asyncio.Task[None]] = {}
        self._urgent: set[asyncio.Task[None]] = set()

    def submit(self, key: Hashable, job: Job) -> bool:
        """Put a job at the end of its lane; False, and nothing done, where too many wait there already."""
        waiting = self._waiting.setdefault(key, deque())
        if len(waiting) >= WAITING_LIMIT:
            return False
        waiting.append(job)
        if key not in self._workers:
            self._workers[key] = asyncio.create_task(self._work(key, waiting), name=f"lane {key}")
        return True

    def run_at_once(self, job: Job) -> None:
        """Run a job that must not wait behind the answer that it is about."""
        task = asyncio.create_task(_safely(job), name="urgent")
        self._urgent.add(task)
        task.add_done_callback(self._urgent.discard)

    async def drain(self, timeout_s: float) -> None:
        """Let everything finish for so long; then cancel what runs, wait for it to end, and drop what has not begun."""
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=timeout_s)
        dropped = sum(map(len, self._waiting.values()))
        for waiting in self._waiting.values():
            waiting.clear()
        if tasks := self._tasks():
            log.warning("lanes.cut_short", running=len(tasks), dropped=dropped)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [*self._workers.values(), *self._urgent]

    async def _work(self, key: Hashable, waiting: deque[Job]) -> None:
        try:
            while waiting:
                await _safely(waiting.popleft())
        finally:
            # Nothing is awaited between the last look at `waiting` and here, so no job can slip in between.
            del self._workers[key], self._waiting[key]


async def _safely(job: Job) -> None:
    try:
        await job()
    except Exception:
        log.exception("lane.job_failed")
