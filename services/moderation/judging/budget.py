"""What must be counted or told once over all replicas, in Redis; without it each replica counts for itself."""

from typing import cast

from redis.asyncio import Redis
from redis.exceptions import WatchError

from core.clock import Clock
from core.redis.client import REDIS_ERRORS

DAY_S = 24 * 3600
COUNTERS_KEPT = 10_000
"""Local stand-ins for a Redis that is gone; what is beyond begins anew."""


class Budget:
    """How many judgements a group has had today.

    Args:
        redis: where replicas count together.
        prefix: what all keys begin with.
        clock: which day it is, in UTC.
    """

    def __init__(self, redis: Redis, prefix: str, clock: Clock) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:mod"
        self._clock = clock
        self._alone: dict[str, int] = {}

    async def take(self, group_id: int, limit: int) -> bool:
        """Take one judgement; False where the day's are used up."""
        key = f"{self._prefix}:{{{group_id}}}:budget:{self._clock.now().date().isoformat()}"
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.incr(key)
                pipe.expire(key, 2 * DAY_S)
                taken = int((await pipe.execute())[0])
        except REDIS_ERRORS:
            if len(self._alone) >= COUNTERS_KEPT:
                self._alone.clear()
            taken = self._alone[key] = self._alone.get(key, 0) + 1
        return taken <= limit


class Reminders:
    """Tells something once, and again after twice as long each time.

    Args:
        redis: where replicas agree on who tells.
        prefix: what all keys begin with.
        clock: the time.
    """

    def __init__(self, redis: Redis, prefix: str, clock: Clock) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:mod"
        self._clock = clock
        self._alone: dict[str, float] = {}

    async def due(self, group_id: int, name: str, pause_s: int, longest_s: int) -> bool:
        """Whether it is time to tell it.

        Args:
            group_id: whose admins are told.
            name: what.
            pause_s: for how long it is not told again after the first time.
            longest_s: the most that this pause grows to.
        """
        key, now = self._key(group_id, name), self._clock.time()
        if self._alone.get(key, 0.0) > now:
            return False
        try:
            until, is_ours = await self._agreed(key, now, pause_s, longest_s)
        except WatchError:
            # Another replica was faster, and tells it.
            return False
        except REDIS_ERRORS:
            # Told twice, by two replicas, is better than not at all.
            until, is_ours = now + pause_s, True
        if len(self._alone) >= COUNTERS_KEPT:
            self._alone = {known: until for known, until in self._alone.items() if until > now}
        self._alone[key] = until
        return is_ours

    async def _agreed(self, key: str, now: float, pause_s: int, longest_s: int) -> tuple[float, bool]:
        """Until when it is not told again, and whether it is this replica that tells it now."""
        async with self._redis.pipeline(transaction=True) as pipe:
            await pipe.watch(key)
            # A client with `decode_responses` answers in strings, which its types do not say.
            until, told = cast("list[str | None]", await pipe.hmget(key, ["until", "told"]))
            if until is not None and float(until) > now:
                return float(until), False
            times = int(told or 0)
            pause = min(pause_s * 2**times, longest_s)
            pipe.multi()
            pipe.hset(key, mapping={"until": now + pause, "told": times + 1})
            pipe.expire(key, pause + longest_s)
            await pipe.execute()
        return now + pause, True

    async def forget(self, group_id: int, name: str) -> None:
        """It is over: the next time is the first again."""
        key = self._key(group_id, name)
        self._alone.pop(key, None)
        try:
            await self._redis.delete(key)
        except REDIS_ERRORS:
            return

    def _key(self, group_id: int, name: str) -> str:
        return f"{self._prefix}:{{{group_id}}}:told:{name}"
