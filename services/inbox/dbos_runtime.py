"""Starts and stops the DBOS library.

Its worker loop, the loops that are not used, and the switches of endless retries and of notifications are private to
the library: its minor version is pinned, and tests/services/inbox/test_dbos_contract.py fails when they change.
"""

# pyright: reportPrivateUsage=false

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError

from core.db.driver_errors import DRIVER_ERRORS, describe_storage_error, to_storage_error
from core.errors import StartupError
from services.inbox.queue_health import QueueHealth

if TYPE_CHECKING:
    from dbos import DBOSClient, EnqueueOptions
    from dbos._dbos import DBOS


log = structlog.get_logger()


WORKFLOW = "job"
APP_VERSION = "1"
"""Constant, so that jobs of an older release are executed by a newer one."""
EXECUTOR_THREADS = 16
UNUSED_LOOPS = ("queue_thread", "background_jobs_thread", "dynamic_scheduler_loop")
"""Loops of the library for its own queue, for delayed jobs, and for schedules. None of them is used here, and each
polls the database once a second."""
CONCURRENCY = {"sqlite": 5000, "postgresql": 1000}
"""Jobs that a process runs at once. Beyond that they wait, on PostgreSQL for any replica with capacity."""

Execute = Callable[[str, int, str], Coroutine[None, None, None]]
"""Runs the job of the current workflow, given its lane, priority and payload."""


class DBOSRuntime:
    """One DBOS instance with one queue; the library allows one instance per process.

    Args:
        engine: opens the database; `destroy` disposes of it.
        queue: name of the queue.
        replica: executor id of this process.
        stop: stop event of the worker loop, which pauses in its `wait`.
        health: is told about the errors of the worker loop.
    """

    client: "DBOSClient"
    options: "EnqueueOptions"
    """Those of every job."""

    def __init__(self, engine: sa.Engine, queue: str, replica: str, stop: threading.Event, health: QueueHealth) -> None:
        self._stop = stop
        self._health = health
        self._engine = engine
        self._queue = queue
        self._replica = replica
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
        from dbos import DBOS, DBOSClient, WorkflowSerializationFormat
        from dbos import _dbos as dbos_module

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
            DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(execute)
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
            self.client = DBOSClient(system_database_engine=self._engine)
            self.options = {
                "queue_name": self._queue,
                "workflow_name": WORKFLOW,
                "app_version": APP_VERSION,
                # Instead of the default, pickle: stored data must never execute as code.
                "serialization_type": WorkflowSerializationFormat.PORTABLE,
            }
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
                queue_worker_thread(self._stop, self._dbos, queue)
            except Exception as error:  # noqa: BLE001 - reported: the process ends on it
                self._health.end_worker(f"its worker ended: {type(error).__name__}")
            else:
                if not self._stop.is_set():
                    self._health.end_worker("its worker ended: the queue is gone from the database")
            finally:
                logger.removeHandler(errors)

        self._worker = threading.Thread(target=poll, name="inbox", daemon=True)
        self._worker.start()

    async def stop_worker(self, timeout_s: float) -> None:
        """Stops claiming jobs. Safe to call twice."""
        self._stop.set()
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

    async def delete(self, job_ids: Sequence[str]) -> None:
        """Deletes jobs with their inputs and outputs.

        Raises:
            StorageError: the database is unavailable.
        """
        try:
            await asyncio.to_thread(self.client.delete_workflows, list(job_ids))
        except DRIVER_ERRORS as error:
            raise to_storage_error(error) from error


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
