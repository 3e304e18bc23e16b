"""Durable job queue on DBOS, over SQLite or PostgreSQL: the way of a job from `put` until it is done.

A job is a DBOS workflow; its lane is a partition of one queue that runs a single workflow at a time over all replicas.
"""

import asyncio
import threading
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import ARRAY

from core.db.driver_errors import DRIVER_ERRORS, to_storage_error
from core.db.replica_fence import ReplicaFence
from services.inbox.dbos_runtime import DBOSRuntime
from services.inbox.dbos_tables import Claim, WorkflowTable
from services.inbox.job import Job, Receipt
from services.inbox.queue_health import HealthLimits, QueueHealth

log = structlog.get_logger()

Run = Callable[[Job], Awaitable[None]]

MAX_WAITING = 20
"""Limited jobs that may wait in a lane behind the running one."""
LANE_LOCK = 0x6C616E
"""Class id of the advisory locks that serialise enqueuing into a lane; replicas.py uses two others."""
CLAIM_ITERATIONS = 2
"""Iterations of the worker loop after which its claims have started: the current one and a full one."""


@dataclass(frozen=True, slots=True)
class QueueTiming:
    """Intervals of the queue.

    Args:
        poll_s: pause between two polls without a wakeup; bounds the delay of jobs enqueued by other replicas.
        cancel_grace_s: how long jobs cancelled at shutdown may take to end.
    """

    poll_s: float = 1.0
    cancel_grace_s: float = 5.0


