"""The queue of one replica in a process of its own, because a process can have only one.

    python -m tests.support.processes.queue_process URL REPLICA

It writes `ready` and then reads commands from standard input, one line of JSON each: `{"put": [[id, lane, priority,
limited], ...]}`, `{"work": seconds per job}`, `{"end": seconds to drain}`. It reports on standard output in the same
form.
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
    """Return the URL with the synchronous driver of the queue."""
    made = sa.make_url(url)
    return made.set(drivername="sqlite" if made.get_backend_name() == "sqlite" else "postgresql+psycopg")


def _send(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def _serve(url: str, replica: str) -> None:
    pause_s = 0.0

    async def run(job: Job) -> None:
        # The system clock, the same for all processes.
        started = time.monotonic()
        await asyncio.sleep(pause_s)
        _send(ran=job.id, lane=job.lane, started=started, ended=time.monotonic())

    queue = JobQueue(sync_url(url), QUEUE, replica, run)
    await queue.start()
    _send(ready=replica)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        if "put" in command:
            jobs = [Job(id_, lane, priority, "{}", limited) for id_, lane, priority, limited in command["put"]]
            receipt = await queue.put(jobs)
            _send(new=len(receipt.new), rejected=len(receipt.rejected))
        elif "work" in command:
            pause_s = command["work"]
            await queue.work()
        else:
            await queue.drain(command["end"])
            break
    await queue.close()
    _send(ended=replica)


class QueueProcess:
    """Client of a queue process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.done: list[dict[str, Any]] = []
        """Jobs that it ran."""

    def send(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def receive(self, field: str) -> dict[str, Any]:
        """Wait for a message with this field, recording the jobs reported meanwhile."""
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            while line := await self._process.stdout.readline():
                message = json.loads(line)
                if "ran" in message:
                    self.done.append(message)
                if field in message:
                    return message
        raise AssertionError(f"the process ended before it sent {field!r}")

    def kill(self) -> None:
        self._process.kill()


@asynccontextmanager
async def queue_processes(url: str, *replicas: str) -> AsyncGenerator[list[QueueProcess]]:
    """Start replicas at the same moment."""
    command = [sys.executable, "-W", "error", "-m", "tests.support.processes.queue_process", url]
    pipe = asyncio.subprocess.PIPE
    started = [
        await asyncio.create_subprocess_exec(*command, replica, stdin=pipe, stdout=pipe, cwd=ROOT, env=dict(os.environ))
        for replica in replicas
    ]
    try:
        processes = [QueueProcess(each) for each in started]
        await asyncio.gather(*(each.receive("ready") for each in processes))
        yield processes
    finally:
        for each in started:
            if each.returncode is None:
                each.kill()
            await each.wait()


async def end_all(processes: Sequence[QueueProcess], within_s: float = 10) -> list[dict[str, Any]]:
    """End all processes; return the jobs they ran in the order of their start."""
    for each in processes:
        each.send(end=within_s)
    await asyncio.gather(*(each.receive("ended") for each in processes))
    return sorted((job for each in processes for job in each.done), key=lambda job: job["started"])


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
