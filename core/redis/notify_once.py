"""Notices that go out once over all replicas, agreed on in Redis."""

from typing import cast

from cachetools import TTLCache
from redis.asyncio import Redis
from redis.exceptions import WatchError

from core.backoff import Backoff
from core.clock import Clock
from core.redis.client import REDIS_ERRORS

KEYS_REMEMBERED = 10_000
LONGEST_MEMORY_S = 31 * 24 * 3600.0


class NotifyOnce:
    """Decides which replica sends a notice, and when it is due again.

    While Redis is unreachable each replica decides alone: a duplicate notice is better than none.

    Args:
        redis: a client with `decode_responses=True`.
        prefix: of all keys.
        clock: injected time.
    """

    def __init__(self, redis: Redis, prefix: str, clock: Clock) -> None:
        self._redis = redis
        self._prefix = prefix
        self._clock = clock
        self._silent_until: TTLCache[str, float] = TTLCache(KEYS_REMEMBERED, LONGEST_MEMORY_S, timer=clock.monotonic)

    async def is_first(self, name: str, pause_s: int) -> bool:
        """Returns whether this replica sends the notice now; it is not due again for `pause_s` seconds."""
        if self._is_silent(name):
            return False
        self._silent_until[name] = self._clock.time() + pause_s
        try:
            return bool(await self._redis.set(self._key(name), "1", nx=True, ex=pause_s))
        except REDIS_ERRORS:
            return True

    async def is_due(self, name: str, backoff: Backoff) -> bool:
        """Returns whether this replica sends a reminder now; the pause until the next doubles each time."""
        if self._is_silent(name):
            return False
        try:
            until, is_ours = await self._agree(name, backoff)
        except WatchError:
            # Another replica was faster, and sends it.
            return False
        except REDIS_ERRORS:
            until, is_ours = self._clock.time() + backoff.first_s, True
        self._silent_until[name] = until
        return is_ours

    async def forget(self, name: str) -> None:
        """Resets a reminder: the next time counts as the first."""
        self._silent_until.pop(name, None)
        try:
            await self._redis.delete(self._key(name))
        except REDIS_ERRORS:
            return

    async def _agree(self, name: str, backoff: Backoff) -> tuple[float, bool]:
        """Returns until when the notice is not due, and whether this replica sends it now."""
        key, now = self._key(name), self._clock.time()
        async with self._redis.pipeline(transaction=True) as pipe:
            await pipe.watch(key)
            # A client with `decode_responses` answers in strings, which its types do not say.
            until, told = cast("list[str | None]", await pipe.hmget(key, ["until", "told"]))
            if until is not None and float(until) > now:
                return float(until), False
            times = int(told or 0) + 1
            pause_s = backoff.pause_s(times)
            pipe.multi()
            pipe.hset(key, mapping={"until": now + pause_s, "told": times})
            pipe.expire(key, int(pause_s + backoff.longest_s))
            await pipe.execute()
        return now + pause_s, True

    def _is_silent(self, name: str) -> bool:
        return self._silent_until.get(name, 0.0) > self._clock.time()

    def _key(self, name: str) -> str:
        return f"{self._prefix}:{name}"
