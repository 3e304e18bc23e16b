"""Exempts admins and Telegram's own accounts from moderation."""

from enum import StrEnum

from services.moderation.domain.message import AuthorKind, GroupMessage
from services.moderation.domain.ports import AdminDirectory, Administrators

SERVICE_ACCOUNTS = frozenset({777000, 1087968824, 136817688})
"""Telegram itself, anonymous admins, channels (https://core.telegram.org/bots/api#message)."""


class Exemption(StrEnum):
    """The reason why a message is not moderated."""

    ADMINS_UNKNOWN = "admins_unknown"
    """Without a list of admins moderation would risk acting against one."""
    ADMIN = "admin"
    ANONYMOUS_ADMIN = "anonymous_admin"
    LINKED_CHANNEL = "linked_channel"
    SERVICE = "service"
    SELF = "self"


class Exemptions:
    """Decides whether a message is exempt.

    Args:
        self_id: the bot's own user id.
    """

    def __init__(self, admins: AdminDirectory, self_id: int) -> None:
        self._admins = admins
        self._self_id = self_id

    async def find(self, message: GroupMessage) -> Exemption | None:
        """Returns why a message is exempt; None if it is not."""
        return find_exemption(message, await self._admins.get_admins(message.group_id), self._self_id)


def find_exemption(message: GroupMessage, admins: Administrators | None, self_id: int) -> Exemption | None:
    """Returns why a message is exempt, given its group's admins; None for those means unknown."""
    author = message.author
    if author.kind is AuthorKind.CHANNEL:
        if author.id == message.group_id:
            return Exemption.ANONYMOUS_ADMIN
    elif author.id == self_id:
        return Exemption.SELF
    elif author.id in SERVICE_ACCOUNTS:
        return Exemption.SERVICE
    if admins is None:
        return Exemption.ADMINS_UNKNOWN
    if author.kind is AuthorKind.CHANNEL:
        return Exemption.LINKED_CHANNEL if author.id == admins.linked_channel else None
    return Exemption.ADMIN if author.id in admins.user_ids else None
