"""Threads, and their history as it is sent to a model: the newest turns that fit a budget, from a remembered start on.

The remembered part of a thread is the first turn that is sent whole, and a summary of those before it. The start stays
where it is until the history exceeds its budget; then it moves on until half of the budget is left, so that a request
begins like the one before it and meets the provider's prompt cache. The turns themselves stay.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, cast

import structlog
from pydantic import ValidationError
from pydantic_ai.messages import (
    BaseToolCallPart,
    BaseToolReturnPart,
    CompactionPart,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    UserPromptPart,
)
from sqlalchemy import Connection, Row, Table, bindparam, select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import ThreadMemoryRow, ThreadRow, TurnRow
from core.errors import StorageError
from core.messages import ConversationKey, Surface
from services.chat.store import transcript
from services.chat.store.conversation import ANSWERED, THREADS, Thread
from services.chat.store.excerpt import cut_turn
from services.chat.store.transcript import load_files, pair_tools
from services.llm.usage import ATTACHMENT_TOKENS, text_tokens

log = structlog.get_logger()

MEMORIES = cast("Table", ThreadMemoryRow.__table__)
KEPT_ATTACHMENTS = 4
"""The newest files of a conversation that are sent to a model again."""

_REMEMBERED = select(MEMORIES.c.start_id, MEMORIES.c.summary).where(MEMORIES.c.thread_id == bindparam("thread"))
_ANSWERED = (
    TurnRow.thread_id == bindparam("thread"),
    TurnRow.status.in_(ANSWERED),
    TurnRow.id >= bindparam("first"),
    TurnRow.id < bindparam("before"),
)
_SIZES = (
    select(TurnRow.id, TurnRow.estimated_tokens, TurnRow.attachment_count).where(*_ANSWERED).order_by(TurnRow.id.desc())
)
_MESSAGES = select(TurnRow.id, TurnRow.messages).where(*_ANSWERED).order_by(TurnRow.id.desc())
_NO_TURN = (1 << 63) - 1
"""An id that is larger than any."""


class TurnSize(NamedTuple):
    """Size of a turn: estimated tokens of its text, and number of its files."""

    id: int
    estimated_tokens: int
    attachment_count: int


@dataclass(frozen=True, slots=True)
class Remembered:
    """The memory of a thread.

    Args:
        start_id: id of the first turn that is sent whole; 0 for the first one of all.
        summary: summary of the turns before it; None if there is none.
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


class ThreadMemories:
    """Reads and moves the starts of threads. Each method raises StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def recall(self, thread: Thread, token_budget: int, *, before_turn: int | None = None) -> Recall:
        """Returns the history from the thread's start on.

        Args:
            token_budget: tokens of summary and turns, as `estimate_tokens` counts.
            before_turn: excludes this turn and all later ones, as a Retry needs.
        """
        return await self._database.run(
            lambda connection: read_recall(connection, thread, token_budget, before_turn), reading=True
        )

    async def plan_drop(self, thread: Thread, remembered: Remembered, token_budget: int) -> int | None:
        """Returns the start after a drop: the newest turns within a budget stay, one at least; None for no change."""
        sizes = await self._database.run(
            lambda connection: read_sizes(connection, thread.id, remembered.start_id), reading=True
        )
        left = token_budget
        start: int | None = None
        for turn_id, cost in turn_costs(sizes):
            left -= cost
            if left < 0 and start is not None:
                break
            start = turn_id
        return None if start is None or start == sizes[-1].id else start

    async def dropped(self, thread: Thread, from_id: int, to_id: int) -> Sequence[list[ModelMessage]]:
        """Returns the turns from one id up to, and without, another one, newest first."""
        turns = await self._database.run(
            lambda connection: _read_turns(connection, thread.id, from_id, to_id), reading=True
        )
        return [messages for _, messages in turns]

    async def move(self, thread: Thread, to: Remembered) -> bool:
        """Moves the start of a thread, with the new summary. Returns whether it is the thread's first move."""
        values = {"start_id": to.start_id, "summary": to.summary, "updated_at": self._clock.now()}
        insert = self._database.insert(ThreadMemoryRow).values(thread_id=thread.id, **values)
        # Another replica may have moved it further.
        moved = insert.on_conflict_do_update(
            index_elements=["thread_id"], set_=values, where=ThreadMemoryRow.start_id < to.start_id
        )
        known = select(MEMORIES.c.thread_id).where(MEMORIES.c.thread_id == thread.id)

        def work(connection: Connection) -> bool:
            is_first = connection.scalar(known) is None
            connection.execute(moved)
            return is_first

        return await self._database.run(work)


