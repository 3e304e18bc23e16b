"""Stop reaches the replica that is making the answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from bot.telegram.answers.cancellation import ActiveReplies, ReplyCancellation
from core.clock import SystemClock
from core.messages import ConversationKey, Surface
from core.redis.client import open_redis
from services.chat.reply import Reply
from tests.support.processes.redis_server import RedisServer

HERE = ConversationKey(Surface.TELEGRAM, 7)
TOPIC = ConversationKey(Surface.TELEGRAM, 7, 3)


@asynccontextmanager
async def replicas(server: RedisServer) -> AsyncIterator[tuple[ReplyCancellation, ReplyCancellation, ActiveReplies]]:
    """One that gets the update, and another one that is making the answer."""
    redis = open_redis(server.url)
    live = ActiveReplies()
    ours, theirs = (ReplyCancellation(each, redis, "test", SystemClock()) for each in (ActiveReplies(), live))
    tasks = [asyncio.create_task(stops.run()) for stops in (ours, theirs)]
    try:
        await _both_listen(redis)
        yield ours, theirs, live
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await redis.aclose()


async def _both_listen(redis: Redis) -> None:
    async with asyncio.timeout(5):
        while (await redis.pubsub_numsub("test:stops"))[0][1] < 2:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)


async def test_an_answer_of_another_replica_is_stopped(redis_server: RedisServer) -> None:
    async with replicas(redis_server) as (ours, _, live):
        reply, other = Reply(), Reply()
        with live.showing(HERE, reply) as number, live.showing(TOPIC, other):
            assert not await ours.stop(HERE, number + 1), "that is the button of an earlier answer"
            assert not reply.stop_wanted
            assert await ours.stop(HERE, number)
            assert reply.stop_wanted
            assert not other.stop_wanted
            await ours.stop_chat(7)
            assert other.stop_wanted
        assert not await ours.stop(HERE)


async def test_every_answer_of_a_chat_is_stopped_wherever_it_is_made(redis_server: RedisServer) -> None:
    """A draft's own Stop does not tell its topic, and two of them may be at two replicas."""
    here, there = Reply(), Reply()
    async with replicas(redis_server) as (ours, _, live):
        with ours._live.showing(HERE, here), live.showing(TOPIC, there):
            await ours.stop_chat(7)
            assert here.stop_wanted
            assert there.stop_wanted


@pytest.mark.parametrize("message", ["no JSON", "[]", "{}", '{"chat": 7}'])
async def test_what_another_release_says_ends_nothing(redis_server: RedisServer, message: str) -> None:
    """While one is rolled out both are there."""
    reply = Reply()
    async with replicas(redis_server) as (ours, _, live):
        assert ours._redis is not None
        await ours._redis.publish("test:stops", message)
        with live.showing(HERE, reply):
            assert await ours.stop(HERE)
        assert reply.stop_wanted


async def test_without_redis_only_what_is_here_can_be_stopped(redis_server: RedisServer) -> None:
    """And a Redis that is gone keeps nobody waiting for long."""
    live, reply = ActiveReplies(), Reply()
    redis = open_redis(redis_server.url)
    stops = ReplyCancellation(live, redis, "test", SystemClock())
    await redis_server.stop()
    async with asyncio.timeout(5):
        assert not await stops.stop(HERE)
    with live.showing(HERE, reply):
        assert await stops.stop(HERE)
    assert reply.stop_wanted
    await redis.aclose()


async def test_numbers_of_two_replicas_do_not_meet() -> None:
    """A Stop button outlives its answer; pressed later, it must not stop another one."""
    numbers: set[int] = set()
    for _ in range(2):
        live = ActiveReplies()
        for _ in range(100):
            with live.showing(HERE, Reply()) as number:
                numbers.add(number)
    assert len(numbers) == 200
