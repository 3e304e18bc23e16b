"""Leases of concurrency slots in Redis, for one provider.

Each request in flight holds a lease: a member of a sorted set, with the instant as its score at which it expires even
if its holder dies. Taking a lease is one transaction. It adds the newcomer last, with any expiry, and cuts off members
beyond the limit, so a request with an earlier expiry (another clock, another timeout) cannot displace one that was
there before.

While Redis is unavailable, leases and removals are kept and written when it is back. A lease that Redis may have is
always removed in the end, even where every answer about it was lost.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis

from core.background import cancel_and_wait
from core.clock import Clock
from core.redis.guard import FailFastRedis, RedisPatience, RedisUnavailable

log = structlog.get_logger()

MAX_UNWRITTEN = 10_000
"""Leases that are remembered while Redis is unavailable."""


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Expiries of leases and pauses of their writer, in seconds.

    Args:
        lease_margin_s: time added to the longest answer in a lease, for clock differences and a slow machine.
        longest_lease_s: a lease that ends later than this was written by a wrong clock, and is shortened.
        queue_ttl_s: how long a replica's queue counts after its last poll.
        key_ttl_s: time that the sorted set, and with it Redis' own clock, outlives its last lease.
        rewrite_s: shortest pause before a write that failed is repeated.
        check_s: shortest interval of looking for leases that a wrong clock wrote, while the limit is reached.
        close_s: how long closing waits for pending writes.
    """

    lease_margin_s: float = 10.0
    longest_lease_s: float = 660.0
    queue_ttl_s: float = 1.0
    key_ttl_s: int = 60
    rewrite_s: float = 0.1
    check_s: float = 5.0
    close_s: float = 1.0


