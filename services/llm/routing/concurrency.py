"""Slots: `<ID>_MAX_CONCURRENCY` requests at once for a provider, over all replicas.

Each request in flight holds a lease: a member of a sorted set in Redis, scored with the instant at which it ends even
if its holder dies. Taking one is one transaction, in which the newcomer stands last, whatever it brings: what does not
fit any more is cut off at the end, so that a request with an earlier end (another clock, another timeout) takes no slot
from one that was there before.

A provider without a limit is only counted, in this process. Without Redis each replica keeps to the limit by itself;
what Redis missed it is told when it is back.

Who waits stands in line, first come first served within a replica. The first in line looks again every now and then,
and as soon as a request of the same replica ends, unless another replica has a line too: it would never get a slot.
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

log = structlog.get_logger()

MARGIN_S = 10.0
"""A lease outlives the longest answer by this: by what clocks may differ, and by what a slow machine adds."""
POLL_S = (0.05, 0.15)
"""How often the first in line looks for a slot that another replica gave back; at random, so that all have a chance."""
LINE_S = 1.0
"""How long another replica's line is known after its first one looked."""
KEEP_S = 60
"""The set outlives its last lease by this, and Redis' own clock with it."""
UNTOLD_KEPT = 10_000
"""Leases that are remembered for a Redis that is gone."""
LAST_WRITE_S = 1.0
"""How long closing waits for Redis to hear of what ended."""


@dataclass(slots=True, eq=False)
class Slot:
    """The right to have one request in flight; held until `ConcurrencyLimiter.release`."""

    provider: ProviderSettings
    lease: str | None = None
    """Its name in Redis; None where the provider has no limit."""
    is_told: bool = False
    """Whether Redis may know of it."""


