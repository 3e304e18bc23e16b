"""SQL on the documented workflow table of DBOS, on SQLite and PostgreSQL.

A workflow is a job: ENQUEUED, then PENDING while a replica has claimed it, then SUCCESS or ERROR.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from core.db.driver_errors import DRIVER_ERRORS, to_storage_error
from core.db.drivers import compact_file, libpq_timeouts
from core.db.replica_fence import ReplicaFence

BUSY_REPLICAS = "SELECT DISTINCT executor_id FROM dbos.workflow_status WHERE status = 'PENDING' AND executor_id <> %s"
"""Replicas with claimed jobs, except the given one; for psycopg, on PostgreSQL."""

COLUMNS = (
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

INPUT_COLUMNS = ("workflow_uuid", "inputs")

T = TypeVar("T")

UNIXEPOCH_SUBSEC = (3, 42)
"""First SQLite version with the modifier `subsec` of `unixepoch`."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job claimed by a replica; each claim of a job has a token of its own."""

    job_id: str
    token: str


class WorkflowTable:
    """The stored workflows of one queue. Each method raises StorageError when the database is unavailable.

    Args:
        url: database with a synchronous driver.
        queue: queue name; other queues may share the table.
        fence: ends the connections of a replica that was replaced; PostgreSQL only.
    """

    def __init__(self, url: sa.URL, queue: str, fence: ReplicaFence | None = None) -> None:
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(url) if self.is_sqlite else _postgres_engine(url)
        if fence is not None and not self.is_sqlite:
            fence.attach(self.engine)
        self._queue = queue
        self._table = sa.table("workflow_status", *map(_column, COLUMNS), schema=None if self.is_sqlite else "dbos")
        self.columns = self._table.c
        self.is_unfinished = (self.columns.queue_name == queue) & self.columns.status.in_(["ENQUEUED", "PENDING"])
        self._inputs = sa.table("workflow_input", *map(_column, INPUT_COLUMNS), schema=self._table.schema)

    async def claims(self, replica: str) -> list[Claim]:
        """Returns the jobs of this queue that a replica has claimed."""
        columns = self.columns
        claimed = sa.select(columns.workflow_uuid, columns.owner_xid).where(
            columns.queue_name == self._queue,
            columns.status == "PENDING",
            columns.executor_id == replica,
            columns.owner_xid.is_not(None),
        )
        return [Claim(*row) for row in await _in_thread(lambda: self._read(claimed))]

    async def requeue_replica(self, replica: str) -> int:
        """Requeues all jobs claimed by a replica; returns how many."""
        return await _in_thread(lambda: self._requeue([self.columns.executor_id == replica]))

    async def requeue_claims(self, claims: Sequence[Claim]) -> int:
        """Requeues jobs that still have the given claims; returns how many."""
        columns = self.columns
        selections = [[columns.workflow_uuid == claim.job_id, columns.owner_xid == claim.token] for claim in claims]
        return await _in_thread(lambda: self._requeue(*selections))

    async def finished_before(self, before: datetime, limit: int) -> list[str]:
        """Returns ids of finished jobs enqueued before an instant."""
        columns = self.columns
        finished = (
            sa.select(columns.workflow_uuid)
            .where(
                columns.queue_name == self._queue,
                columns.status.in_(["SUCCESS", "ERROR"]),
                columns.created_at < int(before.timestamp() * 1000),
            )
            .limit(limit)
        )
        return [job_id for (job_id,) in await _in_thread(lambda: self._read(finished))]

    async def depth(self) -> int:
        """Returns the number of unfinished jobs, over all replicas."""
        unfinished = sa.select(sa.func.count()).select_from(self._table).where(self.is_unfinished)
        [(jobs,)] = await _in_thread(lambda: self._read(unfinished))
        return jobs

    async def rewrite(self, needle: str, change: Callable[[str, str], tuple[str, str] | None]) -> int:
        """Changes the lanes and payloads of jobs in place; their ids stay, so that no update is handled twice.

        Args:
            needle: digits that the lane or the payload contains.
            change: returns the new lane and payload of a job; None to leave it. The lane of a claimed job stays.

        Returns:
            The number of changed jobs.
        """
        return await _in_thread(lambda: self._rewrite(needle, change))

    async def compact(self) -> None:
        """Rewrites a SQLite file, so that nothing deleted is left in it; without effect on PostgreSQL."""
        if self.is_sqlite:
            await _in_thread(lambda: compact_file(self.engine))

    def _read(self, query: sa.Executable) -> list[tuple[Any, ...]]:  # Any: as the query's columns
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(query)]

    def _rewrite(self, needle: str, change: Callable[[str, str], tuple[str, str] | None]) -> int:
        columns, pattern, changed = self.columns, f"%{needle}%", 0
        inputs = self._inputs.c
        rows = (
            sa.select(columns.workflow_uuid, columns.queue_partition_key, columns.status, inputs.inputs)
            .join(self._inputs, inputs.workflow_uuid == columns.workflow_uuid)
            .where(columns.queue_name == self._queue)
            .where(inputs.inputs.like(pattern) | columns.queue_partition_key.like(pattern))
        )
        with self.engine.begin() as connection:
            for job_id, lane, status, stored in connection.execute(rows).all():
                document = json.loads(stored)
                arguments = document["positionalArgs"]
                new = change(lane, arguments[2])
                if new is None:
                    continue
                kept_lane = lane if status == "PENDING" else new[0]
                document["positionalArgs"] = [kept_lane, arguments[1], new[1]]
                rewritten = json.dumps(document, separators=(",", ":"))
                own = inputs.workflow_uuid == job_id
                connection.execute(sa.update(self._inputs).where(own).values(inputs=rewritten))
                moved = sa.update(self._table).where(columns.workflow_uuid == job_id)
                connection.execute(moved.values(queue_partition_key=kept_lane))
                changed += 1
        return changed

    def _requeue(self, *selections: Sequence[sa.ColumnElement[bool]]) -> int:
        requeue = sa.update(self._table).values(
            status="ENQUEUED", owner_xid=None, started_at_epoch_ms=None, updated_at=int(time.time() * 1000)
        )
        with self.engine.begin() as connection:
            statements = (requeue.where(self.columns.status == "PENDING", *selection) for selection in selections)
            return sum(connection.execute(statement).rowcount for statement in statements)


