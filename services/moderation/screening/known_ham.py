"""Texts that admins marked as no spam: an equal text is let through without asking the judge.

Without it the next member who writes the same text would be punished for it after the undo.
"""

import hashlib

import structlog
from redis.asyncio import Redis

from core.redis.client import REDIS_ERRORS
from services.moderation.text.normalise import normalise

log = structlog.get_logger()

RETENTION_S = 90 * 24 * 3600


class KnownHam:
    """Stores digests of known ham in Redis. While Redis is unreachable, no text is known.

    Args:
        prefix: of all keys.
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
