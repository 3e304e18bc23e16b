"""Exempts from moderation: admins, Telegram's own accounts, and texts that admins marked as no spam."""

import hashlib
from enum import StrEnum

import structlog
from redis.asyncio import Redis

from core.redis.client import REDIS_ERRORS
from services.moderation.domain.message import Author, AuthorKind, GroupMessage
from services.moderation.domain.ports import AdminDirectory, Administrators, Standing
from services.moderation.text.normalise import normalise

SERVICE_ACCOUNTS = frozenset({777000, 1087968824, 136817688})
"""Telegram itself, anonymous admins, channels (https://core.telegram.org/bots/api#message)."""
log = structlog.get_logger()
RETENTION_S = 90 * 24 * 3600


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
        """Returns why a message is exempt, by the cached list of admins; None if it is not."""
        admins = await self._admins.get_admins(message.group_id)
        return find_exemption(message.group_id, message.author, admins, self._self_id)

    async def find_anew(self, group_id: int, author: Author) -> Exemption | None:
        """Returns why an author may not be sanctioned at this moment; None if they may.

        The cached list cannot say so: it does not know an admin who was appointed since.
        """
        if author.kind is AuthorKind.CHANNEL:
            return find_exemption(group_id, author, await self._admins.get_admins(group_id), self._self_id)
        fixed = find_exemption(group_id, author, Administrators(frozenset()), self._self_id)
        if fixed is not None:
            return fixed
        match await self._admins.fetch_standing(group_id, author.id):
            case Standing.ADMIN:
                return Exemption.ADMIN
            case Standing.UNKNOWN:
                return Exemption.ADMINS_UNKNOWN
            case Standing.MEMBER:
                return None


def find_exemption(group_id: int, author: Author, admins: Administrators | None, self_id: int) -> Exemption | None:
    """Returns why an author of a group is exempt, given its admins; None for those means unknown."""
    if author.kind is AuthorKind.CHANNEL:
        if author.id == group_id:
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


class KnownHam:
    """Stores digests of known ham in Redis. While Redis is unreachable, no text is known.

    Args:
        prefix: prefix of all Redis keys.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:mod"

    async def contains(self, group_id: int, text: str) -> bool:
        """Returns whether an admin of the group marked this text as no spam."""
        try:
            return bool(await self._redis.exists(self._key(group_id, text)))
        except REDIS_ERRORS:
            return False

    async def set(self, group_id: int, text: str, *, is_ham: bool) -> None:
        """Adds or removes a text."""
        key = self._key(group_id, text)
        try:
            if is_ham:
                await self._redis.set(key, "1", ex=RETENTION_S)
            else:
                await self._redis.delete(key)
        except REDIS_ERRORS as error:
            log.warning("moderation.known_ham_write_failed", error=type(error).__name__)

    def _key(self, group_id: int, text: str) -> str:
        digest = hashlib.sha256(normalise(text).folded.encode()).hexdigest()
        return f"{self._prefix}:{{{group_id}}}:ham:{digest[:32]}"
