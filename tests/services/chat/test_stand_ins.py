"""The one answer per chat and outage that says that a remote provider stands in for a local one."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from core.redis.client import open_redis
from services.chat.stand_ins import StandInNotices
from services.chat.turn import StandIn
from tests.support.clock import ManualClock
from tests.support.processes.redis_server import free_port

CHAT, OTHER = "telegram:7", "telegram:8"
STAND_IN = StandIn("ollama", "openai")


class Outage:
    """The begin of the local provider's outage; None while it is healthy."""

    def __init__(self) -> None:
        self.since: float | None = 100.0

    def outage_since(self, provider: str) -> float | None:
        assert provider == STAND_IN.local
        return self.since


@pytest.fixture
def outage() -> Outage:
    return Outage()


@pytest.fixture
def replicas(redis: Redis, clock: ManualClock, outage: Outage) -> list[StandInNotices]:
    """Two replicas that share one Redis."""
    return [StandInNotices(redis, "test", clock, outage) for _ in range(2)]


@pytest.fixture
async def unreachable() -> AsyncIterator[Redis]:
    """A client whose server refuses the connection."""
    async with open_redis(f"redis://127.0.0.1:{free_port()}") as client:
        yield client


async def test_is_news_once_per_chat_over_all_replicas(replicas: list[StandInNotices]) -> None:
    first, second = replicas
    assert await first.is_news(CHAT, STAND_IN, "job-1")
    assert not await second.is_news(CHAT, STAND_IN, "job-2")
    assert not await first.is_news(CHAT, STAND_IN, None)
    assert await second.is_news(OTHER, STAND_IN, None)


async def test_is_news_again_for_the_same_job(replicas: list[StandInNotices]) -> None:
    """A job that is retried, here or elsewhere, delivers the same lines again."""
    for replica in (*replicas, *replicas):
        assert await replica.is_news(CHAT, STAND_IN, "job-1")


async def test_is_news_in_the_next_outage(replicas: list[StandInNotices], outage: Outage) -> None:
    for outage.since in (100.0, 900.0):
        assert [await replica.is_news(CHAT, STAND_IN, None) for replica in replicas] == [True, False]


async def test_is_news_about_a_single_refusal_once_a_day(
    replicas: list[StandInNotices], redis: Redis, outage: Outage
) -> None:
    outage.since = None
    assert [await replica.is_news(CHAT, STAND_IN, None) for replica in replicas] == [True, False]
    (key,) = await redis.keys("test:*")
    assert 0 < await redis.ttl(key) <= 24 * 3600
    await redis.delete(key)
    assert [await replica.is_news(CHAT, STAND_IN, None) for replica in replicas] == [True, False]


async def test_an_unreachable_redis_lets_each_replica_decide_alone(
    unreachable: Redis, clock: ManualClock, outage: Outage
) -> None:
    for replica in [StandInNotices(unreachable, "test", clock, outage) for _ in range(2)]:
        assert await replica.is_news(CHAT, STAND_IN, "job-1")
        assert not await replica.is_news(CHAT, STAND_IN, "job-2")
