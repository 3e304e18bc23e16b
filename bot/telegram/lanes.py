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
        self._lanes: dict[Hashable, deque[Job]] = {}
        """The first job of each is the one that runs, or is just about to."""
        self._workers: dict[Hashable, asyncio.Task[None]] = {}
        self._urgent: set[asyncio.Task[None]] = set()

    def submit(self, key: Hashable, job: Job) -> bool:
        """Put a job at the end of its lane; False, and nothing done, where too many wait there already."""
        lane = self._lanes.setdefault(key, deque())
        if len(lane) > WAITING_LIMIT:
            return False
        lane.append(job)
        if key not in self._workers:
            self._workers[key] = asyncio.create_task(self._work(key, lane), name=f"lane {key}")
        return True

    def run_at_once(self, job: Job) -> None:
        """Run a job that must not wait behind the answer that it is about."""
        task = asyncio.create_task(_safely(job), name="urgent")
        self._urgent.add(task)
        task.add_done_callback(self._urgent.discard)

    async def drain(self, timeout_s: float) -> None:
        """Let everything finish for so long; then cancel what runs, wait for it to end, and drop what has not begun."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        # Again and again, since what runs may put more into a lane: a pressed Retry does.
        while (tasks := self._tasks()) and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(tasks, timeout=left)
        dropped = 0
        for lane in self._lanes.values():
            while len(lane) > 1:
                lane.pop()
                dropped += 1
        if tasks := self._tasks():
            log.warning("lanes.cut_short", running=len(tasks), dropped=dropped)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [task for task in (*self._workers.values(), *self._urgent) if not task.done()]

    async def _work(self, key: Hashable, lane: deque[Job]) -> None:
        try:
            while lane:
                await _safely(lane[0])
                lane.popleft()
        finally:
            # Nothing is awaited between the last look at the lane and here, so no job can slip in between.
            del self._workers[key], self._lanes[key]


async def _safely(job: Job) -> None:
    try:
        await job()
    except Exception:
        log.exception("lane.job_failed")
