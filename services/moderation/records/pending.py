"""Messages that nobody could judge when they came: kept until somebody can, and taken up by one replica at a time."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import delete, select

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationPendingRow
from services.moderation.domain.message import GroupMessage

FIRST_PAUSE = timedelta(seconds=60)
LONGEST_PAUSE = timedelta(minutes=5)
"""The pause doubles up to this: once a provider is back, what waits is judged well within ten minutes."""
GIVEN_UP = timedelta(hours=24)
BATCH = 20

_MESSAGES = TypeAdapter(GroupMessage)


@dataclass(frozen=True, slots=True)
class PendingMessage:
    """A message that waits, and since when."""

    message: GroupMessage
    version: str
    since: datetime


class PendingMessages:
    """What waits. Methods raise StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def put(self, message: GroupMessage, version: str) -> None:
        """Judge this message later."""
        now = self._clock.now()
        statement = self._database.insert(ModerationPendingRow).values(
            group_id=message.group_id, message_id=message.message_id, version=version,
            payload=_MESSAGES.dump_json(message).decode(), since=now, due_at=now + FIRST_PAUSE, attempts=0,
        )  # fmt: skip
        async with self._database.session() as session:
            await session.execute(
                statement.on_conflict_do_nothing(index_elements=["group_id", "message_id", "version"])
            )

    async def take_due(self) -> list[PendingMessage]:
        """Take what is due; whoever takes it has until the next time to be done with it."""
        row, now = ModerationPendingRow, self._clock.now()
        taken: list[PendingMessage] = []
        async with self._database.session() as session:
            due = await session.scalars(
                select(row).where(row.due_at <= now).order_by(row.due_at).limit(BATCH).with_for_update(skip_locked=True)
            )
            for each in due.all():
                message = _read(each.payload)
                if message is None or now - each.since > GIVEN_UP:
                    await session.delete(each)
                    continue
                each.attempts += 1
                each.due_at = now + min(FIRST_PAUSE * 2**each.attempts, LONGEST_PAUSE)
                taken.append(PendingMessage(message, each.version, each.since))
        return taken

    async def done(self, message: GroupMessage, version: str) -> None:
        """A message waits no longer, and what it said is forgotten."""
        row = ModerationPendingRow
        key = (row.group_id == message.group_id, row.message_id == message.message_id, row.version == version)
        async with self._database.session() as session:
            await session.execute(delete(row).where(*key))


def _read(payload: str) -> GroupMessage | None:
    try:
        return _MESSAGES.validate_json(payload)
    except ValidationError:
        return None
