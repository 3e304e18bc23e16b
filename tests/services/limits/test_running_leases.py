"""RunningLeases: the turns of a person over all replicas, by leases in Redis."""

import asyncio

from redis.asyncio import Redis

from core.clock import SystemClock
from core.redis.client import open_redis
from services.limits.party_limits import Quota, TurnPlaces
from services.limits.running_leases import RunningLeases, RunningLeaseTiming

TIMING = RunningLeaseTiming(lease_s=0.6, renew_s=0.1, poll_s=(0.01, 0.02))


def replica(redis: Redis) -> RunningLeases:
    return RunningLeases(redis, "test", SystemClock(), TIMING)


async def test_replicas_share_the_slots_of_a_person(redis: Redis) -> None:
    """A turn waits until another replica's has ended; leases of a dead replica expire."""
    first, second = replica(redis), replica(redis)
    entered = asyncio.Event()

    async def wait() -> None:
        async with TurnPlaces(leases=second).place("user:7", (Quota("user:7", 2),)):
            entered.set()

    async with first.lease("user:7", 2):
        async with second.lease("user:7", 2), second.lease("user:8", 2):
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0.1)
            assert not entered.is_set()
            assert 0 < await redis.ttl("test:{limits}:running:user:7") <= 2 * TIMING.lease_s
        await asyncio.wait_for(waiting, 5)
    assert await redis.zcard("test:{limits}:running:user:7") == 0


async def test_leases_outlast_their_time_while_they_are_renewed(redis: Redis) -> None:
    """Those of a replica that died expire."""
    first, second = replica(redis), replica(redis)
    renewing = asyncio.create_task(first.run())
    async with first.lease("user:7", 1):
        waiting = asyncio.create_task(second.lease("user:7", 1).__aenter__())
        await asyncio.sleep(2 * TIMING.lease_s)
        assert not waiting.done()
        renewing.cancel()
        await asyncio.wait_for(waiting, 5)


async def test_replica_without_redis_decides_alone() -> None:
    silent = open_redis("redis://127.0.0.1:1/0")
    leases = replica(silent)
    async with leases.lease("user:7", 1), leases.lease("user:7", 1):
        pass
    await silent.aclose()
