"""Notices to operators: content, rate and agreement between replicas."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bot.operators.notices import format_notice
from core.errors import FailedAttempt
from core.redis.client import open_redis
from services.admin.notices import (
    LEADER_PAUSE_S,
    MISCONFIGURED_PAUSE_S,
    OUTAGE_PAUSE_S,
    QUEUE_LIMIT,
    AdminNotices,
    Event,
)
from services.llm.routing.events import AnswersAgain, LeaderChanged, Misconfigured, NoProviderAnswers
from tests.support.clock import ManualClock
from tests.support.processes.redis_server import RedisServer

LOST = LeaderChanged("a", "b", "HTTP 503")
BACK = LeaderChanged("b", "a", None)
WRONG_KEY = Misconfigured("a", "HTTP 401")
LOST_TEXT = "a failed (HTTP 503). b answers now. /provider shows more."


class Admins:
    """Operators who receive the notices."""

    def __init__(self, redis: Redis, clock: ManualClock) -> None:
        self.received: list[str] = []
        self.is_failing = False
        self.notices = AdminNotices(redis, "understudy", clock, self.send)
        self.task = asyncio.create_task(self.notices.run())

    async def send(self, event: Event) -> None:
        if self.is_failing:
            raise ValueError("send failed")
        self.received.append(format_notice(event))

    async def receive(self, *events: Event) -> list[str]:
        """Queue events, wait until each is handled, and return all texts sent so far."""
        for event in events:
            self.notices.put(event)
        queue: Any = self.notices._events
        async with asyncio.timeout(30):
            # Empty and waited for again: the last one has asked Redis and is sent.
            while not (queue.empty() and queue._getters):
                await asyncio.sleep(0.005)
        return self.received


@pytest.fixture
async def admins(redis: Redis, clock: ManualClock) -> AsyncIterator[Admins]:
    admins = Admins(redis, clock)
    yield admins
    admins.task.cancel()
    await asyncio.wait([admins.task])


async def test_notices_report_a_switch_and_the_return(admins: Admins) -> None:
    assert await admins.receive(LOST, BACK) == [LOST_TEXT, "a answers again, in place of b."]


async def test_notices_send_each_kind_once_in_five_minutes(admins: Admins, clock: ManualClock, redis: Redis) -> None:
    """A flapping provider does not flood the operators."""
    assert len(await admins.receive(LOST, BACK, LOST, BACK)) == 2
    clock.shift(LEADER_PAUSE_S - 1)
    assert len(await admins.receive(LOST)) == 2
    clock.shift(2)
    await redis.flushall()  # the keys expired
    assert await admins.receive(LOST) == [*admins.received[:2], LOST_TEXT]


OUTAGE = NoProviderAnswers((FailedAttempt("a", "m", "HTTP 503"), FailedAttempt("b", "n", "connection refused")))
AGAIN = AnswersAgain("b")
OUTAGE_TEXT = "No AI provider answers. a: HTTP 503; b: connection refused. /provider shows more."
AGAIN_TEXT = "b answers again; requests are served."


async def test_notices_report_an_outage_and_its_end_once(admins: Admins) -> None:
    """Of the many requests that fail, and of the many that are then answered, one each."""
    assert await admins.receive(OUTAGE, OUTAGE) == [OUTAGE_TEXT]
    assert await admins.receive(AGAIN, AGAIN) == [OUTAGE_TEXT, AGAIN_TEXT]


async def test_notices_report_no_end_of_an_outage_that_was_not_reported(admins: Admins) -> None:
    assert await admins.receive(AGAIN) == []


async def test_notices_report_outages_at_most_every_five_minutes(
    admins: Admins, clock: ManualClock, redis: Redis
) -> None:
    assert len(await admins.receive(OUTAGE, AGAIN, OUTAGE, AGAIN)) == 2
    clock.shift(OUTAGE_PAUSE_S + 1)
    await redis.delete("understudy:{llm}:told:nobody", "understudy:{llm}:told:again")  # the keys expired
    assert await admins.receive(OUTAGE, AGAIN) == [OUTAGE_TEXT, AGAIN_TEXT] * 2


async def test_notices_of_an_outage_are_agreed_by_replicas(redis: Redis, clock: ManualClock, admins: Admins) -> None:
    """One replica tells of the beginning, and another, which saw no failure, of the end."""
    other = Admins(redis, clock)
    try:
        assert await admins.receive(OUTAGE) == [OUTAGE_TEXT]
        assert await other.receive(OUTAGE, AGAIN) == [AGAIN_TEXT]
        assert await admins.receive(AGAIN) == [OUTAGE_TEXT]
    finally:
        other.task.cancel()
        await asyncio.wait([other.task])


async def test_notices_of_an_outage_work_without_redis(clock: ManualClock) -> None:
    admins = Admins(open_redis("redis://127.0.0.1:1"), clock)
    try:
        assert await admins.receive(OUTAGE, OUTAGE, AGAIN) == [OUTAGE_TEXT, AGAIN_TEXT]
    finally:
        admins.task.cancel()
        await asyncio.wait([admins.task])


async def test_notices_repeat_a_rejected_key_daily_per_provider_and_reason(
    admins: Admins, clock: ManualClock, redis: Redis
) -> None:
    assert len(await admins.receive(WRONG_KEY, WRONG_KEY)) == 1
    clock.shift(LEADER_PAUSE_S + 1)
    assert len(await admins.receive(WRONG_KEY)) == 1
    assert len(await admins.receive(Misconfigured("b", "HTTP 401"), Misconfigured("a", "HTTP 402"))) == 3
    clock.shift(MISCONFIGURED_PAUSE_S)
    await redis.flushall()
    received = await admins.receive(WRONG_KEY)
    assert len(received) == 4
    assert received[3].startswith("a does not accept its key, account or model: HTTP 401. ")


async def test_notices_are_sent_by_one_replica(admins: Admins, redis: Redis, clock: ManualClock) -> None:
    """The key expires with the pause."""
    other = Admins(redis, clock)
    await asyncio.gather(admins.receive(LOST), other.receive(LOST))
    assert admins.received + other.received == [LOST_TEXT]
    assert 0 < await redis.ttl("understudy:{llm}:told:lost") <= LEADER_PAUSE_S
    other.task.cancel()
    await asyncio.wait([other.task])


async def test_notices_are_sent_without_redis(redis_server: RedisServer, clock: ManualClock) -> None:
    """Each replica decides by itself, and sends once."""
    client = open_redis(redis_server.url)
    await redis_server.stop()
    admins = Admins(client, clock)
    assert await admins.receive(LOST, LOST) == [LOST_TEXT]
    admins.task.cancel()
    await asyncio.wait([admins.task])
    await client.aclose()


async def test_notices_survive_a_failed_send(admins: Admins) -> None:
    admins.is_failing = True
    with capture_logs() as logs:
        await admins.receive(LOST)
    assert [entry["event"] for entry in logs] == ["notice.sent", "notice.failed"]
    admins.is_failing = False
    assert await admins.receive(BACK) == ["a answers again, in place of b."]


async def test_notices_drop_the_oldest_when_full(redis: Redis, clock: ManualClock) -> None:
    async def fail(_: Event) -> None:
        raise AssertionError

    notices = AdminNotices(redis, "understudy", clock, fail)
    for number in range(QUEUE_LIMIT + 5):
        notices.put(Misconfigured("a", str(number)))
    assert notices._events.qsize() == QUEUE_LIMIT
    assert notices._events.get_nowait() == Misconfigured("a", "5")
