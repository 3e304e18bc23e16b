"""Jobs: units of work that survive the process."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

LARGEST_PRIORITY = 2**31 - 1
"""Priorities are stored as 32-bit integers."""
REPLAY_MARK = "~"
"""Separates the id of a dead job from the number of its replay."""


@dataclass(frozen=True, slots=True)
class Job:
    """A durable unit of work.

    Args:
        id: idempotency key; enqueuing the same id again has no effect.
        lane: jobs of a lane run one at a time and in order, different lanes run concurrently.
        priority: order within the lane, 1 to `LARGEST_PRIORITY`, lowest first; the update's number.
        payload: JSON, opaque to the inbox.
        is_limited: rejected while the lane is full.
    """

    id: str
    lane: str
    priority: int
    payload: str
    is_limited: bool = False

    @property
    def origin(self) -> str:
        """Id of the job that this one replays; its own id otherwise."""
        return self.id.partition(REPLAY_MARK)[0]

    def replay(self, number: int) -> "Job":
        """Returns a copy with an id of its own, because a finished id never runs again."""
        return Job(f"{self.origin}{REPLAY_MARK}{number}", self.lane, self.priority, self.payload)


class JobSink(Protocol):
    """Stores jobs; the inbox."""

    async def put(self, jobs: Sequence[Job]) -> list[Job]:
        """Stores jobs and returns those that were refused because their lane is full."""
        ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """Result of enqueuing jobs.

    Args:
        new: ids that were not stored before.
        rejected: jobs of full lanes.
    """

    new: frozenset[str] = frozenset()
    rejected: tuple[Job, ...] = ()


class JobHandler(Protocol):
    """Executes jobs."""

    async def handle(self, job: Job) -> None:
        """Executes a job; an exception that `is_outside_fault` causes a retry, any other gives the job up."""
        ...

    def is_outside_fault(self, error: Exception) -> bool:
        """Returns whether a failure came from the network, a server or the database: a later run may succeed."""
        ...

    async def notify_failure(self, job: Job, error: Exception | None) -> None:
        """Tells the user that a job was given up; without an error the process died in it."""
        ...


class JobPlaces(Protocol):
    """Bounds the jobs that run at once, and the order in which they begin."""

    def place(self, job: Job) -> AbstractAsyncContextManager[None]:
        """Holds a place for a job while the context lasts, once it is its turn."""
        ...


class Unbounded:
    """A place for every job, at once."""

    def place(self, job: Job) -> AbstractAsyncContextManager[None]:
        """Holds a place."""
        del job
        return nullcontext()
