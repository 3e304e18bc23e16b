"""How well a group knows somebody: for how long, and by how many messages that say something."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationMemberRow

ESTABLISHED_MESSAGES = 3
ESTABLISHED_AFTER = timedelta(days=7)
MEANINGFUL_LETTERS = 10
"""Letters and digits from which a message says something; "hi" and "thanks!" build no reputation and need no judge."""


@dataclass(frozen=True, slots=True)
class MemberHistory:
    """What is known of a member of a group."""

    first_seen: datetime
    meaningful: int

    def is_newcomer(self, now: datetime) -> bool:
        """Whether they have said fewer than 3 things or been here for less than 7 days."""
        return self.meaningful < ESTABLISHED_MESSAGES or now - self.first_seen < ESTABLISHED_AFTER


def is_meaningful(text: str) -> bool:
    """Whether a text says something; a character of a script without spaces says as much as two letters."""
    weight = 0
    for character in text:
        if character.isalnum():
            weight += 2 if unicodedata.east_asian_width(character) == "W" else 1
            if weight >= MEANINGFUL_LETTERS:
                return True
    return False


class MemberStore:
    """The members of all groups. Methods raise StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def standing(self, group_id: int, member_id: int) -> MemberHistory:
        """What is known of somebody; whoever was never seen is seen now."""
        async with self._database.reading() as session:
            return await self.standing_in(session, group_id, member_id)

    async def standing_in(self, session: AsyncSession, group_id: int, member_id: int) -> MemberHistory:
        """The same, within a transaction that there is."""
        row = await session.get(ModerationMemberRow, (group_id, member_id))
        return MemberHistory(self._clock.now(), 0) if row is None else MemberHistory(row.first_seen, row.meaningful)

    def speaking(self, group_id: int, member_id: int, *, meaningful: bool) -> Executable:
        """The statement that says that somebody wrote something that was left standing."""
        row = ModerationMemberRow
        values = {"group_id": group_id, "member_id": member_id, "first_seen": self._clock.now()}
        statement = self._database.insert(row).values(**values, meaningful=int(meaningful))
        more = {"meaningful": row.meaningful + int(meaningful)}
        return statement.on_conflict_do_update(index_elements=["group_id", "member_id"], set_=more)
