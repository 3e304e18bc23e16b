"""The queue under the inbox: DBOS on SQLite or PostgreSQL. The only module that knows it.

A job is a workflow of DBOS, its lane a partition of one queue with room for a single workflow at a time over all
replicas. DBOS polls; here its own worker loop is woken by a bell instead, so that work begins within milliseconds and
an idle process looks once a second. That loop, and a switch against its endless retries, are private to the library:
its minor version is pinned, and tests/services/inbox/test_queue_contract.py says when they change.
"""

import asyncio
import logging
import threading
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from core.db.database import libpq_timeouts
from core.db.driver_errors import describe_storage_error, translate_errors
from core.errors import StartupError
from services.inbox.job import Job

if TYPE_CHECKING:
    from dbos import DBOSClient, WorkflowSerializationFormat
    from dbos._dbos import DBOS

log = structlog.get_logger()

WORKFLOW = "job"
VERSION = "1"
"""Constant: work that an older release left behind is taken up by the newer one."""
POLL_S = 1.0
"""How often a process looks for work although no bell rang: another replica's, or what became free there."""
ROUNDS = 2
"""After so many rounds of the worker loop a claim that it made has been started: the one it is in, and a whole one."""
THREADS = 16
WAITING_LIMIT = 20
"""How many jobs of a lane may wait behind the one that is being done."""
LAST_WORDS_S = 5.0
"""How long jobs that were cancelled at a shutdown may take to come to their end."""
MOST_AT_ONCE = {"sqlite": 5000, "postgresql": 1000}
"""Jobs at once in one process. Beyond that they wait, and with PostgreSQL for whichever replica has room."""

LANE = 0x6C616E
"""The first half of the advisory locks' names under which replicas count a lane; ALIVE and LEAD are the replicas'."""

_COLUMNS = (
    "workflow_uuid",
    "queue_name",
    "queue_partition_key",
    "status",
    "executor_id",
    "owner_xid",
    "created_at",
    "updated_at",
    "started_at_epoch_ms",
)
"""What is used of DBOS's documented table of workflows."""

