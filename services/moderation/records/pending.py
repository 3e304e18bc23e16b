"""Messages without a verdict: retried with a backoff until one exists, each by one replica at a time."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import delete, select

from core.clock import Backoff, Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationPendingRow
from services.moderation.domain.message import GroupMessage

log = structlog.get_logger()

RETRY_BACKOFF = Backoff(first_s=60, longest_s=300)
"""The longest pause gives a verdict within ten minutes after a provider is back."""

_MESSAGES = TypeAdapter(GroupMessage)


@dataclass(frozen=True, slots=True)
class PendingTiming:
    """Retry schedule of pending messages.

    Args:
        backoff: the pause before each retry.
        give_up_after: age after which a message is tried once more; it outlasts an outage of a day.
    """

    backoff: Backoff = RETRY_BACKOFF
    give_up_after: timedelta = timedelta(hours=25)


@dataclass(frozen=True, slots=True)
class PendingMessage:
    """A message that waits for a verdict; `is_last` says that it has waited for too long to be tried again."""

    message: GroupMessage
    version: str
    since: datetime
    is_last: bool = False


class PendingMessages:
    """Stores messages that wait for a verdict. Methods raise StorageError when the database fails."""

    def __init__(self, database: Database, clock: Clock, timing: PendingTiming | None = None) -> None:
        self._database = database
        self._clock = clock
        self._timing = timing or PendingTiming()

    async def put(self, message: GroupMessage, version: str) -> None:
        """Schedules a message. Idempotent per version."""
        now = self._clock.now()
        statement = self._database.insert(ModerationPendingRow).values(
            group_id=message.group_id, message_id=message.message_id, version=version,
            payload=_MESSAGES.dump_json(message).decode(), since=now, due_at=now + self._pause(0), attempts=0,
        )  # fmt: skip
        async with self._database.session() as session:
            await session.execute(
                statement.on_conflict_do_nothing(index_elements=["group_id", "message_id", "version"])
            )

    async def take_due(self, limit: int) -> list[PendingMessage]:
        """Returns due messages and postpones them: if this replica dies, the next retry is another's."""
        row, now = ModerationPendingRow, self._clock.now()
        taken: list[PendingMessage] = []
        due = select(row).where(row.due_at <= now).order_by(row.due_at).limit(limit)
        async with self._database.session() as session:
            for each in (await session.scalars(due.with_for_update(skip_locked=True))).all():
                message = _parse(each.payload)
                if message is None:
                    log.error("moderation.pending_unreadable", group_id=each.group_id, message_id=each.message_id)
                    await session.delete(each)
                    continue
                each.attempts += 1
                each.due_at = now + self._pause(each.attempts)
                is_last = now - each.since > self._timing.give_up_after
                taken.append(PendingMessage(message, each.version, each.since, is_last))
        return taken

    async def delete(self, message: GroupMessage, version: str) -> None:
        """Deletes a message and its text."""
        row = ModerationPendingRow
        key = (row.group_id == message.group_id, row.message_id == message.message_id, row.version == version)
        async with self._database.session() as session:
            await session.execute(delete(row).where(*key))

    def _pause(self, attempts: int) -> timedelta:
        return timedelta(seconds=self._timing.backoff.pause_s(attempts + 1))


def _parse(payload: str) -> GroupMessage | None:
    try:
        return _MESSAGES.validate_json(payload)
    except ValidationError:
        return None
