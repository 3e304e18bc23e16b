"""Provider affinity: after load shedding a user stays with the provider that stepped in for the busy one."""

import asyncio
import json

import structlog
from cachetools import TTLCache
from redis.asyncio import Redis

from core.bounded_json import parse_json
from core.clock import Clock
from core.redis.guard import FailFastRedis, RedisPatience, RedisUnavailable

log = structlog.get_logger()

AFFINITY_S = 300
"""Lifetime of a user's affinity, from the move on; later answers do not extend it."""
MAX_LOCAL = 10_000
"""Bound of the users remembered in this process."""


class ProviderAffinity:
    """The providers that users stay with: in Redis and, for moves made here, in this process.

    Args:
        redis: a client with `decode_responses=True`, its guard, or None where each replica decides alone.
        prefix: prefix of all Redis keys.
        max_local: bound of the users remembered in this process.
    """

    def __init__(
        self, redis: Redis | FailFastRedis | None, prefix: str, clock: Clock, max_local: int = MAX_LOCAL
    ) -> None:
        self._redis = redis if isinstance(redis, FailFastRedis) else FailFastRedis(redis, "affinity")
        self._prefix = f"{prefix}:{{llm}}:stay:"
        self._clock = clock
        self._local: TTLCache[str, tuple[str, float]] = TTLCache(max_local, AFFINITY_S, timer=clock.monotonic)
        self._writes: set[asyncio.Task[None]] = set()

    async def provider_for(self, user: str, patience: RedisPatience | None = None) -> str | None:
        """Returns the provider that a user stays with; one round trip at most, none where the move was made here."""
        entry = self._local.get(user)
        if entry is None or entry[1] <= self._clock.time():
            entry = await self._read(user, patience)
        return entry[0] if entry is not None and entry[1] > self._clock.time() else None

    def begin(self, user: str, provider: str) -> None:
        """Keeps a user with a provider: at once in this process, soon after at the other replicas."""
        until = self._clock.time() + AFFINITY_S
        self._local[user] = (provider, until)
        write = asyncio.create_task(self._write(user, provider, until), name="affinity.write")
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def close(self) -> None:
        """Finishes pending writes; each fails within the timeout of a Redis call."""
        await asyncio.gather(*self._writes)

    async def _read(self, user: str, patience: RedisPatience | None) -> tuple[str, float] | None:
        try:
            stored = await self._redis.call(lambda redis: redis.get(self._prefix + user), patience)
            if stored is None:
                return None
            provider, until = parse_json(stored)
            # A clock that is ahead must not keep a user for longer.
            return str(provider), min(float(until), self._clock.time() + AFFINITY_S)
        except RedisUnavailable:
            return None
        except (ValueError, TypeError):
            log.warning("affinity.entry_unreadable")
            return None

    async def _write(self, user: str, provider: str, until: float) -> None:
        # The end is in the value, by the replicas' own clocks like all shared instants; the expiry only cleans up.
        value = json.dumps([provider, until])
        try:
            await self._redis.call(lambda redis: redis.set(self._prefix + user, value, ex=AFFINITY_S))
        except RedisUnavailable:
            # The entry stays valid at this replica.
            return
        except Exception:
            log.exception("affinity.write_failed")
