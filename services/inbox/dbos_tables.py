"""SQL on the documented workflow table of DBOS, on SQLite and PostgreSQL.

A workflow is a job: ENQUEUED, then PENDING while a replica has claimed it, then SUCCESS or ERROR.
"""

import json
import sqlite3
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from core.db.drivers import compact_file, libpq_timeouts
from core.db.replica_fence import ReplicaFence
from services.inbox.job import Job, Receipt

MAX_WAITING = 20
"""Limited jobs that may wait in a lane behind the running one."""
LANE_LOCK = 0x6C616E
"""Class id of the advisory locks that serialise enqueuing into a lane; replicas.py uses two others."""
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

Enqueue = Callable[[sa.Connection, Job], None]

UNIXEPOCH_SUBSEC = (3, 42)
"""First SQLite version with the modifier `subsec` of `unixepoch`."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job claimed by a replica; each claim of a job has a token of its own."""

    job_id: str
    token: str


class WorkflowTable:
    """Reads and writes the workflows of one queue. Methods block: call them in a thread.

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
        self._columns = self._table.c
        self._inputs = sa.table("workflow_input", *map(_column, INPUT_COLUMNS), schema=self._table.schema)

    def insert(self, jobs: Sequence[Job], enqueue: Enqueue) -> Receipt:
        """Enqueues jobs in one transaction, except stored ones and those of full lanes.

        Args:
            jobs: jobs in the order in which they compete for a lane's capacity.
            enqueue: inserts one job on the connection.
        """
        new: set[str] = set()
        rejected: list[Job] = []
        with self.engine.begin() as connection:
            lanes = {job.lane for job in jobs if job.is_limited}
            self._lock_lanes(connection, lanes)
            ids = self._columns.workflow_uuid
            stored = set(connection.scalars(sa.select(ids).where(ids.in_([job.id for job in jobs]))))
            unfinished = self._count_by_lane(connection, lanes)
            for job in jobs:
                if job.id in stored or job.id in new:
                    continue
                if job.is_limited and unfinished[job.lane] > MAX_WAITING:
                    rejected.append(job)
                    continue
                unfinished[job.lane] += 1
                new.add(job.id)
                enqueue(connection, job)
        return Receipt(frozenset(new), tuple(rejected))

    def claims(self, replica: str) -> list[Claim]:
        """Returns the jobs of this queue that a replica has claimed."""
        columns = self._columns
        claimed = sa.select(columns.workflow_uuid, columns.owner_xid).where(
            columns.queue_name == self._queue,
            columns.status == "PENDING",
            columns.executor_id == replica,
            columns.owner_xid.is_not(None),
        )
        with self.engine.connect() as connection:
            return [Claim(job_id, token) for job_id, token in connection.execute(claimed)]

    def requeue_replica(self, replica: str) -> int:
        """Requeues all jobs claimed by a replica; returns how many."""
        return self._requeue([self._columns.executor_id == replica])

    def requeue_claims(self, claims: Sequence[Claim]) -> int:
        """Requeues jobs that still have the given claims; returns how many."""
        columns = self._columns
        return self._requeue(
            *([columns.workflow_uuid == claim.job_id, columns.owner_xid == claim.token] for claim in claims)
        )

    def finished_before(self, before: datetime, limit: int) -> list[str]:
        """Returns ids of finished jobs enqueued before an instant."""
        columns = self._columns
        finished = (
            sa.select(columns.workflow_uuid)
            .where(
                columns.queue_name == self._queue,
                columns.status.in_(["SUCCESS", "ERROR"]),
                columns.created_at < int(before.timestamp() * 1000),
            )
            .limit(limit)
        )
        with self.engine.connect() as connection:
            return list(connection.scalars(finished))

    def depth(self) -> int:
        """Returns the number of unfinished jobs, over all replicas."""
        unfinished = sa.select(sa.func.count()).select_from(self._table).where(*self._is_unfinished())
        with self.engine.connect() as connection:
            return connection.scalar(unfinished) or 0

    def rewrite(self, needle: str, change: Callable[[str, str], tuple[str, str] | None]) -> int:
        """Changes the lanes and payloads of jobs in place; their ids stay, so that no update is handled twice.

        Args:
            needle: digits that the lane or the payload contains.
            change: returns the new lane and payload of a job; None to leave it. The lane of a claimed job stays.
        """
        columns, pattern, changed = self._columns, f"%{needle}%", 0
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

    def compact(self) -> None:
        """Rewrites a SQLite file, so that nothing deleted is left in it; without effect on PostgreSQL."""
        if self.is_sqlite:
            compact_file(self.engine)

    def _requeue(self, *selections: Sequence[sa.ColumnElement[bool]]) -> int:
        requeue = sa.update(self._table).values(
            status="ENQUEUED", owner_xid=None, started_at_epoch_ms=None, updated_at=int(time.time() * 1000)
        )
        with self.engine.begin() as connection:
            statements = (requeue.where(self._columns.status == "PENDING", *selection) for selection in selections)
            return sum(connection.execute(statement).rowcount for statement in statements)

    def _lock_lanes(self, connection: sa.Connection, lanes: set[str]) -> None:
        """Until the transaction ends, keep other writers from counting and filling these lanes."""
        if self.is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif lanes:
            # Sorted, so that no two transactions wait for each other.
            keys = sorted({zlib.crc32(f"{self._queue}/{lane}".encode()) - 2**31 for lane in lanes})
            lock = sa.func.pg_advisory_xact_lock(LANE_LOCK, sa.column("key", sa.Integer))
            keyed = sa.select(sa.func.unnest(sa.cast(keys, ARRAY(sa.Integer))).label("key")).subquery()
            connection.execute(sa.select(lock).select_from(keyed))

    def _count_by_lane(self, connection: sa.Connection, lanes: set[str]) -> Counter[str]:
        if not lanes:
            return Counter()
        lane = self._columns.queue_partition_key
        counts = sa.select(lane, sa.func.count()).where(*self._is_unfinished(), lane.in_(lanes)).group_by(lane)
        return Counter({str(name): int(count) for name, count in connection.execute(counts)})

    def _is_unfinished(self) -> list[sa.ColumnElement[bool]]:
        return [self._columns.queue_name == self._queue, self._columns.status.in_(["ENQUEUED", "PENDING"])]


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
