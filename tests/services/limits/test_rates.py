"""RateLimiter: sliding windows in the embedded store, a server, and without Redis."""

import pytest
from redis.asyncio import Redis

from core.redis.client import open_redis
from services.limits.rates import RateEvent, RateLimiter

BEGAN = 1_800_000_000.0


def events(count: int, *, at: float = 0.0, first: int = 0, window: str = "message:user:7") -> list[RateEvent]:
    return [RateEvent(window, f"{number:020d}", BEGAN + at, 20) for number in range(first, first + count)]


@pytest.fixture(params=["shared", "alone"])
def limiter(request: pytest.FixtureRequest, redis: Redis) -> RateLimiter:
    return RateLimiter(redis if request.param == "shared" else None, "test")


async def test_events_beyond_the_limit_are_refused(limiter: RateLimiter) -> None:
    """In their order, also within one second; other windows are their own."""
    assert await limiter.admit(events(25)) == [True] * 20 + [False] * 5
    assert await limiter.admit(events(3, at=30, first=30)) == [False] * 3
    assert await limiter.admit(events(3, window="message:user:8")) == [True] * 3


async def test_repeated_event_counts_once(limiter: RateLimiter) -> None:
    """Telegram repeats a batch that was not confirmed."""
    for _ in range(3):
        assert await limiter.admit(events(25)) == [True] * 20 + [False] * 5


async def test_window_slides(limiter: RateLimiter) -> None:
    """And refused events do not prolong it."""
    await limiter.admit(events(10))
    await limiter.admit(events(10, at=30, first=10))
    assert await limiter.admit(events(500, at=59, first=100)) == [False] * 500
    assert await limiter.admit(events(11, at=60, first=1000)) == [True] * 10 + [False]


async def test_backlog_counts_at_its_own_times(limiter: RateLimiter) -> None:
    """Messages of an hour come in one batch when the bot starts again."""
    batch = [event for minute in range(60) for event in events(3, at=60.0 * minute, first=10 * minute)]
    assert await limiter.admit(batch) == [True] * 180


async def test_renewal_is_when_the_oldest_event_leaves_the_window(limiter: RateLimiter) -> None:
    await limiter.admit(events(20))
    await limiter.admit(events(1, at=18, first=50))
    assert limiter.renewal_s("message:user:7", BEGAN + 18) == 42


async def test_replicas_share_the_windows(redis: Redis) -> None:
    first, second = RateLimiter(redis, "test"), RateLimiter(redis, "test")
    assert await first.admit(events(15)) == [True] * 15
    assert await second.admit(events(10, first=15)) == [True] * 5 + [False] * 5


async def test_replica_continues_alone_when_redis_is_silent(redis: Redis) -> None:
    """With the events counted so far."""
    limiter = RateLimiter(redis, "test")
    await limiter.admit(events(15))
    silent = open_redis("redis://127.0.0.1:1/0")
    limiter._redis._redis = silent
    assert await limiter.admit(events(10, first=15)) == [True] * 5 + [False] * 5
    await silent.aclose()
