"""A replica's queue in a process of its own, since a process can have only one.

    python -m tests.support.processes.queue_process URL REPLICA

It says `ready`, and then does what it is told on its standard input, a line of JSON each: `{"put": [[id, lane,
priority, limited], ...]}`, `{"work": seconds a job takes}`, `{"end": seconds to drain}`. What it does it tells on its
standard output in the same way.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from services.inbox.dbos_queue import JobQueue
from services.inbox.job import Job

T = TypeVar("T")

QUEUE = "inbox-42"
ROOT = Path(__file__).parents[3]


def sync_url(url: str) -> sa.URL:
    """The address with the driver that the queue uses."""
    made = sa.make_url(url)
    return made.set(drivername="sqlite" if made.get_backend_name() == "sqlite" else "postgresql+psycopg")


def _say(**said: Any) -> None:  # noqa: ANN401 - JSON
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


async def _serve(url: str, replica: str) -> None:
    pause_s = 0.0

    async def run(job: Job) -> None:
        # This clock is the machine's, the same for all processes.
        begun = time.monotonic()
        await asyncio.sleep(pause_s)
        _say(did=job.id, lane=job.lane, begun=begun, ended=time.monotonic())

    queue = JobQueue(sync_url(url), QUEUE, replica, run)
    await queue.start()
    _say(ready=replica)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        if "put" in command:
            jobs = [Job(id_, lane, priority, "{}", limited) for id_, lane, priority, limited in command["put"]]
            receipt = await queue.put(jobs)
            _say(new=len(receipt.new), rejected=len(receipt.rejected))
        elif "work" in command:
            pause_s = command["work"]
            await queue.work()
        else:
            await queue.drain(command["end"])
            break
    await queue.close()
    _say(ended=replica)


class QueueProcess:
    """Such a process, seen from a test."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.done: list[dict[str, Any]] = []
        """The jobs that it did."""

    def tell(self, **command: Any) -> None:  # noqa: ANN401 - JSON
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def hear(self, what: str) -> dict[str, Any]:
        """Wait until it tells that; the jobs that it tells of meanwhile are noted."""
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            while line := await self._process.stdout.readline():
                said = json.loads(line)
                if "did" in said:
                    self.done.append(said)
                if what in said:
                    return said
        raise AssertionError(f"the process ended before it told {what!r}")

    def kill(self) -> None:
        self._process.kill()


@asynccontextmanager
async def queue_processes(url: str, *replicas: str) -> AsyncGenerator[list[QueueProcess]]:
    """Replicas that start at the same moment."""
    command = [sys.executable, "-W", "error", "-m", "tests.support.processes.queue_process", url]
    pipe = asyncio.subprocess.PIPE
    started = [
        await asyncio.create_subprocess_exec(*command, replica, stdin=pipe, stdout=pipe, cwd=ROOT, env=dict(os.environ))
        for replica in replicas
    ]
    try:
        processes = [QueueProcess(each) for each in started]
        await asyncio.gather(*(each.hear("ready") for each in processes))
        yield processes
    finally:
        for each in started:
            if each.returncode is None:
                each.kill()
            await each.wait()


async def ended(processes: Sequence[QueueProcess], within_s: float = 10) -> list[dict[str, Any]]:
    """Tell all of them to end; what they did, in the order in which it was begun."""
    for each in processes:
        each.tell(end=within_s)
    await asyncio.gather(*(each.hear("ended") for each in processes))
    return sorted((job for each in processes for job in each.done), key=lambda job: job["begun"])


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
