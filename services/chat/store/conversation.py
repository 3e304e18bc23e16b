"""Threads of a chat and their turns: values, the queries that read them, and the list of threads."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

import structlog
from pydantic_ai.messages import BinaryContent, CompactionPart, ModelMessage, ModelRequest
from sqlalchemy import ColumnElement, Connection, Row, Select, Table, bindparam, delete, select, tuple_, update

from core.db.database import Database
from core.db.tables import AnswerMessageRow, AttachmentRow, ThreadRow, TurnRow
from core.errors import StorageError
from core.messages import ConversationKey, Surface
from services.chat.store import transcript
from services.chat.store.transcript import UnreadableTranscript, starts_with_prompt
from services.llm.usage import text_tokens
from services.preferences import ChatPreferences

log = structlog.get_logger()

MAX_NAME = 60
"""Characters of a name given by a user; longer ones are cut."""
THREADS = cast("Table", ThreadRow.__table__)
TURNS = cast("Table", TurnRow.__table__)


class TurnStatus(StrEnum):
    """State of a turn."""

    RUNNING = "running"
    """Saved and not answered yet; stays so when the process dies."""
    COMPLETE = "complete"
    STOPPED = "stopped"
    """Stopped by the user; the text so far counts."""
    INTERRUPTED = "interrupted"
    """Cut off by the provider or a shutdown; the text so far counts."""
    FAILED = "failed"
    """No provider answered: the prompt is kept for Retry and not sent to a model again."""
    SUPERSEDED = "superseded"
    """Replaced by another turn."""


ANSWERED = frozenset({TurnStatus.COMPLETE, TurnStatus.STOPPED, TurnStatus.INTERRUPTED})
"""Turns that are part of the history sent to a model."""


@dataclass(frozen=True, slots=True)
class Thread:
    """One conversation of a chat or topic."""

    id: int
    key: ConversationKey
    name: str | None
    created_at: datetime
    persona: str | None = None
    """Stored form; None: the chat's own."""
    names_topic: bool = False
    """True if its topic, in a private chat, takes its name."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A prompt and its answer.

    Args:
        prompt: the user's message with its files; None if the stored form is unreadable.
        replaces_id: the turn that this one replaces once it is answered.
        answer_ids: ids of the messages that hold the answer, oldest first.
        origin: id of the job that it answers, if any.
        question_id: the message with the prompt, if the surface numbers messages.
    """

    id: int
    thread: Thread
    status: TurnStatus
    speaker_id: int
    created_at: datetime
    prompt: ModelRequest | None
    replaces_id: int | None = None
    provider: str | None = None
    model: str | None = None
    answer_ids: tuple[int, ...] = ()
    origin: str | None = None
    question_id: int | None = None

    @property
    def id_to_replace(self) -> int:
        """The turn that a Retry of this one replaces: this one, or the one that it failed to replace itself."""
        is_open = self.status in {TurnStatus.RUNNING, TurnStatus.FAILED}
        return self.replaces_id if is_open and self.replaces_id is not None else self.id


@dataclass(frozen=True, slots=True)
class Remembered:
    """The memory of a thread.

    Args:
        start_id: id of the first turn that is sent whole; 0 for the first one of all.
        summary: of the turns before it; None where there is none.
    """

    start_id: int = 0
    summary: str | None = None

    @property
    def tokens(self) -> int:
        """The estimated tokens of the summary."""
        return text_tokens(self.summary) if self.summary else 0

    @property
    def messages(self) -> list[ModelMessage]:
        """The summary as it is sent, before the first turn."""
        return [ModelRequest([CompactionPart(self.summary)])] if self.summary else []


@dataclass(frozen=True, slots=True)
class Recall:
    """A history as it is sent, and whether it exceeds its budget, so that turns are to be dropped first."""

    remembered: Remembered
    history: Sequence[ModelMessage]
    is_over: bool


@dataclass(frozen=True, slots=True)
class TurnStart:
    """All that is read and saved before a model is asked."""

    preference: ChatPreferences
    recall: Recall
    turn: Turn


