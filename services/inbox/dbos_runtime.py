"""Adapter of the DBOS library: the only module that imports it.

DBOS polls; here a wakeup ends the pause of its worker loop, so that jobs start within milliseconds while an idle
process polls once a second. That loop, the unused ones, and the switches of endless retries and of notifications are
private to the library: its minor version is pinned, and tests/services/inbox/test_dbos_contract.py fails when they
change.
"""

# pyright: reportPrivateUsage=false

import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError

from core.db.driver_errors import describe_storage_error
from core.errors import StartupError
from services.inbox.job import Job
from services.inbox.queue_health import QueueHealth

if TYPE_CHECKING:
    from dbos import DBOSClient
    from dbos._dbos import DBOS


log = structlog.get_logger()


class Wakeup(threading.Event):
    """Stop event of the worker loop; `notify` ends a wait for it early. Thread-safe.

    Args:
        on_iteration: called in the thread of the loop after each completed iteration.
    """

    def __init__(self, on_iteration: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._on_iteration = on_iteration
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
        self._on_iteration()
        self._notified.wait(timeout)
        self._notified.clear()
        return self.is_set()


WORKFLOW = "job"
APP_VERSION = "1"
"""Constant, so that jobs of an older release are executed by a newer one."""
EXECUTOR_THREADS = 16
UNUSED_LOOPS = ("queue_thread", "background_jobs_thread", "dynamic_scheduler_loop")
"""Loops of the library for its own queue, for delayed jobs, and for schedules. None of them is used here, and each
polls the database once a second."""
CONCURRENCY = {"sqlite": 5000, "postgresql": 1000}
"""Jobs that a process runs at once. Beyond that they wait, on PostgreSQL for any replica with capacity."""

Execute = Callable[[Job], Awaitable[None]]


class DBOSRuntime:
    """One DBOS instance with one queue; the library allows one instance per process.

    Args:
        engine: opens the database; `destroy` disposes of it.
        queue: name of the queue.
        replica: executor id of this process.
        health: is told about the polls of the worker loop and their errors.
    """

    def __init__(self, engine: sa.Engine, queue: str, replica: str, health: QueueHealth) -> None:
        self.wakeup = Wakeup(health.complete_poll)
        self._health = health
        self._engine = engine
        self._queue = queue
        self._replica = replica
        self._client: DBOSClient
        self._dbos: DBOS
        self._worker: threading.Thread | None = None

    async def launch(self, execute: Execute) -> None:
        """Migrates the tables of DBOS and accepts jobs; nothing runs before `start_worker`.

        Args:
            execute: runs a job in the task of its workflow, on the current event loop.

        Raises:
            StartupError: the database cannot be used.
        """
        _silence_library()
        from dbos import DBOS, DBOSClient
        from dbos import _dbos as dbos_module

        async def job(lane: str, priority: int, payload: str) -> None:
            if DBOS.workflow_id is None:
                raise RuntimeError("a job must run as a workflow")
            await execute(Job(DBOS.workflow_id, lane, priority, payload))

        try:
            self._dbos = DBOS(
                config={
                    "name": "understudy",
                    "system_database_url": self._engine.url.render_as_string(hide_password=False),
                    "system_database_engine": self._engine,
                    "application_version": APP_VERSION,
                    "executor_id": self._replica,
                    "max_executor_threads": EXECUTOR_THREADS,
                    "log_level": "WARNING",
                    "use_listen_notify": False,
                    # Its thread ends when it wakes.
                    "notification_listener_polling_interval_sec": 0.1,
                }
            )
            DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(job)
            # Not by their stop events: the list of these holds that of the recovery after a crash as well.
            for loop in UNUSED_LOOPS:
                setattr(dbos_module, loop, _end_at_once)
            # In a thread: creating an index waits for all transactions, and one of this process could not end while
            # the event loop is blocked.
            await asyncio.to_thread(DBOS.launch)
            # Run jobs on the current event loop.
            self._dbos._background_event_loop.set_main_loop()
            # Otherwise the library retries for ever in shared threads, with pauses of up to 90 s. The orphan scan
            # finds the outcomes that could not be recorded.
            self._dbos._sys_db._retry_connection_errors = False
            # Ends the thread that polls for notifications, which are not used either.
            self._dbos._sys_db._run_background_processes = False
            self._client = DBOSClient(system_database_engine=self._engine)
        except (SQLAlchemyError, OSError) as error:
            await self.destroy()
            raise StartupError(
                f"the inbox cannot be opened in its database: {describe_storage_error(error)}"
            ) from error

    async def start_worker(self, poll_s: float) -> None:
        """Starts the thread that claims jobs, at the latest `poll_s` after they were enqueued elsewhere."""
        from dbos import DBOS
        from dbos._queue import queue_worker_thread

        queue = await asyncio.to_thread(
            lambda: DBOS.register_queue(
                self._queue,
                partition_concurrency=1,
                worker_concurrency=CONCURRENCY[self._engine.url.get_backend_name()],
                polling_interval_sec=poll_s,
                on_conflict="always_update",
            )
        )

        def poll() -> None:
            errors = _LoopErrors(self._health)
            logger = logging.getLogger("dbos")
            logger.addHandler(errors)
            try:
                queue_worker_thread(self.wakeup, self._dbos, queue)
            except Exception as error:  # noqa: BLE001 - reported: the process ends on it
                self._health.end_worker(f"its worker ended: {type(error).__name__}")
            else:
                if not self.wakeup.is_set():
                    self._health.end_worker("its worker ended: the queue is gone from the database")
            finally:
                logger.removeHandler(errors)

        self._worker = threading.Thread(target=poll, name="inbox", daemon=True)
        self._worker.start()
        self.wakeup.notify()

    async def stop_worker(self, timeout_s: float) -> None:
        """Stops claiming jobs. Safe to call twice."""
        self.wakeup.set()
        if self._worker is not None:
            worker, self._worker = self._worker, None
            await asyncio.to_thread(worker.join, timeout_s)
            if worker.is_alive():
                # Blocked on an unreachable database, where it has nothing to claim.
                log.warning("inbox.worker_stuck")

    async def destroy(self) -> None:
        """Stops the library and closes its database connections."""
        from dbos import DBOS

        # In a thread, since the library's threads may need the event loop before they end.
        await asyncio.to_thread(lambda: DBOS.destroy(destroy_registry=True))
        self._engine.dispose()

    def tasks(self) -> set[asyncio.Task[None]]:
        """Returns the tasks of claimed jobs, including those about to start."""
        return set(self._dbos._workflow_tasks)

    def active_ids(self) -> set[str]:
        """Returns the ids of started jobs without a settled outcome."""
        return set(self._dbos._active_workflows_set.activeList())

    def enqueue(self, connection: sa.Connection, job: Job) -> None:
        """Inserts a job in the transaction of a connection."""
        from dbos import WorkflowSerializationFormat

        self._client.enqueue_in_transaction(
            connection,
            {
                "queue_name": self._queue,
                "workflow_name": WORKFLOW,
                "workflow_id": job.id,
                "queue_partition_key": job.lane,
                "priority": job.priority,
                "app_version": APP_VERSION,
                # Instead of the default, pickle: stored data must never execute as code.
                "serialization_type": WorkflowSerializationFormat.PORTABLE,
            },
            job.lane,
            job.priority,
            job.payload,
        )

    def delete(self, job_ids: Sequence[str]) -> None:
        """Deletes jobs with their inputs and outputs. Blocks."""
        self._client.delete_workflows(list(job_ids))


class _LoopErrors(logging.Handler):
    """Passes on the errors of the worker loop, which the library logs in its `except` blocks and then ignores.

    Args:
        health: is told about each error that the current thread logs.
    """

    def __init__(self, health: QueueHealth) -> None:
        super().__init__(logging.WARNING)
        self._health = health
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Reports the exception that is being handled, if the record is the worker loop's."""
        error = sys.exc_info()[1]
        if record.thread == self._thread and error is not None:
            self._health.record_poll_error(error)


def _end_at_once(*_: object) -> None:
    """Stands in the place of an unused loop."""


def _silence_library() -> None:
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        # Without a handler the library writes to the terminal.
        logger.addHandler(logging.NullHandler())
    logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Drops the library's record of each cancelled job: a shutdown logs their number, and some versions quote them."""
    return not str(record.msg).startswith("Asyncio task cancelled")
