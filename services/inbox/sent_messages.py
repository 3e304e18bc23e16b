"""Idempotent sends: a retried job sends no message twice. Key: (job, chat, sequence).

A message is recorded after Telegram accepted it. The remaining gap is a process that dies between the two.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from sqlalchemy import delete, select

from core.clock import Clock
from core.db.database import Database
from core.db.group_commit import GroupCommit
from core.db.tables import SentMessageRow
from core.errors import StorageError

log = structlog.get_logger()


@dataclass(slots=True)
class _JobMessages:
    """Messages of the job that runs in this context."""

    job_id: str
    sequence: Counter[int] = field(default_factory=Counter[int])
    """Next sequence number by chat."""
    recorded: dict[tuple[int, int], int] | None = None
    """Message ids of earlier runs by (chat, sequence); None until loaded."""


_current_job: ContextVar[_JobMessages | None] = ContextVar("current_job", default=None)


class SentMessages:
    """Records the messages that jobs send."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._writes = GroupCommit(database)

    @contextmanager
    def sent_by(self, job_id: str) -> Generator[None]:
        """Attribute the messages sent within this context to a job."""
        token = _current_job.set(_JobMessages(job_id))
        try:
            yield
        finally:
            _current_job.reset(token)

    async def send_once(self, chat_id: int, send: Callable[[], Awaitable[int | None]]) -> int | None:
        """Send a message unless an earlier run of the job has sent it. Outside a job it is always sent.

        Args:
            chat_id: chat that counts the sequence.
            send: returns the message id, or None if the message could not be sent.
        """
        job = _current_job.get()
        if job is None:
            return await send()
        key = (chat_id, job.sequence[chat_id])
        job.sequence[chat_id] += 1
        recorded = job.recorded if job.recorded is not None else await self._load(job)
        if key in recorded:
            log.info("inbox.send_skipped", job=job.job_id, chat_id=chat_id)
            return recorded[key]
        message_id = await send()
        if message_id is not None:
            await self._record(job.job_id, *key, message_id)
        return message_id

    async def purge(self, before: datetime) -> None:
        """Delete records older than an instant.

        Raises:
            StorageError: the database is unavailable.
        """
        async with self._database.session() as session:
            await session.execute(delete(SentMessageRow).where(SentMessageRow.created_at < before))

    async def _load(self, job: _JobMessages) -> dict[tuple[int, int], int]:
        job.recorded = {}
        try:
            async with self._database.reading() as session:
                query = select(SentMessageRow.chat_id, SentMessageRow.place, SentMessageRow.message_id)
                rows = await session.execute(query.where(SentMessageRow.job_id == job.job_id))
                job.recorded = {(chat_id, place): message_id for chat_id, place, message_id in rows}
        except StorageError as error:
            # A duplicate message is better than none.
            log.warning("inbox.sent_messages_unavailable", job=job.job_id, error=str(error))
        return job.recorded

    async def _record(self, job_id: str, chat_id: int, sequence: int, message_id: int) -> None:
        values = {
            "job_id": job_id,
            "chat_id": chat_id,
            "place": sequence,
            "message_id": message_id,
            "created_at": self._clock.now(),
        }
        try:
            await self._writes.execute(self._database.insert(SentMessageRow).values(values).on_conflict_do_nothing())
        except StorageError as error:
            log.warning("inbox.sent_message_not_recorded", job=job_id, error=str(error))