def key_conditions(key: ConversationKey) -> list[ColumnElement[bool]]:
    """Returns the conditions that select the threads of a chat or topic."""
    return [
        ThreadRow.surface == key.surface,
        ThreadRow.chat_id == key.chat_id,
        ThreadRow.topic_id == key.topic_id,
    ]


_CURRENT = select(THREADS).where(
    ThreadRow.surface == bindparam("surface"),
    ThreadRow.chat_id == bindparam("chat"),
    ThreadRow.topic_id == bindparam("topic"),
    ThreadRow.is_current,
)


def read_current(connection: Connection, key: ConversationKey) -> Thread | None:
    """Reads the current thread of a chat or topic."""
    of_key = {"surface": key.surface, "chat": key.chat_id, "topic": key.topic_id}
    row = connection.execute(_CURRENT, of_key).first()
    return None if row is None else to_thread(row)


def ensure_current(connection: Connection, database: Database, key: ConversationKey, now: datetime) -> Thread:
    """Reads the current thread of a chat or topic, created if there is none."""
    if (thread := read_current(connection, key)) is not None:
        return thread
    # Another replica may do the same at this moment: the unique index admits one row, and both then read it.
    insert = database.insert(ThreadRow).values(
        surface=key.surface, chat_id=key.chat_id, topic_id=key.topic_id, is_current=True, created_at=now
    )
    connection.execute(insert.on_conflict_do_nothing())
    if (thread := read_current(connection, key)) is None:
        raise StorageError("the database failed: the current thread is gone")
    return thread


def to_thread(row: ThreadRow | Row[Any]) -> Thread:
    """Converts a row."""
    key = ConversationKey(Surface(row.surface), row.chat_id, row.topic_id)
    return Thread(row.id, key, row.name, row.created_at, row.persona, bool(row.names_topic))


def parse_messages(stored: str, turn_id: int) -> list[ModelMessage]:
    """Parses stored messages. Damaged ones are logged and skipped."""
    try:
        messages = transcript.load(stored)
    except UnreadableTranscript as error:
        log.warning("turn.unreadable", turn_id=turn_id, reason=str(error))
        return []
    if not starts_with_prompt(messages):
        log.warning("turn.unreadable", turn_id=turn_id, reason="no prompt")
        return []
    return messages


def read_turn(connection: Connection, query: Select[Any], *, edited: bool = False) -> Turn | None:
    """Reads the first turn of a query of `TURNS`, its prompt with all its files, or the edited one if there is one."""
    row = connection.execute(query).first()
    if row is None:
        return None
    thread = connection.execute(select(THREADS).where(ThreadRow.id == row.thread_id)).one()
    answer = select(AnswerMessageRow.message_id).where(AnswerMessageRow.turn_id == row.id)
    answer_ids = tuple(connection.scalars(answer.order_by(AnswerMessageRow.message_id)))
    prompt = parse_messages((edited and row.edited_prompt) or row.prompt, row.id)
    digests = transcript.digests(prompt)
    if digests:
        files = load_files(connection, [(row.id, digest) for digest in digests])
        prompt = transcript.restore(prompt, files, len(digests))
    return Turn(
        id=row.id,
        thread=to_thread(thread),
        status=TurnStatus(row.status),
        speaker_id=row.speaker_id,
        created_at=row.created_at,
        prompt=prompt[0] if prompt and isinstance(prompt[0], ModelRequest) else None,
        replaces_id=row.replaces_id,
        provider=row.provider,
        model=row.model,
        answer_ids=answer_ids,
        origin=row.origin,
        question_id=row.question_id,
    )


def load_files(connection: Connection, wanted: Sequence[tuple[int, str]]) -> dict[str, BinaryContent]:
    """Reads files by (turn id, digest)."""
    columns = select(AttachmentRow.digest, AttachmentRow.media_type, AttachmentRow.data)
    rows = connection.execute(columns.where(tuple_(AttachmentRow.turn_id, AttachmentRow.digest).in_(wanted)))
    return {row.digest: BinaryContent.narrow_type(BinaryContent(row.data, media_type=row.media_type)) for row in rows}


