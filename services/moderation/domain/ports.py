"""What moderation needs of the place where a group lives, each as narrow as its user needs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from services.moderation.domain.incident import Incident
from services.moderation.domain.message import AuthorKind
from services.moderation.domain.settings import GroupSettings


class Done(StrEnum):
    """What became of an act."""

    DONE = "done"
    GONE = "gone"
    """There is nothing left to act on: the message is deleted already, the member has left."""
    NO_RIGHT = "no_right"
    """The bot lacks the right."""
    PROTECTED = "protected"
    """It cannot be done to this one: an admin, the owner."""
    FAILED = "failed"
    """Anything else; the log says what."""

    @property
    def is_effective(self) -> bool:
        """Whether things are now as they were to become."""
        return self in {Done.DONE, Done.GONE}


@dataclass(frozen=True, slots=True)
class Staff:
    """Who runs a group: its admins, bots among them, and the channel that is linked to it."""

    admins: frozenset[int]
    linked_channel: int | None = None


class StaffList(Protocol):
    """Knows who runs a group."""

    async def staff(self, group_id: int) -> Staff | None:
        """Who runs a group, from a moment ago; None where that cannot be had."""
        ...


class Sanctions(Protocol):
    """What can be done in a group. Every act may be repeated."""

    async def delete(self, group_id: int, message_ids: Sequence[int]) -> Done:
        """Take messages away, all of an album at once."""
        ...

    async def mute(self, group_id: int, member_id: int, until: datetime) -> Done:
        """Let a member read and not write until then."""
        ...

    async def unmute(self, group_id: int, member_id: int) -> Done:
        """Let a member write again."""
        ...

    async def ban(self, group_id: int, author_id: int, kind: AuthorKind) -> Done:
        """Throw a member out for good, or keep a channel from speaking here."""
        ...

    async def unban(self, group_id: int, author_id: int, kind: AuthorKind) -> Done:
        """Let somebody come back who was banned."""
        ...


@dataclass(frozen=True, slots=True)
class CardPlace:
    """Where a card stands."""

    chat_id: int
    message_id: int


class Cards(Protocol):
    """What a group's admins and members are shown."""

    async def show(self, incident: Incident, settings: GroupSettings) -> CardPlace | None:
        """Show an incident with its buttons; None where nobody could be reached."""
        ...

    async def refresh(self, incident: Incident, settings: GroupSettings) -> None:
        """Make a card say what holds now."""
        ...

    async def warn(self, incident: Incident, settings: GroupSettings, count: int) -> None:
        """Tell a member, where they said it, that this was their warning number `count`."""
        ...

    async def alert(self, settings: GroupSettings, key: str, **arguments: str | int) -> None:
        """Tell a group's admins something of the bot's own: a right that is missing, an outage."""
        ...
