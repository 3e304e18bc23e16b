"""Journal of sends in PostgreSQL, for replicas: written without waiting, so that it outlives its process.

A statement that has left the process is carried out even if the process is killed a moment later. It is sent in
the pipeline mode of libpq on a connection of its own, and its result is not awaited.
"""

import asyncio
from collections.abc import Mapping

import psycopg
import structlog
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn
from sqlalchemy import select

from core.background import Outage
from core.clock import Clock
from core.db.database import Database
from core.db.job_tables import PendingSendRow
from core.errors import StorageError
from services.inbox.lease import ReplicaLease
from services.inbox.sent_messages import PendingSend

log = structlog.get_logger()

RECONNECT_S = 1.0
CONNECT_S = 5.0

_BEGIN = b"""
INSERT INTO pending_sends (turn_id, page, floor, shared_floor) VALUES ($1, $2, $3, $4)
ON CONFLICT (turn_id, page)
DO UPDATE SET floor = excluded.floor, shared_floor = excluded.shared_floor, message_id = NULL
"""
_ACCEPT = b"UPDATE pending_sends SET message_id = $3 WHERE turn_id = $1 AND page = $2"
_CLOSE = b"DELETE FROM pending_sends WHERE turn_id = $1"


class PostgresSendJournal:
    """Journal that replicas share. While its connection is down, sends are not noted.

    Args:
        conninfo: libpq connection string.
        name: `application_name` of the connection: the replica's, so that it ends with the replica.
        database: reads the notes of an earlier attempt.
        clock: measures pauses.
        lease: right of this replica to act; without it nothing is noted.
    """

    def __init__(self, conninfo: str, name: str, database: Database, clock: Clock, lease: ReplicaLease) -> None:
        self._lease = lease
        self._conninfo = conninfo
        self._name = name
        self._database = database
        self._clock = clock
        self._pgconn: PGconn | None = None
        self._broken = asyncio.Event()

    async def run(self) -> None:
        """Keeps the connection open until cancelled."""
        outage = Outage()
        while True:
            try:
                async with asyncio.timeout(CONNECT_S):
                    connection = await psycopg.AsyncConnection.connect(
                        self._conninfo,
                        autocommit=True,
                        application_name=self._name,
                        # A commit that PostgreSQL's own crash may lose for a moment; that of this process cannot.
                        options="-c synchronous_commit=off",
                        keepalives_idle=5,
                        tcp_user_timeout=10_000,
                    )
                outage.end()
                async with connection:
                    await self._serve(connection.pgconn)
            except (psycopg.Error, OSError, TimeoutError) as error:
                if outage.begins():
                    log.info("inbox.journal_disconnected", error=type(error).__name__)
            await self._clock.sleep(RECONNECT_S)

    def begin(self, turn_id: int, page: int, send: PendingSend) -> None:
        """Notes a send before it is made."""
        self._send(_BEGIN, turn_id, page, send.floor, send.shared_floor)

    def accept(self, turn_id: int, page: int, message_id: int) -> None:
        """Notes that a message was accepted."""
        self._send(_ACCEPT, turn_id, page, message_id)

    def close(self, turn_id: int) -> None:
        """Forgets a turn once its answer is delivered and recorded."""
        self._send(_CLOSE, turn_id)

    async def load(self, turn_id: int) -> Mapping[int, PendingSend]:
        """Returns the sends of an earlier attempt at a turn, by page; empty where they cannot be read."""
        try:
            async with self._database.reading() as session:
                rows = await session.scalars(select(PendingSendRow).where(PendingSendRow.turn_id == turn_id))
                return {row.page: PendingSend(row.floor, row.shared_floor, row.message_id) for row in rows}
        except StorageError as error:
            log.warning("inbox.journal_unavailable", error=str(error))
            return {}

    async def _serve(self, pgconn: PGconn) -> None:
        loop = asyncio.get_running_loop()
        pgconn.nonblocking = 1
        pgconn.enter_pipeline_mode()
        self._broken.clear()
        loop.add_reader(pgconn.socket, self._drain, pgconn)
        socket = pgconn.socket
        self._pgconn = pgconn
        try:
            await self._broken.wait()
        finally:
            self._pgconn = None
            loop.remove_reader(socket)

    def _send(self, statement: bytes, *arguments: int) -> None:
        pgconn = self._pgconn
        if pgconn is None or not self._lease.is_held:
            return
        try:
            pgconn.send_query_params(statement, [str(argument).encode() for argument in arguments])
            pgconn.pipeline_sync()
            pgconn.flush()
        except psycopg.Error:
            self._break()

    def _drain(self, pgconn: PGconn) -> None:
        """Reads and drops results, so that PostgreSQL does not wait for them to be read."""
        try:
            pgconn.flush()
            pgconn.consume_input()
            was_end = False
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None and was_end:
                    # One end follows each statement; another one means that nothing is left.
                    break
                was_end = result is None
                if result is not None and result.status == ExecStatus.FATAL_ERROR:
                    state = result.error_field(DiagnosticField.SQLSTATE) or b""
                    log.info("inbox.journal_refused", sqlstate=state.decode())
        except psycopg.Error:
            self._break()

    def _break(self) -> None:
        self._pgconn = None
        self._broken.set()
