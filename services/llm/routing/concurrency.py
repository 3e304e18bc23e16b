"""Concurrency limits: at most `<ID>_MAX_CONCURRENCY` requests in flight at a provider, over all replicas.

Each request in flight holds a lease: a member of a sorted set in Redis whose score is the instant at which it expires
even if its holder dies. Taking a lease is one transaction. It adds the newcomer last, whatever its expiry, and cuts off
what exceeds the limit, so a request with an earlier expiry (another clock, another timeout) cannot displace one that
was there before.

A provider without a limit is only counted, in this process. While Redis is unavailable each replica applies the limit
alone; leases that Redis missed are written when it is back.

Waiting requests queue first in, first out within a replica. The head of the queue polls, and is woken when a request
of the same replica ends, unless another replica has a queue too: that one would never get a slot.
"""

import asyncio
import contextlib
import math
import random
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from redis.asyncio import Redis

from core.clock import Clock
from core.config.settings import ProviderSettings
from core.redis.guard import FailFastRedis, RedisUnavailable
from services.llm.routing.affinity import ProviderAffinity

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LimiterTiming:
    """Waits and expiries of the concurrency limiter, in seconds.

    Args:
        lease_margin_s: by how much a lease outlives the longest answer, for clock differences and a slow machine.
        poll_s: shortest and longest pause between two polls of the head of a queue for a slot that another replica
            released; random, so that all replicas get a chance.
        queue_ttl_s: how long a replica's queue counts after its last poll.
        key_ttl_s: by how much the sorted set outlives its last lease, and with it Redis' own clock.
        close_s: how long closing waits for pending writes.
    """

    lease_margin_s: float = 10.0
    poll_s: tuple[float, float] = (0.05, 0.15)
    queue_ttl_s: float = 1.0
    key_ttl_s: int = 60
    close_s: float = 1.0


MAX_UNWRITTEN = 10_000
"""Leases that are remembered while Redis is unavailable."""


@dataclass(slots=True, eq=False)
class Slot:
    """The right to have one request in flight, held until `ConcurrencyLimiter.release`."""

    provider: ProviderSettings
    lease: str | None = None
    """Its member in Redis; None where the provider has no limit."""
    may_be_stored: bool = False
    """True if Redis may have the lease."""


