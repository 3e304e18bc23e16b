"""What was said lately: how often by one author, how often the same. Shared over replicas while Redis answers.

Sorted sets whose members are messages, scored with the instants at which Telegram had them: a message that is handled
twice, or late, counts once and in its own place. All keys of a group share a slot and end with their window.
"""

from collections import OrderedDict
from dataclasses import dataclass

from redis.asyncio import Redis

from core.redis.guard import FailFastRedis, RedisUnavailable

MOST_KEYS = 10_000
"""Windows kept in this process; the one that was used least lately goes first."""
MOST_MEMBERS = 128
"""Messages of a window; more than any rule's limit."""
LATE_S = 60
"""A window outlives its last message by this, for messages that come late."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A message and which windows it falls into.

    Args:
        at: when it was sent, seconds since the epoch.
        digest: what its text is known by; None where it is not compared.
        flood_s: how far back messages of its author are counted; 0: not at all.
        duplicates_s: how far back equal texts are counted.
    """

    group_id: int
    author_id: int
    message_id: int
    at: float
    digest: str | None
    flood_s: int
    duplicates_s: int


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """What the windows hold, this message included."""

    by_author: int = 0
    same_by_author: int = 0
    same_in_group: int = 0


class RateWindows:
    """The windows of all groups.

    Args:
        redis: a client with `decode_responses=True`; None where every replica is alone.
        prefix: what all keys begin with.
    """

    def __init__(self, redis: Redis | None, prefix: str) -> None:
        self._reach = FailFastRedis(redis, "moderation")
        self._prefix = prefix
        self._windows: OrderedDict[str, dict[str, float]] = OrderedDict()

    async def see(self, sighting: Sighting) -> WindowCounts:
        """Remember a message; what was seen within its windows."""
        windows = self._windows_of(sighting)
        member = f"{sighting.author_id}:{sighting.message_id}"
        # Also here: when Redis goes, this replica goes on with what it has seen itself.
        here = [self._see_here(key, member, sighting.at, window_s) for key, window_s in windows]
        try:
            found = await self._reach.ask(lambda redis: self._see_there(redis, windows, member, sighting.at))
        except RedisUnavailable:
            found = here
        counted = dict(zip((key for key, _ in windows), found, strict=True))
        same = counted.get(self._same_key(sighting), [])
        return WindowCounts(
            by_author=len(counted.get(self._author_key(sighting), [])),
            same_by_author=sum(each.startswith(f"{sighting.author_id}:") for each in same),
            same_in_group=len(same),
        )

    def _windows_of(self, sighting: Sighting) -> list[tuple[str, int]]:
        windows: list[tuple[str, int]] = []
        if sighting.flood_s:
            windows.append((self._author_key(sighting), sighting.flood_s))
        if sighting.duplicates_s and sighting.digest is not None:
            windows.append((self._same_key(sighting), sighting.duplicates_s))
        return windows

    async def _see_there(self, redis: Redis, windows: list[tuple[str, int]], member: str, at: float) -> list[list[str]]:
        if not windows:
            return []
        async with redis.pipeline(transaction=False) as pipe:
            for key, window_s in windows:
                pipe.zadd(key, {member: at})
                pipe.zremrangebyscore(key, "-inf", f"({at - window_s - LATE_S}")
                pipe.zremrangebyrank(key, 0, -MOST_MEMBERS - 1)
                pipe.expire(key, window_s + LATE_S)
                pipe.zrangebyscore(key, f"({at - window_s}", at)
            results = await pipe.execute()
        return results[4::5]

    def _see_here(self, key: str, member: str, at: float, window_s: int) -> list[str]:
        window = self._windows.setdefault(key, {})
        self._windows.move_to_end(key)
        window[member] = at
        oldest = at - window_s - LATE_S
        kept = sorted(((name, when) for name, when in window.items() if when >= oldest), key=lambda each: each[1])
        self._windows[key] = dict(kept[-MOST_MEMBERS:])
        while len(self._windows) > MOST_KEYS:
            self._windows.popitem(last=False)
        return [name for name, when in self._windows[key].items() if at - window_s < when <= at]

    def _author_key(self, sighting: Sighting) -> str:
        return f"{self._prefix}:{{group:{sighting.group_id}}}:from:{sighting.author_id}"

    def _same_key(self, sighting: Sighting) -> str:
        return f"{self._prefix}:{{group:{sighting.group_id}}}:same:{sighting.digest}"
