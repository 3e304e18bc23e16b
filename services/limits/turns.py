"""Places for turns: bounded in a process, given round robin by party, and at most a few at once to one person.

A turn first takes a slot of its person, in order of arrival, and then waits in the queue of its party. As many run as
the process bears: beyond `least`, one more begins at once only while the event loop is on time and the database has no
backlog. Otherwise a thousand people who write at one instant would all wait for the last of them.

The turns of a person are counted over all replicas by leases in Redis, renewed while the turns run. Without an answer
of Redis a replica decides alone. Leases of a replica that died expire.
"""

import asyncio
import math
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
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


Waiter = asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Bounds of the turns that run at once in a process.

    Args:
        most: turns that run at once.
        least: turns that begin however late the event loop is.
        late_s: delay of the event loop from which on the process is busy.
        backlog: waiting database transactions from which on it is busy.
        busy_begin_s: pause between two turns that begin while it is busy: beside other work of the machine the loop may
            always be late, and a database may hang for long.
        tick_s: pause between two looks at the delay while turns wait.
    """

    most: int = 3000
    least: int = 8
    late_s: float = 0.02
    backlog: int = 4
    busy_begin_s: float = 0.5
    tick_s: float = 0.005


@dataclass(frozen=True, slots=True)
class Quota:
    """A party and the number of its turns that may run at once."""

    party: str
    limit: int


class TurnPlaces:
    """The places of one process.

    Args:
        limits: bounds.
        leases: counts the turns of a person over all replicas; None for a single process.
        count_backlog: returns the number of waiting database transactions.
    """

    def __init__(
        self,
        limits: TurnLimits | None = None,
        leases: RunningLeases | None = None,
        count_backlog: Callable[[], int] = lambda: 0,
    ) -> None:
        self._limits = limits or TurnLimits()
        self._count_backlog = count_backlog
        self._leases = leases
        self._running = 0
        self._queues: OrderedDict[str, deque[Waiter]] = OrderedDict()
        """Waiting turns by party; the party at the front is next."""
        self._held: Counter[str] = Counter()
        """Taken slots by person or group."""
        self._slot_waiters: dict[str, deque[Waiter]] = {}
        self._pump: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """Turns that have a place."""
        return self._running

    @property
    def waiting(self) -> int:
        """Turns that wait for a place, without those that wait for others of their person."""
        return sum(map(len, self._queues.values()))

    @asynccontextmanager
    async def place(self, party: str, quotas: tuple[Quota, ...] = ()) -> AsyncGenerator[None]:
        """Holds a place while the context lasts, once it is the turn's turn.

        Args:
            party: the person or group that waits; parties are served one after the other.
            quotas: limits of the person and the group; 0 disables a limit.
        """
        async with AsyncExitStack() as stack:
            for quota in quotas:
                if quota.limit:
                    await self._take_slot(quota)
                    stack.callback(self._release_slot, quota.party)
                    if self._leases is not None:
                        await stack.enter_async_context(self._leases.lease(quota.party, quota.limit))
            await self._take_place(party)
            try:
                yield
            finally:
                self._running -= 1
                self._serve()

    def close(self) -> None:
        """Cancels the turns that wait, so that a shutdown begins no further one."""
        queues = [*self._queues.values(), *self._slot_waiters.values()]
        self._queues.clear()
        for waiter in [waiter for waiters in queues for waiter in waiters]:
            waiter.cancel()

    async def _take_slot(self, quota: Quota) -> None:
        if self._held[quota.party] < quota.limit:
            self._held[quota.party] += 1
            return
        waiter: Waiter = asyncio.get_running_loop().create_future()
        waiters = self._slot_waiters.setdefault(quota.party, deque())
        waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # Granted at the moment of the cancellation.
                self._release_slot(quota.party)
            raise

    def _release_slot(self, party: str) -> None:
        waiters = self._slot_waiters.get(party, deque[Waiter]())
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._slot_waiters.pop(party, None)
        self._held[party] -= 1
        if not self._held[party]:
            del self._held[party]

    async def _take_place(self, party: str) -> None:
        if self._running < self._limits.least and not self._queues:
            self._running += 1
            return
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._queues.setdefault(party, deque()).append(waiter)
        self._serve()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._running -= 1
            raise

    def _serve(self) -> None:
        """Gives out the places that are free however late the loop is; for more there is the pump."""
        while self._queues and self._running < self._limits.least:
            self._serve_next()
        if self._queues and self._pump is None:
            self._pump = asyncio.create_task(self._pump_places(), name="turns.pump")

    def _serve_next(self) -> None:
        """Gives a place to the first waiting turn of the next party."""
        party, waiters = self._queues.popitem(last=False)
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                self._running += 1
                waiter.set_result(None)
                break
        if waiters:
            # Behind all others.
            self._queues[party] = waiters

    async def _pump_places(self) -> None:
        """Gives out one place at a time, slowly while the process is busy, until no turn waits."""
        loop, limits = asyncio.get_running_loop(), self._limits
        begun_at = loop.time()
        try:
            while self._queues:
                due = loop.time() + limits.tick_s
                await asyncio.sleep(limits.tick_s)
                is_busy = loop.time() - due > limits.late_s or self._count_backlog() >= limits.backlog
                if is_busy and loop.time() - begun_at < limits.busy_begin_s and self._running >= limits.least:
                    continue
                if self._queues and self._running < limits.most:
                    self._serve_next()
                    begun_at = loop.time()
        finally:
            self._pump = None
