"""The turns of a person that run at once, counted over all replicas by leases in Redis.

Leases are renewed while the turns run, and those of a replica that died expire. Without an answer of Redis a replica
decides alone.
"""

import asyncio
import math
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

import structlog
from redis.asyncio import Redis

from core.clock import Clock, draw_pause_s
from core.redis.guard import FailFastRedis, RedisUnavailable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RunningLeaseTiming:
    """Intervals, in seconds.

    Args:
        lease_s: how long a lease counts after its last renewal.
        renew_s: pause between two renewals of all leases.
        poll_s: shortest and longest pause between two tries for a slot that another replica's turn holds.
    """

    lease_s: float = 30.0
    renew_s: float = 10.0
    poll_s: tuple[float, float] = (0.1, 0.3)


class RunningLeases:
    """The leases of this replica.

    Args:
        redis: a client with `decode_responses=True`.
        prefix: prefix of all Redis keys.
    """

    def __init__(self, redis: Redis, prefix: str, clock: Clock, timing: RunningLeaseTiming | None = None) -> None:
        self._redis = FailFastRedis(redis, "running")
        self._prefix = f"{prefix}:{{limits}}:running"
        self._clock = clock
        self._timing = timing or RunningLeaseTiming()
        self._replica = uuid.uuid4().hex[:12]
        self._numbers = count(1)
        self._held: dict[str, str] = {}
        """Party by lease."""

    @asynccontextmanager
    async def lease(self, party: str, limit: int) -> AsyncGenerator[None]:
        """Holds one of the party's slots while the context lasts, once one is free."""
        name = f"{self._replica}:{next(self._numbers)}"
        self._held[name] = party
        try:
            while not await self._acquire(name, party, limit):
                await self._clock.sleep(draw_pause_s(*self._timing.poll_s))
            yield
        finally:
            del self._held[name]
            await self._release(name, party)

    async def run(self) -> None:
        """Renews the leases until cancelled."""
        while True:
            await self._clock.sleep(self._timing.renew_s)
            if held := dict(self._held):
                try:
                    await self._redis.call(lambda redis, held=held: self._renew(redis, held))
                except RedisUnavailable:
                    log.info("limits.leases_not_renewed", leases=len(held))

    async def _acquire(self, name: str, party: str, limit: int) -> bool:
        now, key = self._clock.time(), self._key(party)

        async def acquire(redis: Redis) -> bool:
            async with redis.pipeline(transaction=True) as pipe:
                pipe.zremrangebyscore(key, "-inf", now)
                # Last in the order until it is known to fit.
                pipe.zadd(key, {name: math.inf})
                pipe.zremrangebyrank(key, limit, -1)
                pipe.zadd(key, {name: now + self._timing.lease_s}, xx=True, ch=True)
                pipe.expire(key, int(2 * self._timing.lease_s))
                results = await pipe.execute()
            return results[3] == 1

        try:
            return await self._redis.call(acquire)
        except RedisUnavailable:
            return True

    async def _renew(self, redis: Redis, held: Mapping[str, str]) -> None:
        expiry = self._clock.time() + self._timing.lease_s
        async with redis.pipeline(transaction=False) as pipe:
            for name, party in held.items():
                # Those that wait for a slot have no member yet.
                pipe.zadd(self._key(party), {name: expiry}, xx=True)
                pipe.expire(self._key(party), int(2 * self._timing.lease_s))
            await pipe.execute()

    async def _release(self, name: str, party: str) -> None:
        async def remove(redis: Redis) -> None:
            await redis.zrem(self._key(party), name)

        try:
            # Also when the turn was cancelled: another one may wait for this slot.
            await asyncio.shield(self._redis.call(remove))
        except RedisUnavailable:
            log.info("limits.lease_not_released")

    def _key(self, party: str) -> str:
        return f"{self._prefix}:{party}"
