"""The remembered part of each thread: the first turn that is sent whole, and a summary of those before it.

The start stays where it is until the history exceeds its budget; then it moves on until half of the budget is left, so
that a request begins like the one before it and meets the provider's prompt cache. The turns themselves stay.
"""

from collections.abc import Sequence
from typing import cast

from pydantic_ai.messages import ModelMessage
from sqlalchemy import Connection, Table, select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import ThreadMemoryRow, TurnRow
from services.chat.store.conversation import ANSWERED, Recall, Remembered, Thread, load_turns, read_history
from services.chat.store.history import KEPT_ATTACHMENTS
from services.llm.usage import ATTACHMENT_TOKENS

MEMORIES = cast("Table", ThreadMemoryRow.__table__)


def read_recall(connection: Connection, thread: Thread, token_budget: int, before_turn: int | None) -> Recall:
    """Reads the history from a thread's start on; see `ThreadMemories.recall`."""
    row = connection.execute(
        select(MEMORIES.c.start_id, MEMORIES.c.summary).where(MEMORIES.c.thread_id == thread.id)
    ).first()
    remembered = Remembered() if row is None else Remembered(row.start_id, row.summary)
    room = max(token_budget - remembered.tokens, token_budget // 2)
    sizes = _read_sizes(connection, thread.id, remembered.start_id, before_turn)
    history = read_history(connection, thread, room, before_turn, remembered.start_id) if sizes else []
    return Recall(remembered, [*remembered.messages, *history], sum(size for _, size in sizes) > room)


class ThreadMemories:
    """Reads and moves the starts of threads. Each method raises StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def recall(self, thread: Thread, token_budget: int, *, before_turn: int | None = None) -> Recall:
        """Returns the history from the thread's start on.

        Args:
            token_budget: of summary and turns, as `estimate_tokens` counts.
            before_turn: excludes this turn and all later ones, as a Retry needs.
        """
        return await self._database.run(
            lambda connection: read_recall(connection, thread, token_budget, before_turn), reading=True
        )

    async def plan_drop(self, thread: Thread, remembered: Remembered, token_budget: int) -> int | None:
        """Returns the start after a drop: the newest turns within a budget stay, one at least; None for no change."""
        sizes = await self._database.run(
            lambda connection: _read_sizes(connection, thread.id, remembered.start_id, None), reading=True
        )
        left = token_budget
        start: int | None = None
        for turn_id, size in reversed(sizes):
            left -= size
            if left < 0 and start is not None:
                break
            start = turn_id
        return None if start is None or start == sizes[0][0] else start

    async def dropped(self, thread: Thread, from_id: int, to_id: int) -> Sequence[list[ModelMessage]]:
        """Returns the turns from one id up to, and without, another one, newest first."""
        conditions = [
            TurnRow.thread_id == thread.id,
            TurnRow.status.in_(ANSWERED),
            TurnRow.id >= from_id,
            TurnRow.id < to_id,
        ]
        turns = await self._database.run(lambda connection: load_turns(connection, conditions), reading=True)
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


def _read_sizes(
    connection: Connection, thread_id: int, start_id: int, before_turn: int | None
) -> list[tuple[int, int]]:
    """Reads id and tokens of each turn from the start on; only the newest files count, as only they are sent."""
    columns = (TurnRow.id, TurnRow.estimated_tokens, TurnRow.attachment_count)
    query = select(*columns).where(TurnRow.thread_id == thread_id, TurnRow.status.in_(ANSWERED), TurnRow.id >= start_id)
    if before_turn is not None:
        query = query.where(TurnRow.id < before_turn)
    files, sizes = KEPT_ATTACHMENTS, list[tuple[int, int]]()
    for turn_id, tokens, attachments in connection.execute(query.order_by(TurnRow.id.desc())):
        shown = min(files, attachments)
        files -= shown
        sizes.append((turn_id, tokens + shown * ATTACHMENT_TOKENS))
    return sizes[::-1]
