"""Decides through Redis which of the replicas sends a notice, so that it goes out once."""

from collections.abc import Sequence
from math import isfinite
from typing import cast

import structlog
from cachetools import TTLCache
from redis.asyncio import Redis
from redis.exceptions import WatchError

from core.clock import Backoff, Clock
from core.redis.client import REDIS_ERRORS

log = structlog.get_logger()

MAX_KEYS = 10_000
MAX_TIMES = 1_000
"""Reminders that are counted; the pause has reached its longest far earlier."""
MAX_MEMORY_S = 31 * 24 * 3600.0


class NotifyOnce:
    """Elects the replica that sends a notice, and tracks when the notice is due again.

    While Redis is unreachable each replica decides alone: a duplicate notice is better than none.

    Args:
        redis: a client with `decode_responses=True`.
        prefix: common prefix of the Redis keys.
    """

    def __init__(self, redis: Redis, prefix: str, clock: Clock) -> None:
        self._redis = redis
        self._prefix = prefix
        self._clock = clock
        self._notes: dict[str, float] = {}
        self._silent_until: TTLCache[str, float] = TTLCache(MAX_KEYS, MAX_MEMORY_S, timer=clock.monotonic)

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
            until, is_ours = await self._claim(name, backoff)
        except WatchError:
            # Another replica won the race and sends it.
            return False
        except REDIS_ERRORS:
            until, is_ours = self._clock.time() + backoff.first_s, True
        self._silent_until[name] = until
        return is_ours

    async def note(self, name: str, lifetime_s: int) -> None:
        """Leaves a note for all replicas; while Redis is unreachable, for this one."""
        self._notes[name] = self._clock.time() + lifetime_s
        try:
            await self._redis.set(self._key(name), "1", ex=lifetime_s)
        except REDIS_ERRORS:
            return

    async def is_noted(self, name: str) -> bool:
        """Returns whether a replica has left this note."""
        try:
            return bool(await self._redis.exists(self._key(name)))
        except REDIS_ERRORS:
            return self._notes.get(name, 0.0) > self._clock.time()

    async def take_note(self, name: str) -> bool:
        """Removes a note; returns whether there was one, to one of several replicas."""
        is_noted_here = self._notes.pop(name, 0.0) > self._clock.time()
        try:
            return bool(await self._redis.delete(self._key(name)))
        except REDIS_ERRORS:
            return is_noted_here

    async def forget(self, name: str) -> None:
        """Resets a reminder: the next one counts as the first."""
        self._silent_until.pop(name, None)
        try:
            await self._redis.delete(self._key(name))
        except REDIS_ERRORS:
            return

    async def _claim(self, name: str, backoff: Backoff) -> tuple[float, bool]:
        """Returns when the notice is due again, and whether this replica sends it now."""
        key, now = self._key(name), self._clock.time()
        async with self._redis.pipeline(transaction=True) as pipe:
            await pipe.watch(key)
            # With `decode_responses` the values are strings, which the types of redis-py do not express.
            until, times = _parse(cast("list[str | None]", await pipe.hmget(key, ["until", "told"])))
            # Not later than a replica with the right time can have written.
            until = min(until, now + backoff.longest_s)
            if until > now:
                return until, False
            times += 1
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


def _parse(stored: Sequence[str | None]) -> tuple[float, int]:
    """Returns when a notice is due again and how often it was sent; a value that does not parse counts as none."""
    until, times = (value or "0" for value in stored)
    try:
        instant, count = float(until), int(times)
    except ValueError:
        log.warning("notice.state_unreadable")
        return 0.0, 0
    return (instant, min(max(count, 0), MAX_TIMES)) if isfinite(instant) else (0.0, 0)
