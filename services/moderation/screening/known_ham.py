"""What admins said is no spam: equal text is let through from then on, whatever a judge says.

Without it the next member who writes the same would be punished for what an admin has just undone.
"""

import hashlib

import structlog
from redis.asyncio import Redis

from core.redis.client import REDIS_ERRORS
from services.moderation.text.normalise import normalise

log = structlog.get_logger()

KEPT_S = 90 * 24 * 3600


class KnownHam:
    """The texts, as digests.

    Args:
        redis: where replicas share them.
        prefix: what all keys begin with.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:mod"

    async def are_ham(self, group_id: int, text: str) -> bool:
        """Whether an admin of the group said so of this text."""
        try:
            return bool(await self._redis.exists(self._key(group_id, text)))
        except REDIS_ERRORS:
            return False

    async def set(self, group_id: int, text: str, *, is_ham: bool) -> None:
        """An admin says what this text is."""
        key = self._key(group_id, text)
        try:
            if is_ham:
                await self._redis.set(key, "1", ex=KEPT_S)
            else:
                await self._redis.delete(key)
        except REDIS_ERRORS as error:
            log.warning("moderation.precedent_not_kept", error=type(error).__name__)

    def _key(self, group_id: int, text: str) -> str:
        digest = hashlib.sha256(normalise(text).folded.encode()).hexdigest()
        return f"{self._prefix}:{{{group_id}}}:ham:{digest[:32]}"
