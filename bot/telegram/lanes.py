"""One conversation in order, conversations side by side."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import NamedTuple

import structlog

log = structlog.get_logger()

WAITING_LIMIT = 20
"""How many messages of one conversation may wait behind the one that is being answered."""
FAREWELL_S = 2.0
"""How long a shutdown waits until everybody whom it left unheard knows it."""

Job = Callable[[], Awaitable[None]]


class _Waiting(NamedTuple):
    """A job in its lane, and what is done instead where a shutdown comes first."""

    job: Job
    farewell: Job | None


class Lanes:
    """Runs jobs: those of one key one after the other, those of different keys at the same time.

    A lane exists only while it has work, so memory follows what is in flight and not who ever wrote.
    """

    def __init__(self) -> None:
        self._lanes: dict[Hashable, deque[_Waiting]] = {}
        """The first job of each is the one that runs, or is just about to."""
        self._workers: dict[Hashable, asyncio.Task[None]] = {}
        self._urgent: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        """How many lanes have work."""
        return len(self._workers)

    @property
    def waiting(self) -> int:
        """How many jobs wait behind the first of their lane."""
        return sum(len(lane) - 1 for lane in self._lanes.values() if lane)

    def submit(self, key: Hashable, job: Job, farewell: Job | None = None) -> bool:
        """Put a job at the end of its lane; False, and nothing done, where too many wait there already.

        Args:
            key: which lane.
            job: what is to be done.
            farewell: done at a shutdown that drops the job; of several that are dropped in a lane, the last one's.
        """
        lane = self._lanes.setdefault(key, deque())
        if len(lane) > WAITING_LIMIT:
            return False
        lane.append(_Waiting(job, farewell))
        if key not in self._workers:
            self._workers[key] = asyncio.create_task(self._work(key, lane), name=f"lane {key}")
        return True

    def run_at_once(self, job: Job) -> None:
        """Run a job that must not wait behind the answer that it is about."""
        task = asyncio.create_task(_safely(job), name="urgent")
        self._urgent.add(task)
        task.add_done_callback(self._urgent.discard)

    async def drain(self, timeout_s: float) -> None:
        """Let everything finish for so long.

        Then cancel what runs, wait for it to end, and drop what has not begun, with its farewell.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        # Again and again, since what runs may put more into a lane: a pressed Retry does.
        while (tasks := self._tasks()) and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(tasks, timeout=left)
        dropped, farewells = self._drop()
        if tasks := self._tasks():
            log.warning("lanes.cut_short", running=len(tasks), dropped=dropped)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        # Only now, so that it stands under what was left of the answer before it.
        await _say_farewell(farewells)

    def _drop(self) -> tuple[int, list[Job]]:
        """Take out what has not begun; how much that was, and what is to be done about it."""
        dropped = [tuple(lane)[1:] for lane in self._lanes.values()]
        for lane in self._lanes.values():
            while len(lane) > 1:
                lane.pop()
        return sum(map(len, dropped)), [lane[-1].farewell for lane in dropped if lane and lane[-1].farewell]

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [task for task in (*self._workers.values(), *self._urgent) if not task.done()]

    async def _work(self, key: Hashable, lane: deque[_Waiting]) -> None:
        try:
            while lane:
                await _safely(lane[0].job)
                lane.popleft()
        finally:
            # Nothing is awaited between the last look at the lane and here, so no job can slip in between.
            del self._workers[key], self._lanes[key]


async def _safely(job: Job) -> None:
    try:
        await job()
    except Exception:
        log.exception("lane.job_failed")


async def _say_farewell(farewells: Sequence[Job]) -> None:
    if not farewells:
        return
    tasks = [asyncio.create_task(_safely(farewell), name="farewell") for farewell in farewells]
    _, late = await asyncio.wait(tasks, timeout=FAREWELL_S)
    for task in late:
        task.cancel()
    log.info("lanes.took_leave", told=len(tasks) - len(late), untold=len(late))
    await asyncio.gather(*late, return_exceptions=True)
