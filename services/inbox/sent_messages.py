"""Messages that exist already: idempotent sends of jobs, and a write-ahead journal of the sends of answers.

A retried job sends no message twice. Key: (job, chat, sequence). A message is recorded after Telegram accepted it. The
remaining gap is a process that dies between the two.

The pages of an answer have no such gap. Their send is noted before it is made, and its result in the same step of the
event loop in which Telegram's response is read. Both survive `kill -9`, unlike a transaction that is still waiting for
its commit. The process that resumes the answer continues in a noted message, and looks for one whose send began
without a result.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlalchemy import delete, select

from core.clock import Clock
from core.db.database import Database
from core.db.job_tables import SentMessageRow
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
        self._insert = database.insert(SentMessageRow).on_conflict_do_nothing()

    @contextmanager
    def sent_by(self, job_id: str) -> Generator[None]:
        """Attributes the messages sent within this context to a job."""
        token = _current_job.set(_JobMessages(job_id))
        try:
            yield
        finally:
            _current_job.reset(token)

    async def send_once(self, chat_id: int, send: Callable[[], Awaitable[int | None]]) -> int | None:
        """Sends a message unless an earlier run of the job has sent it. Outside a job it is always sent.

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
        """Deletes records older than an instant.

        Raises:
            StorageError: the database is unavailable.
        """
        async with self._database.session() as session:
            await session.execute(delete(SentMessageRow).where(SentMessageRow.created_at < before))

    async def _load(self, job: _JobMessages) -> dict[tuple[int, int], int]:
        job.recorded = {}
        try:
            columns = select(SentMessageRow.chat_id, SentMessageRow.place, SentMessageRow.message_id)
            query = columns.where(SentMessageRow.job_id == job.job_id)
            rows = await self._database.run(lambda connection: connection.execute(query).all(), reading=True)
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
            # Before other writers: a process that dies before it is written sends the message again.
            await self._database.run(lambda connection: connection.execute(self._insert, values) and None, urgent=True)
        except StorageError as error:
            log.warning("inbox.sent_message_not_recorded", job=job_id, error=str(error))


MAX_FILE_BYTES = 1 << 20
"""Size from which the journal is rewritten without the answers that are delivered."""


@dataclass(frozen=True, slots=True)
class PendingSend:
    """A send of one page of an answer.

    Args:
        floor: newest message id that was known in the chat before the send: the message has a higher one.
        shared_floor: newest id known over all private chats, which share one counter; 0 in a group.
        message_id: id of the message; None if the result is unknown.
    """

    floor: int
    shared_floor: int
    message_id: int | None = None


class SendJournal(Protocol):
    """Notes sends. `begin`, `accept` and `close` return at once and never fail: a lost note may double a message."""

    def begin(self, turn_id: int, page: int, send: PendingSend) -> None:
        """Notes a send before it is made."""
        ...

    def accept(self, turn_id: int, page: int, message_id: int) -> None:
        """Notes that a message was accepted."""
        ...

    def close(self, turn_id: int) -> None:
        """Forgets a turn once its answer is delivered and recorded."""
        ...

    async def load(self, turn_id: int) -> Mapping[int, PendingSend]:
        """Returns the sends of an earlier attempt at a turn, by page; empty where they cannot be read."""
        ...


class FileSendJournal:
    """Journal in a file, for a single process. Nothing is synced: a killed process loses no write, a power cut may.

    Args:
        path: the file, created if missing.
        max_bytes: size from which it is rewritten.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._sends = _read(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._file).st_size
        self._rewrite()

    def begin(self, turn_id: int, page: int, send: PendingSend) -> None:
        """Notes a send before it is made."""
        self._sends[turn_id][page] = send
        self._append([turn_id, page, send.floor, send.shared_floor, send.message_id])

    def accept(self, turn_id: int, page: int, message_id: int) -> None:
        """Notes that a message was accepted."""
        begun = self._sends[turn_id].get(page, PendingSend(0, 0))
        self.begin(turn_id, page, PendingSend(begun.floor, begun.shared_floor, message_id))

    def close(self, turn_id: int) -> None:
        """Forgets a turn once its answer is delivered and recorded."""
        if self._sends.pop(turn_id, None) is not None:
            self._append([turn_id])
        if self._size > self._max_bytes:
            self._rewrite()

    async def load(self, turn_id: int) -> Mapping[int, PendingSend]:
        """Returns the sends of an earlier attempt at a turn, by page."""
        return dict(self._sends.get(turn_id, {}))

    def shut(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def _append(self, entry: list[int | None]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        with suppress(OSError):
            # A full disk: the database, which then fails too, says so.
            self._size += os.write(self._file, line)

    def _rewrite(self) -> None:
        lines = [
            json.dumps([turn_id, page, send.floor, send.shared_floor, send.message_id])
            for turn_id, pages in self._sends.items()
            for page, send in pages.items()
        ]
        draft = self._path.with_suffix(".new")
        try:
            draft.touch(mode=0o600)
            draft.write_text("".join(f"{line}\n" for line in lines))
            draft.replace(self._path)
            opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.close(self._file)
            self._file = opened
            self._size = os.fstat(self._file).st_size
        except OSError as error:
            log.warning("inbox.journal_not_rewritten", error=error.strerror)


def _read(path: Path) -> defaultdict[int, dict[int, PendingSend]]:
    """Reads the journal of the previous process; a line that was cut off is skipped."""
    sends: defaultdict[int, dict[int, PendingSend]] = defaultdict(dict)
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return sends
    for line in lines:
        with suppress(ValueError, TypeError):
            entry: Any = json.loads(line)  # Any: checked by its unpacking
            if len(entry) == 1:
                sends.pop(entry[0], None)
            else:
                turn_id, page, floor, shared_floor, message_id = entry
                sends[turn_id][page] = PendingSend(floor, shared_floor, message_id)
    return sends