@dataclass(slots=True)
class _ProviderQueue:
    """This replica's view of one provider's slots."""

    key: str
    queues_key: str
    """The replicas that have a queue, each with the instant until which that counts."""
    in_flight: int = 0
    waiters: deque[asyncio.Event] = field(default_factory=deque[asyncio.Event])
    """First in, first out."""
    unwritten: dict[str, float | None] = field(default_factory=dict[str, float | None])
    """Leases to be written to Redis, with their expiry; None for those to be removed."""
    writer: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Let the head of the queue try."""
        if self.waiters:
            self.waiters[0].set()


class ConcurrencyLimiter:
    """Grants slots at all providers.

    Args:
        redis: a client with `decode_responses=True`; None where each replica applies the limits alone.
        prefix: of all keys.
    """

    def __init__(self, redis: Redis | None, prefix: str, clock: Clock, timing: LimiterTiming | None = None) -> None:
        self._redis = FailFastRedis(redis, "concurrency")
        self._prefix = f"{prefix}:{{llm}}"
        self._clock = clock
        self._timing = timing or LimiterTiming()
        self._replica = uuid.uuid4().hex[:12]
        self._lease_count = 0
        self._queues: dict[str, _ProviderQueue] = {}

    def in_flight(self, provider: str) -> int:
        """Return the number of this replica's requests in flight at a provider."""
        queue = self._queues.get(provider)
        return queue.in_flight if queue is not None else 0

    async def take(self, provider: ProviderSettings) -> Slot | None:
        """Return a slot if one is free and no request is queued for it; without a limit one is always free."""
        queue = self._queue(provider.id)
        if provider.max_concurrency is None:
            queue.in_flight += 1
            return Slot(provider)
        return None if queue.waiters else await self._try_take(queue, provider, provider.max_concurrency)

    async def wait(self, providers: Sequence[ProviderSettings]) -> Slot | None:
        """Return the first slot that becomes free at one of the providers.

        Each is waited for as long as its first output may take; None if none became free.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        wakeup = asyncio.Event()
        waiting = {provider.id: provider for provider in providers}
        for name in waiting:
            self._queue(name).waiters.append(wakeup)
        try:
            while waiting:
                wakeup.clear()
                for name, provider in list(waiting.items()):
                    queue = self._queue(name)
                    limit = provider.max_concurrency
                    if queue.waiters[0] is wakeup and limit is not None:
                        slot = await self._try_take(queue, provider, limit)
                        if slot is not None:
                            return slot
                    if loop.time() >= began + _patience_s(provider):
                        del waiting[name]
                        self._leave(queue, wakeup)
                left_s = [began + _patience_s(provider) - loop.time() for provider in waiting.values()]
                if left_s:
                    pause_s = random.uniform(*self._timing.poll_s)  # noqa: S311 - jitter, not a secret
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(min(pause_s, *left_s)):
                            await wakeup.wait()
            return None
        finally:
            for name in waiting:
                self._leave(self._queue(name), wakeup)

    def extend(self, slot: Slot) -> None:
        """Renew a slot's lease: the same provider is asked once more."""
        if slot.lease is not None:
            self._schedule_write(self._queue(slot.provider.id), slot.lease, self._expiry(slot.provider))

    def release(self, slot: Slot) -> None:
        """End a request. The lease is removed in the background, and the head of the queue is woken after that."""
        queue = self._queue(slot.provider.id)
        queue.in_flight -= 1
        if slot.lease is None:
            return
        if not slot.may_be_stored and slot.lease in queue.unwritten and queue.writer is None:
            # It began and ended while Redis was unavailable.
            del queue.unwritten[slot.lease]
            queue.wake()
        else:
            self._schedule_write(queue, slot.lease, None)

    async def close(self) -> None:
        """Finish pending writes, as far as Redis takes them in time."""
        writers = [queue.writer for queue in self._queues.values() if queue.writer is not None]
        if writers:
            _, late = await asyncio.wait(writers, timeout=self._timing.close_s)
            for writer in late:
                writer.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _try_take(self, queue: _ProviderQueue, provider: ProviderSettings, limit: int) -> Slot | None:
        """Return a slot if one is free. It is counted before Redis is asked: this replica alone may fill the limit."""
        if queue.in_flight >= limit:
            return None
        self._lease_count += 1
        lease = f"{self._replica}:{self._lease_count}"
        slot = Slot(provider, lease)
        queue.in_flight += 1
        is_granted = False
        try:
            is_granted = await self._acquire(queue, slot, lease, limit)
        finally:
            if not is_granted:
                queue.in_flight -= 1
        return slot if is_granted else None

    async def _acquire(self, queue: _ProviderQueue, slot: Slot, lease: str, limit: int) -> bool:
        if queue.unwritten and queue.writer is None and self._redis.is_open:
            # Left over from a time without Redis: other replicas must see these leases first.
            await asyncio.shield(self._start_writer(queue))
        now, expiry = self._clock.time(), self._expiry(slot.provider)
        ended = [name for name, its_expiry in queue.unwritten.items() if its_expiry is None]

        async def acquire(redis: Redis) -> bool:
            async with redis.pipeline(transaction=True) as pipe:
                # Ended a moment ago, not removed yet: the next step of a tool loop comes before that write.
                if ended:
                    pipe.zrem(queue.key, *ended)
                pipe.zremrangebyscore(queue.key, "-inf", now)
                if queue.waiters:
                    pipe.zadd(queue.queues_key, {self._replica: now + self._timing.queue_ttl_s})
                    pipe.expire(queue.queues_key, self._timing.key_ttl_s)
                # Last in the order until it is known to fit. While replicas disagree about the limit, the lower one
                # drops the youngest leases above it; those are only missing from the count.
                pipe.zadd(queue.key, {lease: math.inf})
                pipe.zremrangebyrank(queue.key, limit, -1)
                pipe.expire(queue.key, int(self._lease_s(slot.provider)) + self._timing.key_ttl_s)
                pipe.zadd(queue.key, {lease: expiry}, xx=True, ch=True)
                slot.may_be_stored = True
                results = await pipe.execute()
            return results[-1] == 1

        try:
            return await self._redis.call(acquire)
        except RedisUnavailable:
            self._schedule_write(queue, lease, expiry)
            return True
        except BaseException:
            # Cancelled: Redis may have granted the lease.
            if slot.may_be_stored:
                self._schedule_write(queue, lease, None)
            raise

    def _schedule_write(self, queue: _ProviderQueue, lease: str, expiry: float | None) -> None:
        queue.unwritten[lease] = expiry
        self._start_writer(queue)

    def _start_writer(self, queue: _ProviderQueue) -> asyncio.Task[None]:
        """Return the one task that writes this provider's leases, in order: no removal overtakes its lease."""
        if queue.writer is None:
            queue.writer = asyncio.create_task(self._write_all(queue), name="concurrency.write")
        return queue.writer

    async def _write_all(self, queue: _ProviderQueue) -> None:
        is_alone = True
        try:
            while queue.unwritten:
                batch = dict(queue.unwritten)
                is_alone = await self._redis.call(lambda redis, batch=batch: self._write(redis, queue, batch))
                queue.unwritten = {
                    name: expiry for name, expiry in queue.unwritten.items() if batch.get(name, math.nan) != expiry
                }
        except RedisUnavailable:
            # Redis would no longer count leases that have expired since; of too many, the oldest have.
            now = self._clock.time()
            left = [(name, expiry) for name, expiry in queue.unwritten.items() if expiry is None or expiry > now]
            queue.unwritten = dict(left[-MAX_UNWRITTEN:])
        except Exception:
            # The leases expire by themselves.
            log.exception("concurrency.write_failed")
        finally:
            queue.writer = None
            if is_alone:
                queue.wake()

    async def _write(self, redis: Redis, queue: _ProviderQueue, leases: dict[str, float | None]) -> bool:
        """Write leases and removals; returns whether no other replica has a queue."""
        removed = [name for name, expiry in leases.items() if expiry is None]
        held = {name: expiry for name, expiry in leases.items() if expiry is not None}
        if removed:
            await redis.zrem(queue.key, *removed)
        if held:
            await redis.zadd(queue.key, held)
        if not queue.waiters:
            return True
        replicas = await redis.zrangebyscore(queue.queues_key, self._clock.time(), "+inf")
        return not set(replicas) - {self._replica}

    def _leave(self, queue: _ProviderQueue, wakeup: asyncio.Event) -> None:
        queue.waiters.remove(wakeup)
        queue.wake()

    def _queue(self, provider: str) -> _ProviderQueue:
        queue = self._queues.get(provider)
        if queue is None:
            queue = self._queues[provider] = _ProviderQueue(
                f"{self._prefix}:inflight:{provider}", f"{self._prefix}:lines:{provider}"
            )
        return queue

    def _expiry(self, provider: ProviderSettings) -> float:
        return self._clock.time() + self._lease_s(provider)

    def _lease_s(self, provider: ProviderSettings) -> float:
        return provider.timeout_s + self._timing.lease_margin_s


class LoadShedding:
    """Concurrency limits of the providers, and the providers that users stay with after load shedding.

    Args:
        redis: a client with `decode_responses=True`; None where each replica decides alone.
        prefix: of all keys.
    """

    def __init__(self, redis: Redis | None, prefix: str, clock: Clock) -> None:
        self.limiter = ConcurrencyLimiter(redis, prefix, clock)
        self.affinity = ProviderAffinity(redis, prefix, clock)

    async def close(self) -> None:
        """Finish pending writes."""
        await self.limiter.close()
        await self.affinity.close()


def _patience_s(provider: ProviderSettings) -> float:
    return min(provider.first_token_timeout_s, provider.timeout_s)