def read_recall(connection: Connection, thread: Thread, token_budget: int, before_turn: int | None) -> Recall:
    """Reads the history from a thread's start on; see `ThreadMemories.recall`."""
    row = connection.execute(_REMEMBERED, {"thread": thread.id}).first()
    remembered = Remembered() if row is None else Remembered(row.start_id, row.summary)
    room = max(token_budget - remembered.tokens, token_budget // 2)
    sizes = read_sizes(connection, thread.id, remembered.start_id, before_turn)
    history = read_history(connection, thread.id, sizes, room)
    return Recall(remembered, [*remembered.messages, *history], sum(cost for _, cost in turn_costs(sizes)) > room)


def read_sizes(
    connection: Connection, thread_id: int, start_id: int = 0, before_turn: int | None = None
) -> Sequence[TurnSize]:
    """Reads the sizes of the answered turns from the start on, newest first."""
    rows = connection.execute(_SIZES, _turn_range(thread_id, start_id, before_turn))
    return list(map(TurnSize._make, rows))


def _turn_range(thread_id: int, first: int, before: int | None) -> dict[str, int]:
    return {"thread": thread_id, "first": first, "before": _NO_TURN if before is None else before}


def turn_costs(sizes: Sequence[TurnSize]) -> Iterator[tuple[int, int]]:
    """Yields id and tokens of each turn, newest first; only the newest files count, as only they are sent."""
    files = KEPT_ATTACHMENTS
    for turn_id, tokens, attachments in sizes:
        shown = min(files, attachments)
        files -= shown
        yield turn_id, tokens + shown * ATTACHMENT_TOKENS


def count_fitting(sizes: Sequence[TurnSize], token_budget: int) -> int:
    """Returns how many of the newest turns fit a budget."""
    for count, (_, cost) in enumerate(turn_costs(sizes)):
        token_budget -= cost
        if token_budget < 0:
            return count
    return len(sizes)


def read_history(
    connection: Connection, thread_id: int, sizes: Sequence[TurnSize], token_budget: int
) -> list[ModelMessage]:
    """Reads the newest whole turns that fit the budget.

    If the newest turn alone exceeds the budget, it is shortened. Only the returned turns are read. The history begins
    with a user's prompt, or is empty.

    Args:
        sizes: the turns to choose from, newest first, without a gap.
    """
    while sizes:
        fitting = sizes[: count_fitting(sizes, token_budget)]
        kept = fitting or sizes[:1]
        turns = _read_turns(connection, thread_id, kept[-1].id, kept[0].id + 1)
        shown_limit = KEPT_ATTACHMENTS
        if turns and not fitting:
            # At most half of the budget goes to files: the conversation about them matters too.
            shown_limit = min(shown_limit, token_budget // 2 // ATTACHMENT_TOKENS)
            turn_id, messages = turns[0]
            shown = min(shown_limit, len(transcript.digests(messages)))
            turns = [(turn_id, cut_turn(messages, token_budget - shown * ATTACHMENT_TOKENS))]
        if turns or fitting:
            if any(size.attachment_count for size in kept):
                turns = _with_files(connection, turns, shown_limit)
            return [message for _, messages in reversed(turns) for message in messages]
        # The turn that was to be shortened is unreadable; the ones before it are still useful.
        sizes = sizes[1:]
    return []


def _read_turns(
    connection: Connection, thread_id: int, first: int, before: int
) -> list[tuple[int, list[ModelMessage]]]:
    """Reads the messages of turns from one id up to, and without, another one, newest first, readable ones only."""
    turns: list[tuple[int, list[ModelMessage]]] = []
    for turn_id, stored in connection.execute(_MESSAGES, _turn_range(thread_id, first, before)):
        if messages := parse_messages(stored or "[]", turn_id):
            turns.append((turn_id, messages if all(map(_has_no_tools, messages)) else pair_tools(messages)))
    return turns


def _has_no_tools(message: ModelMessage) -> bool:
    """Returns whether a message has content, and no tool calls or results."""
    return bool(message.parts) and not any(
        isinstance(part, BaseToolCallPart | BaseToolReturnPart) for part in message.parts
    )


def parse_messages(stored: str, turn_id: int) -> list[ModelMessage]:
    """Parses stored messages, with files as text. Damaged ones are logged, without their text, and skipped."""
    try:
        messages = ModelMessagesTypeAdapter.validate_json(stored)
    except ValidationError as error:
        reason = f"{error.error_count()} mistakes in stored messages"
    else:
        if starts_with_prompt(messages):
            return messages
        reason = "no prompt"
    log.warning("turn.unreadable", turn_id=turn_id, reason=reason)
    return []


def starts_with_prompt(messages: Sequence[ModelMessage]) -> bool:
    """Returns whether the first message is a user's prompt."""
    return bool(messages) and any(isinstance(part, UserPromptPart) for part in messages[0].parts)


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
    files = load_files(connection, wanted)
    return [(turn_id, transcript.restore(messages, files, shown[turn_id])) for turn_id, messages in turns]
