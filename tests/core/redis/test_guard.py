"""FailFastRedis: one call at a time while Redis is lost, all of them once one has succeeded."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from core.redis.client import open_redis
from core.redis.guard import FailFastRedis, RedisUnavailable


async def test_calls_run_side_by_side_again_after_one_that_succeeded() -> None:
    both = asyncio.Barrier(2)

    async def fail(_redis: Redis) -> None:
        raise RedisConnectionError("gone")

    async def meet(_redis: Redis) -> None:
        await both.wait()

    async def ping(redis: Redis) -> bool:
        await asyncio.sleep(0)
        return await redis.ping()

    async with open_redis(None) as client:
        guard = FailFastRedis(client, "test", retry_after_s=0)
        with pytest.raises(RedisUnavailable):
            await guard.call(fail)
        results = await asyncio.gather(guard.call(ping), guard.call(ping), return_exceptions=True)
        assert [type(each) for each in results] == [bool, RedisUnavailable]
        await asyncio.gather(guard.call(meet), guard.call(meet))
