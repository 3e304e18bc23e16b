"""Limits of a party, which is a person or a group: events in a minute, and turns at once.

Rates are sliding windows of a minute, shared over replicas while Redis is reachable. Each window is a sorted set of
events, scored with the time at which they happened: an event that is taken in twice counts once, and messages that
piled up while the bot was down count at their own times. A surplus is removed again, so that a flood neither fills the
window nor prolongs it.

A turn first takes a slot of its person, in order of arrival, and then waits in the queue of its party. As many run as
the process bears: beyond `least`, one more begins at once only while the event loop is on time and the database has no
backlog. Otherwise a thousand people who write at one instant would all wait for the last of them.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from cachetools import LRUCache
from redis.asyncio import Redis

from core.redis.guard import FailFastRedis, RedisUnavailable
from services.limits.running_leases import RunningLeases

WINDOW_S = 60.0
COMMANDS = 4
"""Redis commands of each group of events in `_add_to_redis`, the last of which tells the admitted ones."""


@dataclass(frozen=True, slots=True)
class RateEvent:
    """Something that counts in a window.

    Args:
        window: name of the window.
        id: tells events apart; ids of one second sort in the order of the events.
        at: when it happened, in seconds since the epoch.
        limit: events of the window in a minute; one that does not fit is refused.
    """

    window: str
    id: str
    at: float
    limit: int


class RateLimiter:
    """The windows of all parties.

    Args:
        redis: a client with `decode_responses=True`; None counts in this process only.
        prefix: prefix of all Redis keys.
        local_windows: windows kept in this process; the least recently used one is evicted.
    """

    def __init__(self, redis: Redis | None, prefix: str, *, local_windows: int = 10_000) -> None:
        self._redis = FailFastRedis(redis, "limits") if redis is not None else None
        # One slot of a cluster, so that the events of a batch are one transaction.
        self._prefix = f"{prefix}:{{limits}}:rate"
        self._local: LRUCache[str, dict[str, float]] = LRUCache(local_windows)

    async def admit(self, events: Sequence[RateEvent]) -> list[bool]:
        """Adds events in their order and returns for each whether it fits its window. Idempotent."""
        if not events:
            return []
        runs = [list(run) for _, run in groupby(events, lambda event: (event.window, event.at, event.limit))]
        # Counted locally as well, so that this replica can continue when Redis fails.
        local = [admitted for run in runs for admitted in self._add_locally(run)]
        if self._redis is None:
            return local
        try:
            return await self._redis.call(lambda redis: self._add_to_redis(redis, runs))
        except RedisUnavailable:
            return local

    def is_full(self, event: RateEvent) -> bool:
        """Returns whether this process knows that an event does not fit, without asking Redis. Adds nothing."""
        window = self._local.get(event.window, {})
        since = event.at - WINDOW_S
        return event.id not in window and sum(at > since for at in window.values()) >= event.limit

    def renewal_s(self, window: str, at: float) -> float:
        """Returns the seconds until a full window admits an event again, as far as this process knows."""
        oldest = min(self._local.get(window, {}).values(), default=at)
        return min(max(oldest + WINDOW_S - at, 1.0), WINDOW_S)

    async def _add_to_redis(self, redis: Redis, runs: Sequence[Sequence[RateEvent]]) -> list[bool]:
        async with redis.pipeline(transaction=True) as pipe:
            for run in runs:
                first, key = run[0], f"{self._prefix}:{run[0].window}"
                pipe.zremrangebyscore(key, "-inf", first.at - WINDOW_S)
                pipe.zadd(key, {event.id: event.at for event in run}, nx=True)
                # The newest go first, which are these.
                pipe.zremrangebyrank(key, first.limit, -1)
                pipe.zmscore(key, [event.id for event in run])
            for key in {f"{self._prefix}:{run[0].window}" for run in runs}:
                pipe.expire(key, int(2 * WINDOW_S))
            results = await pipe.execute()
        scores = cast("list[list[float | None]]", results[COMMANDS - 1 : COMMANDS * len(runs) : COMMANDS])
        return [score is not None for run in scores for score in run]

    def _add_locally(self, run: Sequence[RateEvent]) -> list[bool]:
        first = run[0]
        window = {name: at for name, at in self._local.get(first.window, {}).items() if at > first.at - WINDOW_S}
        for event in run:
            if len(window) < first.limit:
                window.setdefault(event.id, event.at)
        self._local[first.window] = window
        return [event.id in window for event in run]


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
