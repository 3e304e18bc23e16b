"""Sliding windows of recent messages, by author and by text. Shared over replicas while Redis is reachable.

Each window is a sorted set of messages, scored with the time at which Telegram received them: a message that is
processed twice or late counts once, at its own time. All keys of a group share a slot and expire with their window.
"""

from dataclasses import dataclass

from cachetools import LRUCache
from redis.asyncio import Redis

from core.redis.guard import FailFastRedis, RedisUnavailable


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """Bounds of the windows.

    Args:
        local_windows: windows kept in this process; the least recently used one is evicted.
        members: messages per window, more than the limit of any rule.
        grace_s: time that a window outlives its last message, for late messages.
    """

    local_windows: int = 10_000
    members: int = 128
    grace_s: int = 60


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message and the windows that it counts in.

    Args:
        is_burst: a forward or an attachment: people send several at once, so those of one second count once.
        at: send time, seconds since the epoch.
        digest: of the text; None if texts are not compared.
        flood_s: length of the author's window; 0 disables it.
        duplicates_s: length of the text's window; 0 disables it.
    """

    group_id: int
    author_id: int
    message_id: int
    is_burst: bool
    at: float
    digest: str | None
    flood_s: int
    duplicates_s: int


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """Messages in the windows, the new one included."""

    by_author: int = 0
    same_by_author: int = 0
    same_in_group: int = 0


class RateWindows:
    """The windows of all groups.

    Args:
        redis: a client with `decode_responses=True`; None counts in this process only.
        prefix: prefix of all Redis keys.
    """

    def __init__(self, redis: Redis | None, prefix: str, limits: WindowLimits | None = None) -> None:
        self._redis = FailFastRedis(redis, "moderation")
        self._prefix = prefix
        self._limits = limits or WindowLimits()
        self._local: LRUCache[str, dict[str, float]] = LRUCache(self._limits.local_windows)

    async def add(self, arrival: Arrival) -> WindowCounts:
        """Adds a message and returns the counts of its windows. Idempotent."""
        windows = self._select_windows(arrival)
        member = f"{arrival.author_id}:{f's{arrival.at:.0f}' if arrival.is_burst else arrival.message_id}"
        # Counted locally as well, so that this replica can continue when Redis fails.
        local = [self._add_locally(key, member, arrival.at, window_s) for key, window_s in windows]
        try:
            found = await self._redis.call(lambda redis: self._add_to_redis(redis, windows, member, arrival.at))
        except RedisUnavailable:
            found = local
        counted = dict(zip((key for key, _ in windows), found, strict=True))
        same = counted.get(self._text_key(arrival), [])
        return WindowCounts(
            by_author=len(counted.get(self._author_key(arrival), [])),
            same_by_author=sum(each.startswith(f"{arrival.author_id}:") for each in same),
            same_in_group=len(same),
        )

    def _select_windows(self, arrival: Arrival) -> list[tuple[str, int]]:
        windows: list[tuple[str, int]] = []
        if arrival.flood_s:
            windows.append((self._author_key(arrival), arrival.flood_s))
        if arrival.duplicates_s and arrival.digest is not None:
            windows.append((self._text_key(arrival), arrival.duplicates_s))
        return windows

    async def _add_to_redis(
        self, redis: Redis, windows: list[tuple[str, int]], member: str, at: float
    ) -> list[list[str]]:
        if not windows:
            return []
        grace_s = self._limits.grace_s
        async with redis.pipeline(transaction=False) as pipe:
            for key, window_s in windows:
                pipe.zadd(key, {member: at})
                pipe.zremrangebyscore(key, "-inf", f"({at - window_s - grace_s}")
                pipe.zremrangebyrank(key, 0, -self._limits.members - 1)
                pipe.expire(key, window_s + grace_s)
                pipe.zrangebyscore(key, f"({at - window_s}", at)
            results = await pipe.execute()
        return results[4::5]

    def _add_locally(self, key: str, member: str, at: float, window_s: int) -> list[str]:
        window = {**self._local.get(key, {}), member: at}
        oldest = at - window_s - self._limits.grace_s
        kept = sorted(((name, when) for name, when in window.items() if when >= oldest), key=lambda each: each[1])
        window = self._local[key] = dict(kept[-self._limits.members :])
        return [name for name, when in window.items() if at - window_s < when <= at]

    def _author_key(self, arrival: Arrival) -> str:
        return f"{self._prefix}:{{group:{arrival.group_id}}}:from:{arrival.author_id}"

    def _text_key(self, arrival: Arrival) -> str:
        return f"{self._prefix}:{{group:{arrival.group_id}}}:same:{arrival.digest}"