class ProviderLeases:
    """This replica's leases at one provider.

    Args:
        redis: guards the calls; all providers share it.
        prefix: prefix of all Redis keys.
        provider: id of the provider.
        replica: identifies this process.
        has_queue: returns whether requests of this replica wait for a slot.
        on_written: called after each round of writes, unless another replica has a queue.
    """

    def __init__(
        self,
        redis: FailFastRedis,
        prefix: str,
        provider: str,
        replica: str,
        clock: Clock,
        timing: LeaseTiming,
        has_queue: Callable[[], bool],
        on_written: Callable[[], None],
    ) -> None:
        self._redis = redis
        self._key = f"{prefix}:inflight:{provider}"
        self._queues_key = f"{prefix}:lines:{provider}"
        """The replicas that have a queue, each with the instant until which that counts."""
        self._provider = provider
        self._replica = replica
        self._clock = clock
        self._timing = timing
        self._has_queue = has_queue
        self._on_written = on_written
        self._unwritten: dict[str, float | None] = {}
        """Leases to be written to Redis, with their expiry; None for those to be removed."""
        self._sent: set[str] = set()
        """Leases that Redis may have."""
        self._in_transit: Counter[str] = Counter()
        """Leases that a newcomer's transaction carries. Their removal waits for it, so that it does not come first."""
        self._lease_s = 0.0
        self._check_at = 0.0
        """The event loop's time from which leases that a wrong clock wrote are looked for again."""
        self._is_check_due = False
        self.writer: asyncio.Task[None] | None = None

    async def acquire(self, lease: str, limit: int, lease_s: float, patience: RedisPatience | None) -> bool:
        """Takes a lease; returns False if the limit is reached. Without Redis it is granted, and written later."""
        self._lease_s = lease_s
        expiry = self._clock.time() + lease_s
        carried = dict(self._unwritten)
        self._in_transit.update(carried.keys())
        try:
            is_granted = await self._redis.call(
                lambda redis: self._acquire(redis, lease, limit, expiry, carried), patience
            )
        except RedisUnavailable:
            is_granted = True
            self._unwritten[lease] = expiry
        except BaseException:
            # Cancelled: Redis may have granted the lease.
            if lease in self._sent:
                self._unwritten[lease] = None
            raise
        else:
            self._note_written(carried)
            if not is_granted:
                self._sent.discard(lease)
                self._is_check_due = asyncio.get_running_loop().time() >= self._check_at
        finally:
            self._in_transit -= Counter(carried.keys())
            if self._is_check_due or self._writable():
                self._start_writer()
        return is_granted

    async def _acquire(
        self, redis: Redis, lease: str, limit: int, expiry: float, carried: dict[str, float | None]
    ) -> bool:
        now = self._clock.time()
        self._sent.update(carried, (lease,))
        async with redis.pipeline(transaction=True) as pipe:
            # Ended a moment ago, not removed yet: the next step of a tool loop comes before that write.
            if ended := [name for name, end in carried.items() if end is None]:
                pipe.zrem(self._key, *ended)
            # Left over from a time without Redis: they count before the newcomer.
            if held := {name: end for name, end in carried.items() if end is not None}:
                pipe.zadd(self._key, held)
            pipe.zremrangebyscore(self._key, "-inf", now)
            if self._has_queue():
                pipe.zadd(self._queues_key, {self._replica: now + self._timing.queue_ttl_s})
                pipe.expire(self._queues_key, self._timing.key_ttl_s)
            # Last in the order until it is known to fit. While replicas disagree about the limit, the lower one
            # drops the youngest leases above it; those are only missing from the count.
            pipe.zadd(self._key, {lease: math.inf})
            pipe.zremrangebyrank(self._key, limit, -1)
            pipe.expire(self._key, int(self._lease_s) + self._timing.key_ttl_s)
            pipe.zadd(self._key, {lease: expiry}, xx=True, ch=True)
            results = await pipe.execute()
        return results[-1] == 1

    def renew(self, lease: str, lease_s: float) -> None:
        """Extends a lease in the background."""
        self._unwritten[lease] = self._clock.time() + lease_s
        self._start_writer()

    def remove(self, lease: str) -> bool:
        """Ends a lease; returns False if Redis never had it, so that there is nothing to write."""
        if lease not in self._sent:
            self._unwritten.pop(lease, None)
            return False
        self._unwritten[lease] = None
        self._start_writer()
        return True

    async def close(self) -> None:
        """Finishes pending writes, as far as Redis takes them in time."""
        if self.writer is None:
            return
        timeout_s = self._timing.close_s if self._redis.opens_in_s <= self._timing.close_s else 0.0
        _, late = await asyncio.wait([self.writer], timeout=timeout_s)
        await cancel_and_wait(*late)

    def _writable(self) -> dict[str, float | None]:
        return {name: expiry for name, expiry in self._unwritten.items() if not self._in_transit[name]}

    def _start_writer(self) -> None:
        """Starts the one task that writes this provider's leases, in order: no removal overtakes its lease."""
        if self.writer is None:
            self.writer = asyncio.create_task(self._write_all(), name="concurrency.write")

    async def _write_all(self) -> None:
        is_alone: bool | None = None
        try:
            while self._is_check_due or self._writable():
                if batch := self._writable():
                    is_alone = await self._write_batch(batch)
                else:
                    await self._shorten_overlong()
        except Exception:
            # The leases expire by themselves.
            log.exception("concurrency.write_failed", provider=self._provider)
        finally:
            self.writer = None
            if is_alone:
                self._on_written()

    async def _write_batch(self, batch: dict[str, float | None]) -> bool:
        """Writes, or waits until Redis may be back; returns whether the queue of this replica may be woken at once."""
        try:
            is_alone = await self._redis.call(lambda redis: self._write(redis, batch))
        except RedisUnavailable:
            self._drop_expired()
            self._on_written()
            await asyncio.sleep(max(self._redis.opens_in_s, self._timing.rewrite_s))
            return True
        self._note_written(batch)
        return is_alone

    async def _write(self, redis: Redis, leases: dict[str, float | None]) -> bool:
        """Writes leases and removals; returns whether no other replica has a queue."""
        removed = [name for name, expiry in leases.items() if expiry is None]
        held = {name: expiry for name, expiry in leases.items() if expiry is not None}
        self._sent.update(held)
        if removed:
            await redis.zrem(self._key, *removed)
        if held:
            await redis.zadd(self._key, held)
        if not self._has_queue():
            return True
        now = self._clock.time()
        # An instant further away is of a clock that is wrong.
        latest = now + 10 * self._timing.queue_ttl_s
        replicas = await redis.zrangebyscore(self._queues_key, now, latest)
        return not set(replicas) - {self._replica}

    def _note_written(self, batch: dict[str, float | None]) -> None:
        for name, expiry in batch.items():
            if self._unwritten.get(name, math.nan) == expiry:
                del self._unwritten[name]
                if expiry is None:
                    self._sent.discard(name)

    def _drop_expired(self) -> None:
        """Forgets leases that Redis would no longer count; of too many, the oldest have expired."""
        now = self._clock.time()
        left = [(name, expiry) for name, expiry in self._unwritten.items() if expiry is None or expiry > now]
        self._unwritten = dict(left[-MAX_UNWRITTEN:])

    async def _shorten_overlong(self) -> None:
        """Shortens leases that end later than any right clock can have written."""
        if not self._is_check_due:
            return
        self._is_check_due = False
        self._check_at = asyncio.get_running_loop().time() + self._timing.check_s
        now = self._clock.time()
        latest, end = now + max(self._timing.longest_lease_s, 2 * self._lease_s), now + self._lease_s

        async def shorten(redis: Redis) -> None:
            names = await redis.zrangebyscore(self._key, latest, "+inf")
            if names:
                log.warning("concurrency.leases_shortened", provider=self._provider, leases=len(names))
                await redis.zadd(self._key, {str(name): end for name in names}, xx=True)

        with suppress(RedisUnavailable):
            await self._redis.call(shorten)