@dataclass(frozen=True, slots=True)
class ListedThread:
    """A thread, and whether it is the current one."""

    thread: Thread
    is_current: bool


class ThreadList:
    """Manages threads. Ids come from outside, so each method is limited to the threads of its key.

    Each method raises StorageError where the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, key: ConversationKey, limit: int, offset: int = 0) -> list[ListedThread]:
        """Returns threads that have messages, and the current one, newest first."""
        has_turns = select(TurnRow.id).where(TurnRow.thread_id == ThreadRow.id).exists()
        query = (
            select(ThreadRow)
            .where(*key_conditions(key), has_turns | ThreadRow.is_current)
            .order_by(ThreadRow.id.desc())
        )
        async with self._database.reading() as session:
            rows = await session.scalars(query.limit(limit).offset(offset))
            return [ListedThread(to_thread(row), row.is_current) for row in rows]

    async def find(self, key: ConversationKey, thread_id: int) -> ListedThread | None:
        """Returns a thread, or None if it no longer exists."""
        async with self._database.reading() as session:
            row = await session.scalar(select(ThreadRow).where(*key_conditions(key), ThreadRow.id == thread_id))
        return None if row is None else ListedThread(to_thread(row), row.is_current)

    async def switch(self, key: ConversationKey, thread_id: int) -> Thread | None:
        """Makes a thread the current one. Returns None if it no longer exists."""
        async with self._database.session() as session:
            # A concurrent switch waits here for the first row and then sees the result of the first switch.
            all_threads = select(ThreadRow).where(*key_conditions(key)).order_by(ThreadRow.id).with_for_update()
            rows = (await session.scalars(all_threads)).all()
            found = next((row for row in rows if row.id == thread_id), None)
            if found is None:
                return None
            others = update(ThreadRow).where(*key_conditions(key), ThreadRow.is_current, ThreadRow.id != thread_id)
            await session.execute(others.values(is_current=False))
            await session.execute(update(ThreadRow).where(ThreadRow.id == thread_id).values(is_current=True))
            return to_thread(found)

    async def rename(self, key: ConversationKey, thread_id: int, name: str) -> str | None:
        """Renames a thread. Returns the stored name, on one line; None if the thread is gone or the name is empty."""
        line = " ".join(name.split())[:MAX_NAME].rstrip()
        if not line:
            return None
        renaming = update(ThreadRow).where(*key_conditions(key), ThreadRow.id == thread_id).values(name=line)
        async with self._database.session() as session:
            found = await session.scalar(renaming.returning(ThreadRow.id))
        return None if found is None else line

    async def name_unnamed(self, thread_id: int, name: str) -> None:
        """Names a thread that has no name yet."""
        unnamed = update(THREADS).where(THREADS.c.id == thread_id, THREADS.c.name.is_(None))
        await self._database.run(lambda connection: connection.execute(unnamed.values(name=name)) and None)

    async def await_topic_name(self, thread_id: int) -> None:
        """Notes that a topic takes the name of its current thread, once that has one."""
        own = update(THREADS).where(THREADS.c.id == thread_id).values(names_topic=True)
        await self._database.run(lambda connection: connection.execute(own) and None)

    async def set_persona(self, key: ConversationKey, thread_id: int, persona: str | None) -> None:
        """Sets the persona of a thread, in its stored form; None: the chat's own."""
        own = update(ThreadRow).where(*key_conditions(key), ThreadRow.id == thread_id)
        async with self._database.session() as session:
            await session.execute(own.values(persona=persona))

    async def delete(self, key: ConversationKey, thread_id: int) -> bool:
        """Deletes a thread with all its turns. Returns whether it existed.

        After the current thread is deleted, the next message starts a new one.
        """
        deletion = delete(ThreadRow).where(*key_conditions(key), ThreadRow.id == thread_id).returning(ThreadRow.id)
        async with self._database.session() as session:
            return await session.scalar(deletion) is not None
