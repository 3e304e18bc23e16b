"""What is written down about every message of a moderated group: before it is judged, and after."""

from dataclasses import dataclass, field

from core.db.database import Database
from services.moderation.domain.message import GroupMessage
from services.moderation.records.counts import Counts, Statistics
from services.moderation.records.members import MemberHistory, MemberStore
from services.moderation.records.versions import ProcessedVersions, VersionState, message_version


@dataclass(frozen=True, slots=True)
class Entry:
    """A version of a message while it is looked at."""

    message: GroupMessage
    album: str | None = None
    reported: bool = False
    version: str = field(init=False)

    def __post_init__(self) -> None:
        # A report asks for another look at a version that was looked at before.
        version = message_version(self.message)
        object.__setattr__(self, "version", f"{version}-r" if self.reported else version)


class MessageLog:
    """The books. Methods raise StorageError where the database fails.

    Args:
        database: where they are.
        seen: which versions were looked at.
        members: who wrote what was left standing.
        statistics: how much there was.
    """

    def __init__(
        self, database: Database, seen: ProcessedVersions, members: MemberStore, statistics: Statistics
    ) -> None:
        self._database = database
        self.seen = seen
        self.members = members
        self.statistics = statistics

    async def open(self, entry: Entry) -> tuple[VersionState, MemberHistory]:
        """Write down that a version is looked at; what is known of it, and of its author."""
        message = entry.message
        async with self._database.session() as session:
            sight = await self.seen.look(session, message, entry.version, entry.album)
            return sight, await self.members.standing_in(session, message.group_id, message.author.id)

    async def close(self, entry: Entry, figures: Counts, *, removed: bool, meaningful: bool | None) -> None:
        """Write down what became of it, in one transaction.

        Args:
            entry: what was looked at.
            figures: what there is to count.
            removed: whether it was deleted.
            meaningful: whether its author said something by it; None where that is not to be counted.
        """
        message = entry.message
        statements = [self.seen.settling(message, entry.version, removed=removed)]
        counting = self.statistics.counting(message.group_id, figures)
        speaking = (
            self.members.speaking(message.group_id, message.author.id, meaningful=meaningful)
            if meaningful is not None
            else None
        )
        async with self._database.session() as session:
            for statement in (*statements, counting, speaking):
                if statement is not None:
                    await session.execute(statement)