class Wakeup(threading.Event):
    """Stop event of the worker loop; `notify` ends a wait for it early. Thread-safe.

    DBOS polls. With this event in the place of its own, jobs start within milliseconds while an idle process polls once
    a second.

    Args:
        health: is told about each completed iteration, in the thread of the loop.
    """

    def __init__(self, health: QueueHealth) -> None:
        super().__init__()
        self._health = health
        self._notified = threading.Event()
        self.iterations = 0
        """Completed iterations of the loop."""

    def notify(self) -> None:
        """Makes the loop poll now, or once more if it is polling."""
        self._notified.set()

    def set(self) -> None:
        """Stops the loop."""
        super().set()
        self._notified.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Returns after `notify`, `set` or the timeout; True once the loop is stopped."""
        self.iterations += 1
        self._health.polled_at = self._health.monotonic()
        if self._health.failing:
            self._health.complete_poll()
        self._notified.wait(timeout)
        self._notified.clear()
        return self.is_set()


class JobQueue:
    """Stores jobs and runs them at least once.

    Args:
        url: database with a synchronous driver: `sqlite:///path` or `postgresql+psycopg://...`.
        name: distinguishes the queues of bots that share a database.
        replica: id of this process; constant on SQLite, unique per start on PostgreSQL.
        run: executes a job. It must not raise: an exception ends the job as failed, without a retry.
        timing: intervals.
        limits: when failures of the queue are reported and fatal.
        fence: ends the database connections of a replica that was replaced.
    """

    def __init__(
        self,
        url: sa.URL,
        name: str,
        replica: str,
        run: Run,
        timing: QueueTiming | None = None,
        limits: HealthLimits | None = None,
        fence: ReplicaFence | None = None,
    ) -> None:
        self.replica = replica
        self._name = name
        self._run = run
        self._timing = timing or QueueTiming()
        self.table = WorkflowTable(url, name, fence)
        self.health = QueueHealth(limits)
        self._wakeup = Wakeup(self.health)
        self._runtime = DBOSRuntime(self.table.engine, name, replica, self._wakeup, self.health)
        ids, lane = self.table.columns.workflow_uuid, self.table.columns.queue_partition_key
        self._stored_ids = sa.select(ids).where(ids.in_(sa.bindparam("ids", expanding=True)))
        self._unfinished = (
            sa.select(lane, sa.func.count())
            .where(self.table.is_unfinished, lane.in_(sa.bindparam("lanes", expanding=True)))
            .group_by(lane)
        )
        self._local_jobs: dict[str, set[str]] = {}
        """SQLite only: unfinished jobs enqueued here, by lane. On PostgreSQL another replica may run them."""
        self._running: dict[asyncio.Task[None], Job] = {}
        self._unrecorded: set[str] = set()
        """Jobs that have run while their outcome is not in the database yet."""
        self._idle_claims: dict[Claim, int] = {}
        """Claims that are not running, with the loop iteration in which each was first seen."""

    @property
    def running(self) -> int:
        """Number of jobs running in this process."""
        return len(self._running)

    async def start(self) -> None:
        """Accepts jobs; `work` starts executing them.

        Raises:
            StartupError: the database cannot be used.
        """
        from dbos import DBOS

        async def job(lane: str, priority: int, payload: str) -> None:
            if DBOS.workflow_id is None:
                raise RuntimeError("a job must run as a workflow")
            await self._execute(Job(DBOS.workflow_id, lane, priority, payload))

        await self._runtime.launch(job)

    async def work(self) -> None:
        """Starts executing stored and new jobs."""
        await self._runtime.start_worker(self._timing.poll_s)
        self._wakeup.notify()

    async def put(self, jobs: Sequence[Job]) -> Receipt:
        """Stores jobs in one transaction, committed when this returns, except stored ones and those of full lanes.

        Args:
            jobs: jobs in the order in which they compete for a lane's capacity.

        Raises:
            StorageError: the database is unavailable; no job was stored.
        """
        if not jobs:
            return Receipt()
        # Before the insert, since a job may start and end before it returns.
        self._track(jobs)
        receipt = Receipt()
        try:
            receipt = await asyncio.to_thread(self._insert, jobs)
        except DRIVER_ERRORS as error:
            raise to_storage_error(error) from error
        finally:
            for job in jobs:
                if job.id not in receipt.new:
                    self._untrack(job)
        self._wakeup.notify()
        return receipt

    def _insert(self, jobs: Sequence[Job]) -> Receipt:
        new: set[str] = set()
        rejected: list[Job] = []
        lanes = sorted({job.lane for job in jobs if job.is_limited})
        with self.table.engine.begin() as connection:
            if self.table.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            elif lanes:
                self._lock_lanes(connection, lanes)
            stored = set(connection.scalars(self._stored_ids, {"ids": [job.id for job in jobs]}))
            counts = connection.execute(self._unfinished, {"lanes": lanes}).all() if lanes else ()
            unfinished = Counter({str(lane): int(count) for lane, count in counts})
            for job in jobs:
                if job.id in stored or job.id in new:
                    continue
                if job.is_limited and unfinished[job.lane] > MAX_WAITING:
                    rejected.append(job)
                    continue
                unfinished[job.lane] += 1
                new.add(job.id)
                self._runtime.client.enqueue_in_transaction(
                    connection,
                    {
                        **self._runtime.options,
                        "workflow_id": job.id,
                        "queue_partition_key": job.lane,
                        "priority": job.priority,
                    },
                    job.lane,
                    job.priority,
                    job.payload,
                )
        return Receipt(frozenset(new), tuple(rejected))

    def _lock_lanes(self, connection: sa.Connection, lanes: Sequence[str]) -> None:
        """Until the transaction ends, keeps other writers from counting and filling these lanes; PostgreSQL only."""
        # Sorted, so that no two transactions wait for each other.
        keys = sorted({zlib.crc32(f"{self._name}/{lane}".encode()) - 2**31 for lane in lanes})
        lock = sa.func.pg_advisory_xact_lock(LANE_LOCK, sa.column("key", sa.Integer))
        keyed = sa.select(sa.func.unnest(sa.cast(keys, ARRAY(sa.Integer))).label("key")).subquery()
        connection.execute(sa.select(lock).select_from(keyed))

    async def recover(self, replica: str) -> int:
        """Requeues the jobs of a dead replica; returns how many.

        Raises:
            StorageError: the database is unavailable.
        """
        jobs = await self.table.requeue_replica(replica)
        self._wakeup.notify()
        return jobs

    async def requeue_orphans(self) -> int:
        """Requeues jobs that this process has claimed but does not run; returns how many.

        An orphan arises when the reply to a committed claim is lost, or when the database is unreachable as a job
        starts or its outcome is recorded. Without this scan it would block its lane for ever. Claims that are about to
        start are spared: the worker loop must have completed `CLAIM_ITERATIONS` since the claim was first seen.

        Raises:
            StorageError: the database is unavailable.
        """
        iteration = self._wakeup.iterations
        claims = await self.table.claims(self.replica)
        active = self._runtime.active_ids()
        self._idle_claims = {
            claim: self._idle_claims.get(claim, iteration) for claim in claims if claim.job_id not in active
        }
        orphans = [
            claim
            for claim, since in self._idle_claims.items()
            if claim.job_id in self._unrecorded or iteration >= since + CLAIM_ITERATIONS
        ]
        if not orphans:
            return 0
        jobs = await self.table.requeue_claims(orphans)
        self._wakeup.notify()
        return jobs

    async def purge(self, before: datetime, limit: int = 1000) -> int:
        """Deletes finished jobs enqueued before an instant; returns how many, at most `limit`.

        Raises:
            StorageError: the database is unavailable.
        """
        if ids := await self.table.finished_before(before, limit):
            await self._runtime.delete(ids)
        return len(ids)

    async def drain(self, timeout_s: float) -> None:
        """Starts no more jobs, waits for running ones, and cancels those that exceed the timeout."""
        await self._runtime.stop_worker(self._timing.cancel_grace_s)
        tasks = {*self._running, *self._runtime.tasks()}
        if tasks and timeout_s > 0:
            await asyncio.wait(tasks, timeout=timeout_s)
        unfinished = [task for task in tasks if not task.done()]
        if unfinished:
            log.warning("inbox.jobs_interrupted", jobs=len(unfinished))
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished, timeout=self._timing.cancel_grace_s)

    async def close(self) -> None:
        """Requeues unfinished jobs for other replicas or the next start, and closes the database."""
        try:
            await self._runtime.stop_worker(self._timing.cancel_grace_s)
            await self._hand_back()
        finally:
            await self._runtime.destroy()

    async def _hand_back(self) -> None:
        try:
            await self.recover(self.replica)
        except Exception as error:  # noqa: BLE001 - logged; the next start or another replica recovers them
            log.warning("inbox.requeue_failed", error=type(error).__name__)

    async def _execute(self, job: Job) -> None:
        """Runs a job as the current task, unless only its outcome is missing in the database."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a job must run in a task of its own")
        self._running[task] = job
        # Called once the library has recorded the outcome, which unblocks the lane.
        task.add_done_callback(self._on_done)
        if job.id not in self._unrecorded:
            await self._run(job)
            self._unrecorded.add(job.id)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        job = self._running.pop(task)
        error = None if task.cancelled() else task.exception()
        if not task.cancelled() and error is None:
            self._unrecorded.discard(job.id)
            if self.health.failing:
                self.health.record_success("outcome")
        elif job.id in self._unrecorded:
            log.warning("inbox.outcome_not_recorded", job=job.id)
            if error is not None:
                self.health.record_failure("outcome", error)
        # A local job without a local successor needs no poll.
        if not self._untrack(job) or job.lane in self._local_jobs:
            self._wakeup.notify()

    def _track(self, jobs: Sequence[Job]) -> None:
        if self.table.is_sqlite:
            for job in jobs:
                self._local_jobs.setdefault(job.lane, set()).add(job.id)

    def _untrack(self, job: Job) -> bool:
        """Forgets a job that ended or was not stored; returns whether it was a local one."""
        lane = self._local_jobs.get(job.lane)
        if lane is None or job.id not in lane:
            return False
        lane.discard(job.id)
        if not lane:
            del self._local_jobs[job.lane]
        return True
