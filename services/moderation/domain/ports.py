"""Ports to the messenger, each as narrow as its consumer needs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from services.moderation.domain.incident import Incident
from services.moderation.domain.message import AuthorKind
from services.moderation.domain.settings import GroupSettings


class ActionResult(StrEnum):
    """Result of a sanction or deletion."""

    DONE = "done"
    STANDS = "stands"
    """The bot has done so for another message, and it still holds."""
    GONE = "gone"
    """Nothing left to act on: the message is already deleted, or the member has left."""
    NO_RIGHT = "no_right"
    """The bot lacks the admin right."""
    PROTECTED = "protected"
    """The target is an admin or the owner."""
    FAILED = "failed"
    """Any other error; the log has the reason."""

    @property
    def is_effective(self) -> bool:
        """True if the intended state holds now."""
        return self in {ActionResult.DONE, ActionResult.STANDS, ActionResult.GONE}


@dataclass(frozen=True, slots=True)
class Administrators:
    """The admins of a group, bots included, its linked channel and its title, as one look-up returns them."""

    user_ids: frozenset[int]
    linked_channel: int | None = None
    title: str | None = None


class Standing(StrEnum):
    """The standing of a user in a group at this moment."""

    ADMIN = "admin"
    MEMBER = "member"
    """Anyone else, members or not."""
    UNKNOWN = "unknown"
    """The look-up failed: no one is empowered or sanctioned on it."""


@dataclass(frozen=True, slots=True)
class Restriction:
    """Restriction of a member.

    Args:
        permissions: those left to the member, by the names of the Bot API; empty for a ban.
        until: None for good.
    """

    is_ban: bool = False
    permissions: frozenset[str] = frozenset()
    until: datetime | None = None

    @property
    def is_mute(self) -> bool:
        """True if the member may not write."""
        return self.permissions.isdisjoint({"all", "can_send_messages"})


UNRESTRICTED = Restriction(permissions=frozenset({"all"}))
"""Neither banned nor restricted."""


class AdminDirectory(Protocol):
    """Looks up the admins of groups: cached to exempt them, anew to empower or sanction."""

    async def fetch_standing(self, group_id: int, user_id: int) -> Standing:
        """Returns a user's standing, asked for anew."""
        ...

    async def get_admins(self, group_id: int) -> Administrators | None:
        """Returns a group's admins, possibly cached; None when they cannot be determined."""
        ...


class Sanctions(Protocol):
    """Acts on messages and members of a group. All methods are idempotent."""

    async def delete(self, group_id: int, message_ids: Sequence[int]) -> ActionResult:
        """Deletes messages, all parts of an album in one call."""
        ...

    async def fetch_restriction(self, group_id: int, member_id: int) -> Restriction | None:
        """Returns the restriction of a member, `UNRESTRICTED` if there is none; None if that is not known."""
        ...

    async def mute(self, group_id: int, member_id: int, until: datetime) -> ActionResult:
        """Makes a member read-only until then. Replaces any other restriction, and a ban."""
        ...

    async def unmute(self, group_id: int, member_id: int, before: Restriction | None = None) -> ActionResult:
        """Lifts a mute, or puts the restriction back that it replaced."""
        ...

    async def ban(self, group_id: int, author_id: int, kind: AuthorKind) -> ActionResult:
        """Bans a member permanently, or a channel from posting here."""
        ...

    async def unban(self, group_id: int, author_id: int, kind: AuthorKind) -> ActionResult:
        """Lifts a ban."""
        ...


@dataclass(frozen=True, slots=True)
class CardLocation:
    """The message that shows a card."""

    chat_id: int
    message_id: int


class Cards(Protocol):
    """Shows incidents and notices to admins and members."""

    async def show(self, incident: Incident, settings: GroupSettings) -> CardLocation | None:
        """Posts an incident's card with its buttons; None when no chat accepted it."""
        ...

    async def locate(self, settings: GroupSettings) -> int:
        """Returns the id of the chat that gets the cards at this moment."""
        ...

    def held_s(self, settings: GroupSettings) -> float:
        """Returns the seconds for which flood control holds the chat that gets the cards, 0 if it does not."""
        ...

    async def refresh(self, incident: Incident, settings: GroupSettings) -> bool:
        """Edits a card to the incident's current state; returns False if flood control prevented it."""
        ...

    async def warn(self, incident: Incident, settings: GroupSettings, count: int) -> None:
        """Replies to the author of an incident with warning number `count`."""
        ...

    async def alert(self, settings: GroupSettings, key: str, **arguments: str | int) -> None:
        """Sends the admins of a group a notice by text key: a missing right, an outage."""
        ...
