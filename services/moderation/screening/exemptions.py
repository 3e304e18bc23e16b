"""The gate: whose messages are looked at."""

from enum import StrEnum

from services.moderation.domain.message import AuthorKind, GroupMessage
from services.moderation.domain.ports import Staff

SERVICE_ACCOUNTS = frozenset({777000, 1087968824, 136817688})
"""Telegram's own: what it says itself, anonymous admins, channels (https://core.telegram.org/bots/api#message)."""


class Exempt(StrEnum):
    """Why a message is not looked at."""

    STAFF_UNKNOWN = "staff_unknown"
    """Nobody can tell who runs the group: better nothing is done than to the wrong one."""
    ADMIN = "admin"
    ANONYMOUS_ADMIN = "anonymous_admin"
    LINKED_CHANNEL = "linked_channel"
    SERVICE = "service"
    SELF = "self"


def exempt(message: GroupMessage, staff: Staff | None, self_id: int) -> Exempt | None:
    """Why a message is let through unseen; None where it is to be looked at.

    Args:
        message: the message.
        staff: who runs the group; None where that could not be had.
        self_id: the bot itself.
    """
    author = message.author
    if author.kind is AuthorKind.CHANNEL:
        if author.id == message.group_id:
            return Exempt.ANONYMOUS_ADMIN
    elif author.id == self_id:
        return Exempt.SELF
    elif author.id in SERVICE_ACCOUNTS:
        return Exempt.SERVICE
    if staff is None:
        return Exempt.STAFF_UNKNOWN
    if author.kind is AuthorKind.CHANNEL:
        return Exempt.LINKED_CHANNEL if author.id == staff.linked_channel else None
    return Exempt.ADMIN if author.id in staff.admins else None
