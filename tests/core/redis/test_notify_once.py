"""Notices that go out once over all replicas: with the embedded store, a real server, and an unreachable one."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from core.clock import Backoff
from core.redis.client import open_redis
from core.redis.notify_once import NotifyOnce
from tests.support.clock import ManualClock
from tests.support.processes.redis_server import free_port

BACKOFF = Backoff(first_s=60, longest_s=200)


@pytest.fixture
def replicas(redis: Redis, clock: ManualClock) -> list[NotifyOnce]:
    """Three replicas that share one Redis."""
    return [NotifyOnce(redis, "test:notice", clock) for _ in range(3)]


@pytest.fixture
async def unreachable() -> AsyncIterator[Redis]:
    """A client whose server refuses the connection."""
    async with open_redis(f"redis://127.0.0.1:{free_port()}") as client:
        yield client


async def test_is_first_is_true_on_one_replica_only(replicas: list[NotifyOnce]) -> None:
    answers = await asyncio.gather(*(replica.is_first("a", 60) for replica in replicas))

    assert sorted(answers) == [False, False, True]
    assert not any([await replica.is_first("a", 60) for replica in replicas])
    assert await replicas[0].is_first("b", 60)


async def test_is_first_is_true_again_after_the_pause(
    replicas: list[NotifyOnce], redis: Redis, clock: ManualClock
) -> None:
    assert await replicas[0].is_first("a", 60)
    assert 0 < await redis.ttl("test:notice:a") <= 60

    clock.shift(59)
    await redis.delete("test:notice:a")
    assert not await replicas[0].is_first("a", 60), "its own memory holds for the whole pause"
    clock.shift(1)
    assert await replicas[0].is_first("a", 60)
    assert not await replicas[1].is_first("a", 60)


async def test_is_due_is_true_on_one_replica_only(replicas: list[NotifyOnce]) -> None:
    answers = await asyncio.gather(*(replica.is_due("a", BACKOFF) for replica in replicas))

    assert sorted(answers) == [False, False, True]


async def test_is_due_doubles_the_pause_over_all_replicas(replicas: list[NotifyOnce], clock: ManualClock) -> None:
    for number, pause_s in enumerate([60, 120, 200, 200]):
        sender, *others = replicas[number % 3 :] + replicas[: number % 3]
        assert await sender.is_due("a", BACKOFF)
        assert not any([await replica.is_due("a", BACKOFF) for replica in others])
        clock.shift(pause_s - 1)
        assert not any([await replica.is_due("a", BACKOFF) for replica in replicas])
        clock.shift(1)


async def test_is_due_keeps_its_state_in_redis_for_the_longest_pause(replicas: list[NotifyOnce], redis: Redis) -> None:
    """So that the next reminder still knows how many there were."""
    await replicas[0].is_due("a", BACKOFF)

    assert await redis.hget("test:notice:a", "told") == "1"
    assert 255 < await redis.ttl("test:notice:a") <= 260


async def test_forget_makes_the_next_reminder_the_first(
    replicas: list[NotifyOnce], redis: Redis, clock: ManualClock
) -> None:
    assert await replicas[0].is_due("a", BACKOFF)
    clock.shift(60)
    assert await replicas[0].is_due("a", BACKOFF)

    await replicas[0].forget("a")
    assert not await redis.exists("test:notice:a")
    assert await replicas[0].is_due("a", BACKOFF)
    clock.shift(60)
    assert await replicas[0].is_due("a", BACKOFF), "the pause is the first again"


async def test_an_unreachable_redis_lets_each_replica_decide_alone(unreachable: Redis, clock: ManualClock) -> None:
    """A duplicate is better than none, and no replica repeats itself within the pause."""
    replicas = [NotifyOnce(unreachable, "test:notice", clock) for _ in range(2)]

    for replica in replicas:
        assert await replica.is_first("a", 60)
        assert not await replica.is_first("a", 60)
        assert await replica.is_due("b", BACKOFF)
        assert not await replica.is_due("b", BACKOFF)
    clock.shift(60)
    for replica in replicas:
        assert await replica.is_first("a", 60)
        assert await replica.is_due("b", BACKOFF)
        await replica.forget("b")
        assert await replica.is_due("b", BACKOFF)