Run = Callable[[Job], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Claim:
    """A job that a process has taken out of the queue; claimed again it is another claim."""

    job_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of jobs that were put.

    Args:
        new: the ids of those that nobody had put before.
        refused: those that were turned away, because too many of their lane wait.
    """

    new: frozenset[str] = frozenset()
    refused: tuple[Job, ...] = ()


class JobQueue:
    """Stores jobs and does them.

    Args:
        url: the database, with its synchronous driver: `sqlite:///path` or `postgresql+psycopg://...`.
        name: tells this queue from those of other bots in the same database.
        replica: who this process is; on SQLite the same at each start, with PostgreSQL another one each time.
        run: does a job. It must not raise: what it raises ends the job as failed, and is not tried again.
    """

    def __init__(self, url: sa.URL, name: str, replica: str, run: Run) -> None:
        self._name = name
        self.replica = replica
        self._url = url
        self._run = run
        self._engine = _engine(url)
        self._is_sqlite = url.get_backend_name() == "sqlite"
        self._rows = sa.table("workflow_status", *map(_column, _COLUMNS), schema=None if self._is_sqlite else "dbos")
        self._bell = Wakeup()
        self._put_here: dict[str, set[str]] = {}
        """By lane the jobs that were put here and have not ended; with PostgreSQL another replica may do them."""
        self._running: dict[asyncio.Task[None], Job] = {}
        self._done: set[str] = set()
        """Jobs that were done and whose end is not noted in the database yet."""
        self._idle: dict[_Claim, int] = {}
        """Claims that are not being done, each with the round of the worker loop in which it was first seen so."""
        self._client: DBOSClient
        self._dbos: DBOS
        self._worker: threading.Thread | None = None

    @property
    def running(self) -> int:
        """How many jobs are being done here."""
        return len(self._running)

    async def start(self) -> None:
        """Bring the queue's tables up to date and open them for `put`; nothing is done before `work`.

        Raises:
            StartupError: the database cannot be used.
        """
        logger = logging.getLogger("dbos")
        if not logger.handlers:
            # Otherwise the library writes to the terminal by itself.
            logger.addHandler(logging.NullHandler())
            logger.addFilter(_speaks_of_no_message)
        from dbos import DBOS, DBOSClient  # noqa: PLC0415 - 0.5 s that the console need not wait for

        try:
            self._dbos = DBOS(
                config={
                    "name": "understudy",
                    "system_database_url": self._url.render_as_string(hide_password=False),
                    "system_database_engine": self._engine,
                    "application_version": VERSION,
                    "executor_id": self.replica,
                    "max_executor_threads": THREADS,
                    "log_level": "WARNING",
                    "use_listen_notify": False,
                    # Nothing here waits for the library's notifications: this thread only sleeps, and a stop waits for
                    # it to wake.
                    "notification_listener_polling_interval_sec": 0.1,
                }
            )
            DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(self._workflow())
            DBOS.listen_queues([])
            # Not in this thread: an index that it makes waits for every transaction, and one of this process could not
            # come to its end while the event loop stands still.
            await asyncio.to_thread(DBOS.launch)
            # Jobs run on the loop that runs here.
            self._dbos._background_event_loop.set_main_loop()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            # It would try again for ever, asleep in threads that everybody here shares, with pauses of up to 90 s. What
            # it could not note is found among the strays.
            self._dbos._sys_db._retry_connection_errors = False  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            self._client = DBOSClient(system_database_engine=self._engine)
        except (SQLAlchemyError, OSError) as error:
            await self._let_go()
            raise StartupError(
                f"the inbox cannot be opened in its database: {describe_storage_error(error)}"
            ) from error

    async def work(self) -> None:
        """Begin to do what is there and what comes."""
        from dbos import DBOS  # noqa: PLC0415 - loaded by now
        from dbos._queue import queue_worker_thread  # noqa: PLC0415 - private, see the top of the module

        queue = await asyncio.to_thread(
            lambda: DBOS.register_queue(
                self._name,
                partition_concurrency=1,
                worker_concurrency=MOST_AT_ONCE["sqlite" if self._is_sqlite else "postgresql"],
                polling_interval_sec=POLL_S,
                on_conflict="always_update",
            )
        )
        arguments = (self._bell, self._dbos, queue)
        self._worker = threading.Thread(target=queue_worker_thread, args=arguments, name="inbox", daemon=True)
        self._worker.start()
        self._bell.ring()

    async def put(self, jobs: Sequence[Job]) -> Receipt:
        """Store jobs, all or none of them, on the disk when this returns.

        Raises:
            StorageError: the database does not take them.
        """
        if not jobs:
            return Receipt()
        # Before they are there, since one may be begun, and done, before this goes on.
        self._expect(jobs)
        receipt = Receipt()
        try:
            with translate_errors():
                receipt = await asyncio.to_thread(self._insert, jobs)
        finally:
            for job in jobs:
                if job.id not in receipt.new:
                    self._forget(job)
        self._bell.ring()
        return receipt

    async def recover(self, replica: str) -> int:
        """Put what a dead replica was doing back into the queue; how much that was.

        Raises:
            StorageError: the database does not answer.
        """
        return await self._put_back([self._rows.c.executor_id == replica])

    async def put_back_strays(self) -> int:
        """Put back what this process has claimed and does not do; how much that was.

        The claim was committed although its answer was lost, or the database was gone when the job was to be started or
        its end to be noted: nobody would ever do it, nor what waits behind it. A claim that is on its way to be started
        is told from that by the worker loop, which has come round since it was seen first.

        Raises:
            StorageError: the database does not answer.
        """
        rounds = self._bell.rounds
        claims = await self._claims()
        active = set(self._dbos._active_workflows_set.activeList())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self._idle = {claim: self._idle.get(claim, rounds) for claim in claims if claim.job_id not in active}
        strays = [
            claim for claim, since in self._idle.items() if claim.job_id in self._done or rounds >= since + ROUNDS
        ]
        rows = self._rows.c
        return await self._put_back(
            *([rows.workflow_uuid == claim.job_id, rows.owner_xid == claim.token] for claim in strays)
        )

    async def _claims(self) -> list["_Claim"]:
        rows = self._rows.c
        claimed = sa.select(rows.workflow_uuid, rows.owner_xid).where(
            rows.queue_name == self._name,
            rows.status == "PENDING",
            rows.executor_id == self.replica,
            rows.owner_xid.is_not(None),
        )

        def read() -> list[_Claim]:
            with self._engine.connect() as connection:
                return [_Claim(job_id, token) for job_id, token in connection.execute(claimed)]

        with translate_errors():
            return await asyncio.to_thread(read)

    async def _put_back(self, *which: Sequence[sa.ColumnElement[bool]]) -> int:
        if not which:
            return 0
        back = sa.update(self._rows).values(
            status="ENQUEUED", owner_xid=None, started_at_epoch_ms=None, updated_at=int(time.time() * 1000)
        )

        def update() -> int:
            with self._engine.begin() as connection:
                claimed = (back.where(self._rows.c.status == "PENDING", *conditions) for conditions in which)
                return sum(connection.execute(statement).rowcount for statement in claimed)

        with translate_errors():
            jobs = await asyncio.to_thread(update)
        self._bell.ring()
        return jobs

    async def purge(self, before: datetime, limit: int = 1000) -> int:
        """Delete finished jobs that were put before an instant; how many, at most `limit` a call.

        Raises:
            StorageError: the database does not answer.
        """
        rows = self._rows
        old = (
            sa.select(rows.c.workflow_uuid)
            .where(
                # Others may keep theirs in the same tables.
                rows.c.queue_name == self._name,
                rows.c.status.in_(["SUCCESS", "ERROR"]),
                rows.c.created_at < int(before.timestamp() * 1000),
            )
            .limit(limit)
        )

        def delete() -> int:
            with self._engine.connect() as connection:
                ids = list(connection.scalars(old))
            if ids:
                self._client.delete_workflows(ids)
            return len(ids)

        with translate_errors():
            return await asyncio.to_thread(delete)

    async def depth(self) -> int:
        """How many jobs wait or are being done, over all replicas.

        Raises:
            StorageError: the database does not answer.
        """
        unfinished = sa.select(sa.func.count()).select_from(self._rows).where(*self._unfinished())

        def count() -> int:
            with self._engine.connect() as connection:
                return connection.scalar(unfinished) or 0

        with translate_errors():
            return await asyncio.to_thread(count)

    async def drain(self, timeout_s: float) -> None:
        """Begin nothing more, let what runs finish for so long, and hand the rest back for another process."""
        await self._stop_worker()
        # Those too that were claimed a moment ago and are just about to begin.
        tasks: set[asyncio.Task[None]] = {*self._running, *self._dbos._workflow_tasks}  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if tasks and timeout_s > 0:
            await asyncio.wait(tasks, timeout=timeout_s)
        rest = [task for task in tasks if not task.done()]
        if rest:
            log.warning("inbox.handed_back", jobs=len(rest))
            for task in rest:
                task.cancel()
            await asyncio.wait(rest, timeout=LAST_WORDS_S)

    async def close(self) -> None:
        """Let go of the database; what is not finished is for the next process, or for another replica at once."""
        await self._stop_worker()
        try:
            await self.recover(self.replica)
        except Exception as error:  # noqa: BLE001 - reported; the next start, or a peer, takes it up all the same
            log.warning("inbox.not_handed_back", error=type(error).__name__)
        await self._let_go()

    async def _let_go(self) -> None:
        from dbos import DBOS  # noqa: PLC0415 - loaded by now

        # In a thread, since the library's own threads may want the loop once more before they end.
        await asyncio.to_thread(lambda: DBOS.destroy(destroy_registry=True))
        self._engine.dispose()

    def _workflow(self) -> Callable[[str, int, str], Awaitable[None]]:
        async def job(lane: str, priority: int, payload: str) -> None:
            from dbos import DBOS  # noqa: PLC0415 - loaded by now

            this = asyncio.current_task()
            if this is None or DBOS.workflow_id is None:
                raise RuntimeError("a job runs as a workflow, in a task of its own")
            doing = Job(DBOS.workflow_id, lane, priority, payload)
            self._running[this] = doing
            # Called when the library has noted how the job ended, and so whether the next of its lane may begin.
            this.add_done_callback(self._ended)
            if doing.id not in self._done:
                await self._run(doing)
                self._done.add(doing.id)

        return job

    def _ended(self, task: asyncio.Task[None]) -> None:
        job = self._running.pop(task)
        if not task.cancelled() and task.exception() is None:
            self._done.discard(job.id)
        elif job.id in self._done:
            log.warning("inbox.end_not_noted", job=job.id)
        # One that was put here and has no successor that was put here needs no look.
        if not self._forget(job) or job.lane in self._put_here:
            self._bell.ring()

    def _expect(self, jobs: Sequence[Job]) -> None:
        if self._is_sqlite:
            for job in jobs:
                self._put_here.setdefault(job.lane, set()).add(job.id)

    def _forget(self, job: Job) -> bool:
        """A job has ended, or was not stored; whether it was one that had been put here."""
        lane = self._put_here.get(job.lane)
        if lane is None or job.id not in lane:
            return False
        lane.discard(job.id)
        if not lane:
            del self._put_here[job.lane]
        return True

    async def _stop_worker(self) -> None:
        self._bell.set()
        if self._worker is not None:
            worker, self._worker = self._worker, None
            await asyncio.to_thread(worker.join, LAST_WORDS_S)
            if worker.is_alive():
                # It waits for a database that is gone, and finds nothing to do there.
                log.warning("inbox.worker_hangs")

    def _insert(self, jobs: Sequence[Job]) -> Receipt:
        new: set[str] = set()
        refused: list[Job] = []
        with self._engine.begin() as connection:
            lanes = {job.lane for job in jobs if job.is_limited}
            self._keep_others_out(connection, lanes)
            ids = self._rows.c.workflow_uuid
            stored = set(connection.scalars(sa.select(ids).where(ids.in_([job.id for job in jobs]))))
            unfinished = self._count(connection, lanes)
            for job in jobs:
                if job.id in stored or job.id in new:
                    continue
                if job.is_limited and unfinished[job.lane] > WAITING_LIMIT:
                    refused.append(job)
                    continue
                unfinished[job.lane] += 1
                new.add(job.id)
                self._client.enqueue_in_transaction(
                    connection,
                    {
                        "queue_name": self._name,
                        "workflow_name": WORKFLOW,
                        "workflow_id": job.id,
                        "queue_partition_key": job.lane,
                        "priority": job.priority,
                        "app_version": VERSION,
                        # Not the default, pickle: what a database holds must not run as code.
                        "serialization_type": _portable(),
                    },
                    job.lane,
                    job.priority,
                    job.payload,
                )
        return Receipt(frozenset(new), tuple(refused))

    def _keep_others_out(self, connection: sa.Connection, lanes: set[str]) -> None:
        """Until the transaction ends nobody else counts these lanes, and puts one too many."""
        if self._is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif lanes:
            # In one order for everybody, so that no two wait for each other.
            names = sorted({zlib.crc32(f"{self._name}/{lane}".encode()) - 2**31 for lane in lanes})
            lock = sa.func.pg_advisory_xact_lock(LANE, sa.column("name", sa.Integer))
            named = sa.select(sa.func.unnest(sa.cast(names, ARRAY(sa.Integer))).label("name")).subquery()
            connection.execute(sa.select(lock).select_from(named))

    def _count(self, connection: sa.Connection, lanes: set[str]) -> Counter[str]:
        if not lanes:
            return Counter()
        lane = self._rows.c.queue_partition_key
        counted = sa.select(lane, sa.func.count()).where(*self._unfinished(), lane.in_(lanes)).group_by(lane)
        return Counter({str(name): int(count) for name, count in connection.execute(counted)})

    def _unfinished(self) -> list[sa.ColumnElement[bool]]:
        return [self._rows.c.queue_name == self._name, self._rows.c.status.in_(["ENQUEUED", "PENDING"])]


class Wakeup(threading.Event):
    """The stop event of the worker loop, whose wait ends early when somebody rings."""

    def __init__(self) -> None:
        super().__init__()
        self._rung = threading.Event()
        self.rounds = 0
        """How often the loop has come round."""

    def ring(self) -> None:
        """Have the loop look for work now, or once more if it is looking."""
        self._rung.set()

    def set(self) -> None:
        """Have the loop stop."""
        super().set()
        self._rung.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Return when it rang, when the loop is to stop (True), or when the time is over."""
        self.rounds += 1
        self._rung.wait(timeout)
        self._rung.clear()
        return self.is_set()


def _column(name: str) -> sa.ColumnClause[Any]:
    return sa.column(name)  # Any: strings, but for an instant in milliseconds


def _portable() -> "WorkflowSerializationFormat":
    from dbos import WorkflowSerializationFormat  # noqa: PLC0415 - loaded by now

    return WorkflowSerializationFormat.PORTABLE


def _speaks_of_no_message(record: logging.LogRecord) -> bool:
    """Leave out what the library says of a cancelled job: it quotes the job, and with it the message."""
    return not str(record.msg).startswith("Asyncio task cancelled")


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        # What errors quote would be what people wrote.
        return sa.create_engine(
            url,
            hide_parameters=True,
            pool_size=4,
            max_overflow=4,
            pool_timeout=10,
            pool_pre_ping=True,
            connect_args=libpq_timeouts(url),
        )
    engine = sa.create_engine(url, hide_parameters=True, pool_size=4, max_overflow=4)

    def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # As the library does where it makes the engine: writers queue at their beginning and cannot deadlock.
        connection.isolation_level = "IMMEDIATE"  # pyright: ignore[reportAttributeAccessIssue]  # sqlite3's own
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 30000")
        cursor.execute("PRAGMA foreign_keys = ON")
        # Without it a commit takes 26 ms and not 1.
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    event.listen(engine, "connect", prepare)
    return engine