@dataclass(slots=True)
class _ProviderQueue:
    """What this replica knows of one provider's slots."""

    key: str
    lines_key: str
    """Which replicas have a line, each with the instant until which that is believed."""
    in_flight: int = 0
    line: deque[asyncio.Event] = field(default_factory=deque[asyncio.Event])
    """Who waits for a slot, in the order in which they came."""
    untold: dict[str, float | None] = field(default_factory=dict[str, float | None])
    """What Redis has not been told yet: leases with their end, and None for those that ended."""
    writer: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Let the first in line look."""
        if self.line:
            self.line[0].set()


class ConcurrencyLimiter:
    """The slots of all providers.

    Args:
        redis: a client with `decode_responses=True`; None where every replica is alone.
        prefix: what all keys begin with.
        clock: the time.
    """

    def __init__(self, redis: Redis | None, prefix: str, clock: Clock) -> None:
        self._reach = FailFastRedis(redis, "slots")
        self._prefix = f"{prefix}:{{llm}}"
        self._clock = clock
        self._replica = uuid.uuid4().hex[:12]
        self._leases = 0
        self._desks: dict[str, _ProviderQueue] = {}

    def in_flight(self, provider: str) -> int:
        """The requests of this replica that a provider is at work on."""
        desk = self._desks.get(provider)
        return desk.in_flight if desk is not None else 0

    async def take(self, provider: ProviderSettings) -> Slot | None:
        """A slot if one is free and nobody stands in line for it; without a limit one is always free."""
        desk = self._desk(provider.id)
        if provider.max_concurrency is None:
            desk.in_flight += 1
            return Slot(provider)
        return None if desk.line else await self._ask(desk, provider, provider.max_concurrency)

    async def wait(self, providers: Sequence[ProviderSettings]) -> Slot | None:
        """The first slot that is free at one of them; each is waited for as long as its first output might take."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        turn = asyncio.Event()
        waiting = {provider.id: provider for provider in providers}
        for name in waiting:
            self._desk(name).line.append(turn)
        try:
            while waiting:
                turn.clear()
                for name, provider in list(waiting.items()):
                    desk = self._desk(name)
                    limit = provider.max_concurrency
                    if desk.line[0] is turn and limit is not None:
                        slot = await self._ask(desk, provider, limit)
                        if slot is not None:
                            return slot
                    if loop.time() >= began + _patience_s(provider):
                        del waiting[name]
                        self._leave(desk, turn)
                left_s = [began + _patience_s(provider) - loop.time() for provider in waiting.values()]
                if left_s:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(min(random.uniform(*POLL_S), *left_s)):  # noqa: S311 - no secret
                            await turn.wait()
            return None
        finally:
            for name in waiting:
                self._leave(self._desk(name), turn)

    def extend(self, slot: Slot) -> None:
        """The same provider is asked once more: the lease begins anew."""
        if slot.lease is not None:
            self._tell(self._desk(slot.provider.id), slot.lease, self._end_of(slot.provider))

    def release(self, slot: Slot) -> None:
        """The request is over. Redis hears of it in the background, and whoever is first in line after that."""
        desk = self._desk(slot.provider.id)
        desk.in_flight -= 1
        if slot.lease is None:
            return
        if not slot.is_told and slot.lease in desk.untold and desk.writer is None:
            # It came and went while Redis was gone.
            del desk.untold[slot.lease]
            desk.wake()
        else:
            self._tell(desk, slot.lease, None)

    async def close(self) -> None:
        """Wait until Redis has heard of what ended, if it listens."""
        writers = [desk.writer for desk in self._desks.values() if desk.writer is not None]
        if writers:
            _, late = await asyncio.wait(writers, timeout=LAST_WRITE_S)
            for writer in late:
                writer.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _ask(self, desk: _ProviderQueue, provider: ProviderSettings, limit: int) -> Slot | None:
        """A slot if one is free. It counts here before Redis is asked: what this replica has alone may be enough."""
        if desk.in_flight >= limit:
            return None
        self._leases += 1
        lease = f"{self._replica}:{self._leases}"
        slot = Slot(provider, lease)
        desk.in_flight += 1
        is_granted = False
        try:
            is_granted = await self._granted(desk, slot, lease, limit)
        finally:
            if not is_granted:
                desk.in_flight -= 1
        return slot if is_granted else None

    async def _granted(self, desk: _ProviderQueue, slot: Slot, lease: str, limit: int) -> bool:
        if desk.untold and desk.writer is None and self._reach.is_open:
            # Left over from a time without Redis: others have to know of it first.
            await asyncio.shield(self._write_behind(desk))
        now, ends = self._clock.time(), self._end_of(slot.provider)
        ended = [name for name, its_end in desk.untold.items() if its_end is None]

        async def exchange(redis: Redis) -> bool:
            async with redis.pipeline(transaction=True) as pipe:
                # What ended a moment ago and is about to be told: the next step of a tool loop comes before that.
                if ended:
                    pipe.zrem(desk.key, *ended)
                pipe.zremrangebyscore(desk.key, "-inf", now)
                if desk.line:
                    pipe.zadd(desk.lines_key, {self._replica: now + LINE_S})
                    pipe.expire(desk.lines_key, KEEP_S)
                # Last in the order until it is known whether it fits. While replicas disagree about the limit, the
                # lower one forgets the youngest of the leases above it; they only miss in the count.
                pipe.zadd(desk.key, {lease: math.inf})
                pipe.zremrangebyrank(desk.key, limit, -1)
                pipe.expire(desk.key, int(_lease_s(slot.provider)) + KEEP_S)
                pipe.zadd(desk.key, {lease: ends}, xx=True, ch=True)
                slot.is_told = True
                results = await pipe.execute()
            return results[-1] == 1

        try:
            return await self._reach.call(exchange)
        except RedisUnavailable:
            self._tell(desk, lease, ends)
            return True
        except BaseException:
            # Cancelled: whether Redis has granted it, nobody knows.
            if slot.is_told:
                self._tell(desk, lease, None)
            raise

    def _tell(self, desk: _ProviderQueue, lease: str, ends: float | None) -> None:
        desk.untold[lease] = ends
        self._write_behind(desk)

    def _write_behind(self, desk: _ProviderQueue) -> asyncio.Task[None]:
        """The one task that tells Redis of this provider's leases: in order, so that no end overtakes its beginning."""
        if desk.writer is None:
            desk.writer = asyncio.create_task(self._write(desk), name="slots.write")
        return desk.writer

    async def _write(self, desk: _ProviderQueue) -> None:
        is_alone = True
        try:
            while desk.untold:
                told = dict(desk.untold)
                is_alone = await self._reach.call(lambda redis, told=told: self._written(redis, desk, told))
                desk.untold = {name: ends for name, ends in desk.untold.items() if told.get(name, math.nan) != ends}
        except RedisUnavailable:
            # What has run out since is nothing that Redis would still count; of very many the oldest will have.
            now = self._clock.time()
            left = [(name, ends) for name, ends in desk.untold.items() if ends is None or ends > now]
            desk.untold = dict(left[-UNTOLD_KEPT:])
        except Exception:
            # Reported; the leases run out by themselves.
            log.exception("slots.not_written")
        finally:
            desk.writer = None
            if is_alone:
                desk.wake()

    async def _written(self, redis: Redis, desk: _ProviderQueue, leases: dict[str, float | None]) -> bool:
        """Write what Redis has not been told; whether no other replica has a line."""
        gone = [name for name, ends in leases.items() if ends is None]
        held = {name: ends for name, ends in leases.items() if ends is not None}
        if gone:
            await redis.zrem(desk.key, *gone)
        if held:
            await redis.zadd(desk.key, held)
        if not desk.line:
            return True
        lines = await redis.zrangebyscore(desk.lines_key, self._clock.time(), "+inf")
        return not set(lines) - {self._replica}

    def _leave(self, desk: _ProviderQueue, turn: asyncio.Event) -> None:
        desk.line.remove(turn)
        desk.wake()

    def _desk(self, provider: str) -> _ProviderQueue:
        desk = self._desks.get(provider)
        if desk is None:
            desk = self._desks[provider] = _ProviderQueue(
                f"{self._prefix}:inflight:{provider}", f"{self._prefix}:lines:{provider}"
            )
        return desk

    def _end_of(self, provider: ProviderSettings) -> float:
        return self._clock.time() + _lease_s(provider)


def _lease_s(provider: ProviderSettings) -> float:
    return provider.timeout_s + MARGIN_S


def _patience_s(provider: ProviderSettings) -> float:
    return min(provider.first_token_timeout_s, provider.timeout_s)
