"""Stop requests reach the replica that produces the answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bot.telegram.answers.cancellation import ReplyCancellation
from core.background import cancel_and_wait
from core.clock import SystemClock
from core.messages import ConversationKey, Surface
from core.redis.client import open_redis
from services.chat.reply import ActiveReplies, Reply
from tests.support.clock import ManualClock, until
from tests.support.processes.redis_server import RedisServer, free_port

HERE = ConversationKey(Surface.TELEGRAM, 7)
TOPIC = ConversationKey(Surface.TELEGRAM, 7, 3)


@asynccontextmanager
async def replicas(server: RedisServer) -> AsyncIterator[tuple[ReplyCancellation, ReplyCancellation, ActiveReplies]]:
    """Two replicas: one receives the update, the other produces the answer."""
    redis = open_redis(server.url)
    active = ActiveReplies()
    ours, theirs = (ReplyCancellation(each, redis, "test", SystemClock()) for each in (ActiveReplies(), active))
    tasks = [asyncio.create_task(cancellation.run()) for cancellation in (ours, theirs)]
    try:
        await _both_listen(redis)
        yield ours, theirs, active
    finally:
        await cancel_and_wait(*tasks)
        await redis.aclose()


async def _both_listen(redis: Redis) -> None:
    async with asyncio.timeout(5):
        while (await redis.pubsub_numsub("test:stops"))[0][1] < 2:
            await asyncio.sleep(0.01)


async def test_stop_reaches_the_answer_of_another_replica(redis_server: RedisServer) -> None:
    async with replicas(redis_server) as (ours, _, active):
        reply, other = Reply(), Reply()
        with active.register(HERE, reply) as number, active.register(TOPIC, other):
            assert not await ours.stop(HERE, number + 1), "the button of an earlier answer"
            assert not reply.stop_wanted
            assert await ours.stop(HERE, number)
            assert reply.stop_wanted
            assert not other.stop_wanted
            await ours.stop_chat(7)
            assert other.stop_wanted
        assert not await ours.stop(HERE)


async def test_stop_chat_reaches_the_answers_of_all_replicas(redis_server: RedisServer) -> None:
    """The stop of a draft names no topic, and answers of two topics may run on two replicas."""
    here, there = Reply(), Reply()
    async with replicas(redis_server) as (ours, _, active):
        with ours.active.register(HERE, here), active.register(TOPIC, there):
            await ours.stop_chat(7)
            assert here.stop_wanted
            assert there.stop_wanted


@pytest.mark.parametrize("message", ["no JSON", "[]", "{}", '{"chat": 7}'])
async def test_invalid_requests_do_not_end_the_subscription(redis_server: RedisServer, message: str) -> None:
    """Two releases share the channel during a rolling update."""
    reply = Reply()
    async with replicas(redis_server) as (ours, _, active):
        assert ours._redis is not None
        await ours._redis.publish("test:stops", message)
        with active.register(HERE, reply):
            assert await ours.stop(HERE)
        assert reply.stop_wanted


async def test_stop_without_redis_reaches_local_answers_within_seconds(redis_server: RedisServer) -> None:
    """An unreachable Redis delays a stop by its deadline at most."""
    active, reply = ActiveReplies(), Reply()
    redis = open_redis(redis_server.url)
    cancellation = ReplyCancellation(active, redis, "test", SystemClock())
    await redis_server.stop()
    async with asyncio.timeout(5):
        assert not await cancellation.stop(HERE)
    with active.register(HERE, reply):
        assert await cancellation.stop(HERE)
    assert reply.stop_wanted
    await redis.aclose()


async def test_run_logs_an_outage_of_redis_once() -> None:
    """Each second of an outage is no line of the log."""
    redis = open_redis(f"redis://127.0.0.1:{free_port()}")
    clock = ManualClock()
    cancellation = ReplyCancellation(ActiveReplies(), redis, "test", clock)
    with capture_logs() as logs:
        task = asyncio.create_task(cancellation.run())
        for _ in range(3):
            await until(lambda: clock._sleepers)
            await clock.advance(1)
        await cancel_and_wait(task)
        await redis.aclose()
    assert [entry["event"] for entry in logs] == ["cancellation.subscription_failed"]


async def test_register_numbers_answers_uniquely_over_replicas() -> None:
    """A Stop button outlives its answer; a late press must not stop another one."""
    numbers: set[int] = set()
    for _ in range(2):
        active = ActiveReplies()
        for _ in range(100):
            with active.register(HERE, Reply()) as number:
                numbers.add(number)
    assert len(numbers) == 200