async def _in_thread(query: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(query)
    except DRIVER_ERRORS as error:
        raise to_storage_error(error) from error


def _column(name: str) -> sa.ColumnClause[Any]:
    return sa.column(name)  # Any: strings, and timestamps in milliseconds


def _postgres_engine(url: sa.URL) -> sa.Engine:
    return sa.create_engine(
        url,
        hide_parameters=True,  # errors would quote users' messages
        pool_size=4,
        max_overflow=4,
        pool_timeout=10,
        pool_pre_ping=True,
        connect_args=libpq_timeouts(url),
    )


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, hide_parameters=True, pool_size=4, max_overflow=4)

    def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # As DBOS does for its own engine: writers queue at BEGIN and cannot deadlock.
        connection.isolation_level = "IMMEDIATE"
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 30000")
        cursor.execute("PRAGMA foreign_keys = ON")
        # Deleted messages are overwritten.
        cursor.execute("PRAGMA secure_delete = ON")
        # A commit takes 1 ms instead of 26.
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    event.listen(engine, "connect", prepare)
    if sqlite3.sqlite_version_info < UNIXEPOCH_SUBSEC:
        event.listen(engine, "connect", _add_unixepoch)
    return engine


def _add_unixepoch(connection: DBAPIConnection, _record: object) -> None:
    """Provides `unixepoch('subsec')`, which DBOS calls on Python 3.12 and newer and SQLite knows from 3.42 on.

    Older ones return NULL for the unknown modifier, and the timestamps of DBOS must not be NULL. No other form of the
    function is used in this database; one with other arguments raises instead of returning a wrong instant.
    """

    def unixepoch(*arguments: object) -> float:
        if arguments != ("subsec",):
            raise ValueError(f"unixepoch{arguments} is not supported here")
        return round(time.time(), 3)

    cast("sqlite3.Connection", connection).create_function("unixepoch", -1, unixepoch)
