"""Stores calls of tools with side effects: pending for a day, confirmed by their user, executed at most once."""

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import delete, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.job_tables import ToolCallRow, ToolGrantRow
from core.db.tables import storable
from core.errors import StorageError
from core.messages import ConversationKey, Surface, user_ref

log = structlog.get_logger()


class CallStatus(StrEnum):
    """State of a call."""

    ASKED = "asked"
    ALLOWED = "allowed"
    DENIED = "denied"
    BEGUN = "begun"
    """Running, or interrupted by a crash."""
    DONE = "done"


class Decision(StrEnum):
    """The user's answer."""

    ONCE = "once"
    ALWAYS = "always"
    """For this tool of this server and this user, in every chat."""
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool with side effects.

    Args:
        origin: id of the job whose answer requested the call.
        result: set once the call is done.
    """

    id: int
    origin: str
    key: ConversationKey
    user_id: int
    server: str
    tool: str
    arguments: dict[str, Any]
    status: CallStatus
    result: str | None = None


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Limits of calls.

    Args:
        answer_within: time for the user's decision.
        keep: retention of finished and undecided calls.
        asked_at_once: pending confirmations of one answer.
        purge_s: interval of purges.
    """

    answer_within: timedelta = timedelta(days=1)
    keep: timedelta = timedelta(days=7)
    asked_at_once: int = 3
    purge_s: float = 3600.0


class TooManyCalls(Exception):
    """An answer asks its user about as many calls as it may."""


class ToolCalls:
    """Stores calls and permissions. Each method raises StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock, limits: CallLimits | None = None) -> None:
        self._database = database
        self._clock = clock
        self._limits = limits or CallLimits()

    async def open(
        self,
        origin: str,
        key: ConversationKey,
        user_id: int,
        server: str,
        tool: str,
        arguments: dict[str, Any],
        status: CallStatus,
    ) -> tuple[ToolCall, bool]:
        """Stores a call. Returns it, and whether it is new: a repeated job, or a Retry, finds the call of the first.

        A question that is stale by then is asked anew.

        Raises:
            TooManyCalls: it is a question, and the answer asks enough of them.
        """
        text = storable(json.dumps(arguments, sort_keys=True, ensure_ascii=False))
        digest = hashlib.sha256(f"{server}\0{tool}\0{text}".encode()).hexdigest()[:32]
        values = {
            "key": f"{origin}#{digest}",
            "origin": origin,
            "surface": key.surface,
            "chat_id": key.chat_id,
            "topic_id": key.topic_id,
            "user_id": user_id,
            "server": server,
            "tool": tool,
            "arguments": text,
            "status": status,
            "created_at": self._clock.now(),
        }
        insert = self._database.insert(ToolCallRow).values(values).on_conflict_do_nothing(index_elements=["key"])
        async with self._database.session() as session:
            if status is CallStatus.ASKED:
                # A model calls several tools at once.
                await self._database.lock(session, f"calls:{origin}")
                rows = await session.execute(
                    select(ToolCallRow.key, ToolCallRow.status).where(ToolCallRow.origin == origin)
                )
                known = {row.key: row.status for row in rows}
                asked = list(known.values()).count(CallStatus.ASKED)
                if values["key"] not in known and asked >= self._limits.asked_at_once:
                    raise TooManyCalls
            new_id = await session.scalar(insert.returning(ToolCallRow.id))
            row = (await session.scalars(select(ToolCallRow).where(ToolCallRow.key == values["key"]))).one()
            if row.status == CallStatus.ASKED and row.created_at <= self._clock.now() - self._limits.answer_within:
                row.created_at = self._clock.now()
            return _to_call(row), new_id is not None

    async def is_granted(self, surface: Surface, user_id: int, server: str, tool: str) -> bool:
        """Returns whether a user has allowed a tool for good."""
        query = select(ToolGrantRow.tool).where(
            ToolGrantRow.user == user_ref(surface, user_id), ToolGrantRow.server == server, ToolGrantRow.tool == tool
        )
        async with self._database.reading() as session:
            return await session.scalar(query) is not None

    async def asked(self, origin: str) -> list[ToolCall]:
        """Returns the calls that an answer asks for and that are not decided, the oldest first."""
        query = (
            select(ToolCallRow)
            .where(ToolCallRow.origin == origin, ToolCallRow.status == CallStatus.ASKED)
            .order_by(ToolCallRow.id)
        )
        async with self._database.reading() as session:
            return [_to_call(row) for row in await session.scalars(query)]

    async def find(self, call_id: int) -> ToolCall | None:
        """Returns a call."""
        async with self._database.reading() as session:
            row = await session.get(ToolCallRow, call_id)
            return _to_call(row) if row is not None else None

    async def decide(self, call: ToolCall, decision: Decision) -> bool:
        """Stores the answer of the user. Returns False if the call was decided before, or too long ago."""
        status = CallStatus.DENIED if decision is Decision.DENY else CallStatus.ALLOWED
        is_open = (
            ToolCallRow.id == call.id,
            ToolCallRow.status == CallStatus.ASKED,
            ToolCallRow.created_at > self._clock.now() - self._limits.answer_within,
        )
        async with self._database.session() as session:
            change = update(ToolCallRow).where(*is_open).values(status=status).returning(ToolCallRow.id)
            if await session.scalar(change) is None:
                return False
            if decision is Decision.ALWAYS:
                grant = {
                    "user": user_ref(call.key.surface, call.user_id),
                    "server": call.server,
                    "tool": call.tool,
                    "created_at": self._clock.now(),
                }
                await session.execute(self._database.insert(ToolGrantRow).values(grant).on_conflict_do_nothing())
        log.info("tool.decided", call=call.id, server=call.server, user_id=call.user_id, decision=decision)
        return True

    async def begin(self, call_id: int) -> bool:
        """Notes that an allowed call is carried out from now on. Returns False if another job has begun it."""
        is_allowed = (ToolCallRow.id == call_id, ToolCallRow.status == CallStatus.ALLOWED)
        change = update(ToolCallRow).where(*is_allowed).values(status=CallStatus.BEGUN).returning(ToolCallRow.id)
        async with self._database.session() as session:
            return await session.scalar(change) is not None

    async def finish(self, call_id: int, result: str) -> None:
        """Stores the result of a call."""
        change = update(ToolCallRow).where(ToolCallRow.id == call_id).values(status=CallStatus.DONE, result=result)
        async with self._database.session() as session:
            await session.execute(change)

    async def run_purge(self) -> None:
        """Deletes old calls every hour until cancelled."""
        while True:
            await self._clock.sleep(self._limits.purge_s)
            try:
                await self.purge()
            except StorageError as error:
                log.warning("tool.purge_failed", error=str(error))

    async def purge(self) -> None:
        """Deletes old calls."""
        async with self._database.session() as session:
            before = self._clock.now() - self._limits.keep
            await session.execute(delete(ToolCallRow).where(ToolCallRow.created_at < before))


def _to_call(row: ToolCallRow) -> ToolCall:
    return ToolCall(
        row.id,
        row.origin,
        ConversationKey(Surface(row.surface), row.chat_id, row.topic_id),
        row.user_id,
        row.server,
        row.tool,
        json.loads(row.arguments),
        CallStatus(row.status),
        row.result,
    )
