"""What admins are told by themselves, and how often."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from core.redis.client import open_redis
from services.admin.notices import LEADER_PAUSE_S, MISCONFIGURED_PAUSE_S, QUEUE_LIMIT, AdminNotices
from services.llm.routing.fallback import LeaderChanged, Misconfigured
from tests.support.clock import ManualClock
from tests.support.processes.redis_server import RedisServer

LOST = LeaderChanged("a", "b", "HTTP 503")
BACK = LeaderChanged("b", "a", None)
WRONG_KEY = Misconfigured("a", "HTTP 401")
LOST_TEXT = "a failed (HTTP 503). b answers now. /provider shows more."


class Admins:
    """Who is told, and what."""

    def __init__(self, redis: Redis, clock: ManualClock) -> None:
        self.told: list[str] = []
        self.deaf = False
        self.notices = AdminNotices(redis, "understudy", clock, self.tell)
        self.task = asyncio.create_task(self.notices.run())

    async def tell(self, text: str) -> None:
        if self.deaf:
            raise ValueError("out of tune")
        self.told.append(text)

    async def hear(self, *events: LeaderChanged | Misconfigured) -> list[str]:
        """Tell of events, wait until each was dealt with, and give everything that was told so far."""
        for event in events:
            self.notices.hear(event)
        for _ in range(1000):
            if self.notices._events.empty():
                break
            await asyncio.sleep(0.005)
        # The last one may still be asking Redis.
        await asyncio.sleep(0.02)
        return self.told


@pytest.fixture
async def admins(redis: Redis, clock: ManualClock) -> AsyncIterator[Admins]:
    admins = Admins(redis, clock)
    yield admins
    admins.task.cancel()
    await asyncio.wait([admins.task])


async def test_a_change_of_the_leader_and_its_return_are_told(admins: Admins) -> None:
    assert await admins.hear(LOST, BACK) == [LOST_TEXT, "a answers again, in place of b."]


async def test_at_most_one_of_each_in_five_minutes(admins: Admins, clock: ManualClock, redis: Redis) -> None:
    """A provider that comes and goes all the time is told of now and then, not all the time."""
    assert len(await admins.hear(LOST, BACK, LOST, BACK)) == 2
    clock.shift(LEADER_PAUSE_S - 1)
    assert len(await admins.hear(LOST)) == 2
    clock.shift(2)
    await redis.flushall()  # what Redis has by then let go
    assert await admins.hear(LOST) == [*admins.told[:2], LOST_TEXT]


async def test_a_wrong_key_is_told_once_a_day_for_each_provider_and_reason(
    admins: Admins, clock: ManualClock, redis: Redis
) -> None:
    assert len(await admins.hear(WRONG_KEY, WRONG_KEY)) == 1
    clock.shift(LEADER_PAUSE_S + 1)
    assert len(await admins.hear(WRONG_KEY)) == 1
    assert len(await admins.hear(Misconfigured("b", "HTTP 401"), Misconfigured("a", "HTTP 402"))) == 3
    clock.shift(MISCONFIGURED_PAUSE_S)
    await redis.flushall()
    told = await admins.hear(WRONG_KEY)
    assert len(told) == 4
    assert told[3].startswith("a does not accept its key, account or model: HTTP 401. ")


async def test_of_all_replicas_one_tells(admins: Admins, redis: Redis, clock: ManualClock) -> None:
    """And Redis keeps that for as long as it holds, no longer."""
    other = Admins(redis, clock)
    await asyncio.gather(admins.hear(LOST), other.hear(LOST))
    assert admins.told + other.told == [LOST_TEXT]
    assert 0 < await redis.ttl("understudy:{llm}:told:lost") <= LEADER_PAUSE_S
    other.task.cancel()
    await asyncio.wait([other.task])


async def test_without_redis_they_are_told_all_the_same(redis_server: RedisServer, clock: ManualClock) -> None:
    """Twice by two replicas is better than not at all; but each tells once."""
    client = open_redis(redis_server.url)
    await redis_server.stop()
    admins = Admins(client, clock)
    assert await admins.hear(LOST, LOST) == [LOST_TEXT]
    admins.task.cancel()
    await asyncio.wait([admins.task])
    await client.aclose()


async def test_a_notice_that_could_not_be_sent_does_not_end_the_notices(admins: Admins) -> None:
    admins.deaf = True
    with capture_logs() as logs:
        await admins.hear(LOST)
    assert [entry["event"] for entry in logs] == ["admins.told", "admins.not_told"]
    admins.deaf = False
    assert await admins.hear(BACK) == ["a answers again, in place of b."]


async def test_hearing_never_blocks_and_the_newest_news_stay(redis: Redis, clock: ManualClock) -> None:
    async def nobody(_: str) -> None:
        raise AssertionError

    notices = AdminNotices(redis, "understudy", clock, nobody)
    for number in range(QUEUE_LIMIT + 5):
        notices.hear(Misconfigured("a", str(number)))
    assert notices._events.qsize() == QUEUE_LIMIT
    assert notices._events.get_nowait() == Misconfigured("a", "5")
