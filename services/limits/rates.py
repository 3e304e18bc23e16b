"""Rate limits: sliding windows of a minute, shared over replicas while Redis is reachable.

Each window is a sorted set of events, scored with the time at which they happened: an event that is taken in twice
counts once, and messages that piled up while the bot was down count at their own times. A surplus is removed again,
so that a flood neither fills the window nor prolongs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from cachetools import LRUCache
from redis.asyncio import Redis

from core.redis.guard import FailFastRedis, RedisUnavailable

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
        self._redis = FailFastRedis(redis, "limits")
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
