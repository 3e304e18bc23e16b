"""Values of a conversation, threads and their turns, and the queries that read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

import structlog
from pydantic_ai.messages import BinaryContent, CompactionPart, ModelMessage, ModelRequest
from sqlalchemy import ColumnElement, Connection, Row, Select, Table, select, tuple_

from core.db.tables import AnswerMessageRow, AttachmentRow, ThreadRow, TurnRow
from core.messages import ConversationKey, Surface
from services.chat.store import transcript
from services.chat.store.history import KEPT_ATTACHMENTS, HistoryBudget, cut_turn, pair_tools, starts_with_prompt
from services.chat.store.transcript import UnreadableTranscript
from services.llm.usage import ATTACHMENT_TOKENS, text_tokens
from services.preferences import ChatPreferences

log = structlog.get_logger()

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


_PAGE = 64
"""Turn sizes read by one query; a budget rarely holds more turns."""


@dataclass(frozen=True, slots=True)
class _Selection:
    """The turns that fit: those from `lowest_id` on. `is_cut`: a single turn that must be shortened."""

    lowest_id: int
    is_cut: bool


def key_conditions(key: ConversationKey) -> list[ColumnElement[bool]]:
    """Returns the conditions that select the threads of a chat or topic."""
    return [
        ThreadRow.surface == key.surface,
        ThreadRow.chat_id == key.chat_id,
        ThreadRow.topic_id == key.topic_id,
    ]


def read_current(connection: Connection, key: ConversationKey) -> Thread | None:
    """Reads the current thread of a chat or topic."""
    row = connection.execute(select(THREADS).where(*key_conditions(key), ThreadRow.is_current)).first()
    return None if row is None else to_thread(row)


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
        files = _load_files(connection, [(row.id, digest) for digest in digests])
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


def read_history(
    connection: Connection, thread: Thread, token_budget: int, before_turn: int | None, from_turn: int = 0
) -> list[ModelMessage]:
    """Reads the newest turns that fit the budget, none before `from_turn`; see `TurnStore.history`."""
    while True:
        conditions = [TurnRow.thread_id == thread.id, TurnRow.status.in_(ANSWERED), TurnRow.id >= from_turn]
        if before_turn is not None:
            conditions.append(TurnRow.id < before_turn)
        selection = _select_turns(connection, conditions, token_budget)
        if selection is None:
            return []
        turns = load_turns(connection, [*conditions, TurnRow.id >= selection.lowest_id])
        if turns or not selection.is_cut:
            break
        # The turn that was to be shortened is unreadable; the ones before it are still useful.
        before_turn = selection.lowest_id
    shown_limit = KEPT_ATTACHMENTS
    if selection.is_cut:
        # At most half of the budget goes to files: the conversation about them matters too.
        shown_limit = min(shown_limit, token_budget // 2 // ATTACHMENT_TOKENS)
        turn_id, messages = turns[0]
        shown = min(shown_limit, len(transcript.digests(messages)))
        turns = [(turn_id, cut_turn(messages, token_budget - shown * ATTACHMENT_TOKENS))]
    turns = _with_files(connection, turns, shown_limit)
    return [message for _, messages in reversed(turns) for message in messages]


def _select_turns(
    connection: Connection, conditions: Sequence[ColumnElement[bool]], token_budget: int
) -> _Selection | None:
    """Selects turns by their sizes alone, a page at a time from the newest."""
    budget = HistoryBudget(token_budget)
    lowest_id: int | None = None
    while True:
        sizes = select(TurnRow.id, TurnRow.estimated_tokens, TurnRow.attachment_count).where(*conditions)
        if lowest_id is not None:
            sizes = sizes.where(TurnRow.id < lowest_id)
        page = connection.execute(sizes.order_by(TurnRow.id.desc()).limit(_PAGE)).all()
        for turn_id, tokens, attachments in page:
            if not budget.take(tokens, attachments):
                return _Selection(turn_id, is_cut=True) if lowest_id is None else _Selection(lowest_id, is_cut=False)
            lowest_id = turn_id
        if len(page) < _PAGE:
            return None if lowest_id is None else _Selection(lowest_id, is_cut=False)


def load_turns(
    connection: Connection, conditions: Sequence[ColumnElement[bool]]
) -> list[tuple[int, list[ModelMessage]]]:
    """Reads the messages of turns, newest turn first; unreadable ones are left out."""
    query = select(TurnRow.id, TurnRow.messages).where(*conditions).order_by(TurnRow.id.desc())
    turns: list[tuple[int, list[ModelMessage]]] = []
    for turn_id, stored in connection.execute(query):
        if messages := parse_messages(stored or "[]", turn_id):
            turns.append((turn_id, pair_tools(messages)))
    return turns


def _with_files(
    connection: Connection, turns: list[tuple[int, list[ModelMessage]]], limit: int
) -> list[tuple[int, list[ModelMessage]]]:
    """Inserts the newest files into turns; the bytes of older files are not read."""
    shown: dict[int, int] = {}
    wanted: list[tuple[int, str]] = []
    for turn_id, messages in turns:
        digests = transcript.digests(messages)
        shown[turn_id] = min(limit, len(digests))
        limit -= shown[turn_id]
        wanted += [(turn_id, digest) for digest in digests[len(digests) - shown[turn_id] :]]
    if not wanted:
        return turns
    files = _load_files(connection, wanted)
    return [(turn_id, transcript.restore(messages, files, shown[turn_id])) for turn_id, messages in turns]


def _load_files(connection: Connection, wanted: Sequence[tuple[int, str]]) -> dict[str, BinaryContent]:
    columns = select(AttachmentRow.digest, AttachmentRow.media_type, AttachmentRow.data)
    rows = connection.execute(columns.where(tuple_(AttachmentRow.turn_id, AttachmentRow.digest).in_(wanted)))
    return {row.digest: BinaryContent.narrow_type(BinaryContent(row.data, media_type=row.media_type)) for row in rows}
