"""Broadcasts: a message of an operator to everyone who has a private chat with the bot.

A draft is counted, then confirmed. `broadcast_runner.py` sends it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, or_, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.operator_tables import BroadcastRow
from core.db.tables import ThreadRow
from core.messages import Surface
from services.admin.audit import Audit, AuditDetail

log = structlog.get_logger()

BATCH = 500
"""Number of recipients read per query."""
MAX_KEPT = 50
"""Maximum number of stored broadcasts; older ones are deleted with the next draft."""


class BroadcastState(StrEnum):
    """State of a broadcast."""

    DRAFT = "draft"
    RUNNING = "running"
    STOPPED = "stopped"
    """An operator stopped it; it can be resumed."""
    DONE = "done"


class BroadcastResult(StrEnum):
    """Result of sending a broadcast to one chat; the values are the columns that count them."""

    SENT = "sent"
    BLOCKED = "blocked"
    """The person has blocked the bot, or the chat is gone."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A broadcast.

    Args:
        formatting: formatting of the surface that delivers it; opaque here.
        total: chats that were counted with the draft.
        card: chat and message that show its progress.
        language: IETF tag of the operator's language.
    """

    id: int
    actor_id: int
    text: str
    formatting: str | None
    state: BroadcastState
    total: int
    sent: int
    blocked: int
    failed: int
    last_chat_id: int
    card: tuple[int, int] | None
    language: str | None
    created_at: datetime
    changed_at: datetime

    @property
    def served(self) -> int:
        """Chats that the message was sent to, or that were tried."""
        return self.sent + self.blocked + self.failed


class Broadcasts:
    """Stores broadcasts. Methods raise StorageError where the database fails.

    Args:
        accepts: whether a chat, by its id, may get broadcasts: its person is not banned, for example.
    """

    def __init__(self, database: Database, clock: Clock, audit: Audit, accepts: Callable[[int], bool]) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit
        self._accepts = accepts
        self.started = asyncio.Event()
        """Set when this process starts a broadcast."""

    async def draft(self, actor_id: int, text: str, *, formatting: str | None, language: str | None) -> Broadcast:
        """Stores a broadcast that is not confirmed yet, and counts its chats."""
        now, total = self._clock.now(), await self._count()
        values = {
            "actor_id": actor_id, "text": text, "formatting": formatting, "language": language,
            "state": BroadcastState.DRAFT.value, "total": total, "sent": 0, "blocked": 0, "failed": 0,
            "last_chat_id": 0, "created_at": now, "changed_at": now,
        }  # fmt: skip
        insert = self._database.insert(BroadcastRow).values(values).returning(BroadcastRow.id)
        settled = BroadcastRow.state != BroadcastState.RUNNING
        oldest = select(BroadcastRow.id).order_by(BroadcastRow.id.desc()).offset(MAX_KEPT).limit(1).scalar_subquery()

        def store(connection: Connection) -> int:
            number = connection.execute(insert).scalar_one()
            connection.execute(delete(BroadcastRow).where(BroadcastRow.id <= oldest, settled))
            return number

        number = await self._database.run(store)
        return Broadcast(
            number, actor_id, text, formatting, BroadcastState.DRAFT, total, 0, 0, 0, 0, None, language, now, now
        )

    async def get(self, number: int) -> Broadcast | None:
        """Returns a broadcast."""
        found = await self._read(BroadcastRow.id == number, 1)
        return found[0] if found else None

    async def newest(self, limit: int) -> Sequence[Broadcast]:
        """Returns the newest broadcasts, newest first."""
        return await self._read(BroadcastRow.id > 0, limit)

    async def start(self, number: int, actor_id: int, card: tuple[int, int] | None = None) -> Broadcast | None:
        """Sends a draft, or the rest of one that was stopped. Returns None if it is neither or goes to no chat."""
        values: dict[str, object] = {"state": BroadcastState.RUNNING.value, "owner": None, "owned_until": None}
        if card is not None:
            values |= {"card_chat_id": card[0], "card_message_id": card[1]}
        can_start = (BroadcastState.DRAFT, BroadcastState.STOPPED)
        if not await self._change(number, can_start, values, BroadcastRow.total > 0):
            return None
        broadcast = await self._acted("start", number, actor_id)
        self.started.set()
        return broadcast

    async def stop(self, number: int, actor_id: int) -> Broadcast | None:
        """Stops a broadcast; messages that are on their way arrive. Returns None if it does not run."""
        stopped = {"state": BroadcastState.STOPPED.value}
        if not await self._change(number, (BroadcastState.RUNNING,), stopped):
            return None
        return await self._acted("stop", number, actor_id)

    async def discard(self, number: int) -> bool:
        """Deletes a draft. Returns False if there is none."""
        drop = delete(BroadcastRow).where(BroadcastRow.id == number, BroadcastRow.state == BroadcastState.DRAFT)
        return await self._database.run(lambda connection: connection.execute(drop).rowcount > 0)

    async def recipients(self, after: int, limit: int = BATCH) -> tuple[Sequence[int], int | None]:
        """Returns the next recipients, and the cursor behind them; None at the end."""
        query = (
            select(ThreadRow.chat_id)
            .where(ThreadRow.surface == Surface.TELEGRAM, ThreadRow.chat_id > max(after, 0))
            .distinct()
            .order_by(ThreadRow.chat_id)
            .limit(limit)
        )
        found = await self._database.run(lambda connection: list(connection.execute(query).scalars()), reading=True)
        return [chat_id for chat_id in found if self._accepts(chat_id)], found[-1] if found else None

    async def claim(self, owner: str, lease_s: float) -> Broadcast | None:
        """Takes the oldest running broadcast that no living process owns."""
        now = self._clock.now()
        is_free = or_(BroadcastRow.owned_until.is_(None), BroadcastRow.owned_until < now, BroadcastRow.owner == owner)
        oldest = (
            select(BroadcastRow.id)
            .where(BroadcastRow.state == BroadcastState.RUNNING, is_free)
            .order_by(BroadcastRow.id)
            .limit(1)
        )
        take = (
            update(BroadcastRow)
            .where(BroadcastRow.id == oldest.scalar_subquery(), is_free)
            .values(owner=owner, owned_until=now + timedelta(seconds=lease_s))
            .returning(BroadcastRow.id)
        )
        # There is rarely one, and a read does not wait for writers.
        if await self._database.run(lambda connection: connection.execute(oldest).scalar(), reading=True):
            number = await self._database.run(lambda connection: connection.execute(take).scalar())
            return await self.get(number) if number is not None else None
        return None

    async def renew(self, number: int, owner: str, lease_s: float) -> None:
        """Extends the lease of the process that sends a broadcast."""
        values = {"owned_until": self._clock.now() + timedelta(seconds=lease_s)}
        await self._change(number, tuple(BroadcastState), values, BroadcastRow.owner == owner)

    async def record(self, number: int, owner: str, chat_id: int, receipt: BroadcastResult) -> bool:
        """Records that a chat was served. Returns whether this process should continue."""
        column = getattr(BroadcastRow, receipt.value)
        change = (
            update(BroadcastRow)
            .where(BroadcastRow.id == number, BroadcastRow.owner == owner)
            .values({receipt.value: column + 1, "last_chat_id": chat_id, "changed_at": self._clock.now()})
            .returning(BroadcastRow.state)
        )
        state = await self._database.run(lambda connection: connection.execute(change).scalar())
        return state == BroadcastState.RUNNING

    async def finish(self, number: int, owner: str) -> None:
        """Marks a broadcast as done."""
        values: dict[str, object] = {
            "state": BroadcastState.DONE.value, "owner": None, "owned_until": None, "last_chat_id": 0,
        }  # fmt: skip
        await self._change(number, (BroadcastState.RUNNING,), values, BroadcastRow.owner == owner)

    async def _change(
        self,
        number: int,
        states: Sequence[BroadcastState],
        values: dict[str, Any],  # Any: columns of any type
        *where: ColumnElement[bool],
    ) -> bool:
        known = and_(BroadcastRow.id == number, BroadcastRow.state.in_(states), *where)
        change = update(BroadcastRow).where(known).values({**values, "changed_at": self._clock.now()})
        return await self._database.run(lambda connection: connection.execute(change).rowcount > 0)

    async def _acted(self, act: str, number: int, actor_id: int) -> Broadcast | None:
        broadcast = await self.get(number)
        detail = None
        if broadcast is not None:
            detail = AuditDetail("served", {"served": broadcast.served, "total": broadcast.total})
        log.info("admin.acted", action=f"broadcast.{act}", target=str(number), actor_id=actor_id)
        await self._audit.try_record(actor_id, f"broadcast.{act}", str(number), detail)
        return broadcast

    async def _count(self) -> int:
        total, after = 0, 0
        while True:
            chats, last = await self.recipients(after)
            total += len(chats)
            if last is None:
                return total
            after = last

    async def _read(self, where: ColumnElement[bool], limit: int) -> Sequence[Broadcast]:
        query = select(BroadcastRow.__table__).where(where).order_by(BroadcastRow.id.desc()).limit(limit)
        rows = await self._database.run(lambda connection: connection.execute(query).all(), reading=True)
        return [_to_broadcast(row) for row in rows]


def _to_broadcast(row: Row[Any]) -> Broadcast:
    card = (row.card_chat_id, row.card_message_id) if row.card_message_id is not None else None
    return Broadcast(
        row.id, row.actor_id, row.text, row.formatting, BroadcastState(row.state), row.total, row.sent, row.blocked,
        row.failed, row.last_chat_id, card, row.language, row.created_at, row.changed_at,
    )  # fmt: skip
