"""What a job has said: done again after a crash, it does not say it twice.

A job's messages have places, the first in a chat, the second, and so on. A place is noted when the message stands in
the chat; so the one case that stays open is a process that dies between the two.
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
    """The messages of the job that runs in this context."""

    job_id: str
    places: Counter[int] = field(default_factory=Counter[int])
    noted: dict[tuple[int, int], int] | None = None
    """Message ids by chat and place, from earlier runs; None while nobody asked."""


_speech: ContextVar[_JobMessages | None] = ContextVar("speech", default=None)


class SentMessages:
    """The messages of all jobs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._notes = GroupCommit(database)

    @contextmanager
    def by(self, job_id: str) -> Generator[None]:
        """What is said while this lasts is this job's."""
        token = _speech.set(_JobMessages(job_id))
        try:
            yield
        finally:
            _speech.reset(token)

    async def once(self, chat_id: int, send: Callable[[], Awaitable[int | None]]) -> int | None:
        """Send a message, unless the job has sent it in an earlier run. Outside a job it is simply sent.

        Args:
            chat_id: where.
            send: sends it; its id, or None where it could not be sent.
        """
        speech = _speech.get()
        if speech is None:
            return await send()
        place = speech.places[chat_id]
        speech.places[chat_id] += 1
        noted = speech.noted if speech.noted is not None else await self._noted(speech)
        if (chat_id, place) in noted:
            log.info("inbox.said_before", job=speech.job_id, chat_id=chat_id)
            return noted[chat_id, place]
        message_id = await send()
        if message_id is not None:
            await self._note(speech.job_id, chat_id, place, message_id)
        return message_id

    async def forget(self, before: datetime) -> None:
        """Delete what was said before an instant.

        Raises:
            StorageError: the database does not answer.
        """
        async with self._database.session() as session:
            await session.execute(delete(SentMessageRow).where(SentMessageRow.created_at < before))

    async def _noted(self, speech: _JobMessages) -> dict[tuple[int, int], int]:
        speech.noted = {}
        try:
            async with self._database.reading() as session:
                query = select(SentMessageRow.chat_id, SentMessageRow.place, SentMessageRow.message_id)
                rows = await session.execute(query.where(SentMessageRow.job_id == speech.job_id))
                speech.noted = {(chat_id, place): message_id for chat_id, place, message_id in rows}
        except StorageError as error:
            # Said twice is better than not at all.
            log.warning("inbox.said_not_read", job=speech.job_id, error=str(error))
        return speech.noted

    async def _note(self, job_id: str, chat_id: int, place: int, message_id: int) -> None:
        values = {
            "job_id": job_id,
            "chat_id": chat_id,
            "place": place,
            "message_id": message_id,
            "created_at": self._clock.now(),
        }
        try:
            await self._notes.execute(self._database.insert(SentMessageRow).values(values).on_conflict_do_nothing())
        except StorageError as error:
            log.warning("inbox.said_not_noted", job=job_id, error=str(error))
