"""Elects the answer that says that a remote provider stands in for a local one that failed."""

from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from cachetools import TTLCache
from redis.asyncio import Redis

from core.clock import Clock
from core.messages import ChatRef
from core.redis.guard import FailFastRedis, RedisUnavailable
from services.chat.turn import StandIn


@dataclass(frozen=True, slots=True)
class StandInLimits:
    """Bounds of the remembered chats.

    Args:
        outage_s: retention of a chat's line; a longer outage is reported again.
        single_s: retention of a line about a healthy local provider that refused a single request.
        max_chats: entries of this process.
    """

    outage_s: int = 7 * 24 * 3600
    single_s: int = 24 * 3600
    max_chats: int = 10_000


class Outages(Protocol):
    """Knows since when a provider has not answered."""

    def outage_since(self, provider: str) -> float | None:
        """Returns the instant of a provider's first failure since its last answer; None while it is healthy."""
        ...


class StandInNotices:
    """Elects the answer that says that a remote provider stands in for a local one.

    It is the first answer of an outage in each chat, over all replicas; while Redis is unreachable, of this process.

    Args:
        redis: a client with `decode_responses=True`.
        prefix: prefix of all Redis keys.
        outages: tells one outage of a provider from the next.
    """

    def __init__(
        self, redis: Redis, prefix: str, clock: Clock, outages: Outages, limits: StandInLimits | None = None
    ) -> None:
        self._redis = FailFastRedis(redis, "stand-in notices")
        self._prefix = prefix
        self._outages = outages
        self._limits = limits or StandInLimits()
        self._holders: TTLCache[str, str] = TTLCache(
            self._limits.max_chats, self._limits.outage_s, timer=clock.monotonic
        )

    async def is_news(self, chat: ChatRef, stand_in: StandIn, origin: str | None) -> bool:
        """Returns whether an answer carries the line.

        Args:
            chat: the chat of the answer.
            stand_in: the local provider that failed, and the one that answered.
            origin: id of the job; the same job gets the same reply again when it is retried.
        """
        since = self._outages.outage_since(stand_in.local)
        lifetime_s = self._limits.single_s if since is None else self._limits.outage_s
        key = f"{self._prefix}:stand-in:{chat}:{stand_in.local}:{since or 0:.3f}"
        holder = origin or uuid4().hex
        known = self._holders.get(key)
        if known is None:
            known = await self._claim(key, holder, lifetime_s)
            if since is not None:
                self._holders[key] = known
        return known == holder

    async def _claim(self, key: str, holder: str, lifetime_s: int) -> str:
        """Returns the holder of a key: the first one that claimed it."""

        async def claim(redis: Redis) -> str:
            if await redis.set(key, holder, nx=True, ex=lifetime_s):
                return holder
            return str(await redis.get(key) or holder)

        try:
            return await self._redis.call(claim)
        except RedisUnavailable:
            # A line that appears twice is better than none.
            return holder
