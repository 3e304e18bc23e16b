"""The concurrency limiter on the embedded store and on a real server: the limit holds over replicas."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from core.config.settings import ProviderSettings
from core.redis import guard as reach
from core.redis.client import open_redis
from services.llm.routing.admission.concurrency import ConcurrencyLimiter, LimiterTiming, Slot
from tests.support.clock import ManualClock
from tests.support.llm_harness import eventually, provider
from tests.support.processes.redis_server import RedisServer

KEY = "test:{llm}:inflight:busy"
AT_ONCE_S = 1.0

Open = Callable[..., ConcurrencyLimiter]


def limited(limit: int | None = 1, **changes: object) -> ProviderSettings:
    """Return a provider with that many slots."""
    return provider("busy", "http://127.0.0.1:1/v1", max_concurrency=limit, timeout_s=60.0, **changes)


TIMING = LimiterTiming()


@pytest.fixture
async def replicas(redis: Redis, clock: ManualClock) -> AsyncIterator[Open]:
    """Open the limiter of one more replica."""
    opened: list[ConcurrencyLimiter] = []

    def open_one(
        store: Redis | None = redis, its_clock: ManualClock = clock, timing: LimiterTiming = TIMING
    ) -> ConcurrencyLimiter:
        opened.append(ConcurrencyLimiter(store, "test", its_clock, timing))
        return opened[-1]

    yield open_one
    for replica in opened:
        await replica.close()


async def taken(replica: ConcurrencyLimiter, settings: ProviderSettings) -> Slot:
    """Take a slot that must be free."""
    slot = await replica.take(settings)
    assert slot is not None
    return slot


async def test_limit_holds_over_replicas(replicas: Open) -> None:
    one, two = replicas(), replicas()
    held = [await taken(one, limited(3)), await taken(two, limited(3)), await taken(two, limited(3))]

    assert await one.take(limited(3)) is None
    assert await two.take(limited(3)) is None
    assert (one.in_flight["busy"], two.in_flight["busy"]) == (1, 2)

    held[0].release()
    await one.close()
    assert await two.take(limited(3)) is not None
    assert await one.take(limited(3)) is None


async def test_released_slot_is_free_at_once(replicas: Open) -> None:
    """For the next request of the same replica, such as the next step of a tool loop."""
    replica = replicas()
    for _ in range(20):
        (await taken(replica, limited())).release()


async def test_concurrent_takes_do_not_exceed_the_limit(replicas: Open) -> None:
    one, two = replicas(), replicas()
    taking = [replica.take(limited(4)) for replica in (one, two) for _ in range(16)]

    assert sum(slot is not None for slot in await asyncio.gather(*taking)) == 4


@pytest.mark.parametrize(
    ("behind_s", "timeout_s"),
    [
        (4.0, 60.0),  # a clock that is slow
        (0.0, 5.0),  # a shorter timeout
        (-4.0, 60.0),  # a clock that is fast
    ],
)
async def test_lease_with_an_earlier_end_displaces_no_other(
    replicas: Open, redis: Redis, clock: ManualClock, behind_s: float, timeout_s: float
) -> None:
    other = ManualClock(clock.time() - behind_s)
    one, two = replicas(), replicas(redis, other)
    await taken(one, limited())
    before = await redis.zrange(KEY, 0, -1, withscores=True)

    assert await two.take(provider("busy", "http://127.0.0.1:1/v1", max_concurrency=1, timeout_s=timeout_s)) is None
    assert await redis.zrange(KEY, 0, -1, withscores=True) == before
    assert await replicas().take(limited()) is None


async def test_leases_of_a_dead_replica_expire(replicas: Open, clock: ManualClock) -> None:
    """Not before the longest answer would have ended."""
    dead, alive = replicas(), replicas()
    await taken(dead, limited(2))
    await taken(dead, limited(2))

    clock.shift(60 + TIMING.lease_margin_s - 1)
    assert await alive.take(limited(2)) is None
    clock.shift(1)
    assert await alive.take(limited(2)) is not None
    assert await alive.take(limited(2)) is not None


async def test_extend_renews_the_lease(replicas: Open, redis: Redis, clock: ManualClock) -> None:
    one, two = replicas(), replicas()
    slot = await taken(one, limited())
    clock.shift(50)
    slot.extend()
    await one.close()

    clock.shift(60)
    assert await two.take(limited()) is None
    slot.release()
    await one.close()
    assert await redis.zcard(KEY) == 0


async def test_sorted_set_expires_after_its_leases(replicas: Open, redis: Redis) -> None:
    await taken(replicas(), limited())
    assert 60 < await redis.ttl(KEY) <= 60 + TIMING.lease_margin_s + TIMING.key_ttl_s


async def test_take_is_one_round_trip(redis_server: RedisServer, clock: ManualClock) -> None:
    async with open_redis(redis_server.url) as redis, open_redis(redis_server.url) as other:
        replica = ConcurrencyLimiter(redis, "test", clock)
        await redis.ping()
        await other.config_resetstat()
        await taken(replica, limited(2))
        await taken(replica, limited(2))
        assert await replica.take(limited(2)) is None

        stats = await other.info("commandstats")
        # The third made no call: this replica alone reaches the limit.
        assert stats["cmdstat_exec"]["calls"] == 2
        assert not {"cmdstat_watch", "cmdstat_eval"} & set(stats)


async def test_take_without_a_limit_does_not_call_redis(clock: ManualClock) -> None:
    class Untouchable:
        def __getattr__(self, name: str) -> None:
            raise AssertionError(f"Redis was asked: {name}")

    replica = ConcurrencyLimiter(Untouchable(), "test", clock)
    held = [await taken(replica, limited(None)) for _ in range(100)]
    assert replica.in_flight["busy"] == 100
    for slot in held:
        slot.release()
    assert replica.in_flight["busy"] == 0
    await replica.close()


async def test_wait_returns_released_slots_in_order(replicas: Open) -> None:
    """And at once."""
    replica = replicas(timing=LimiterTiming(poll_s=(5.0, 5.0)))
    held = await taken(replica, limited())
    served: list[int] = []

    async def wait(number: int) -> None:
        slot = await replica.wait([limited()])
        assert slot is not None
        served.append(number)
        await asyncio.sleep(0)
        slot.release()

    waiting: list[asyncio.Task[None]] = []
    for number in range(5):
        waiting.append(asyncio.create_task(wait(number)))
        await asyncio.sleep(0)
    assert await replica.take(limited()) is None
    held.release()
    async with asyncio.timeout(AT_ONCE_S):
        await asyncio.gather(*waiting)

    assert served == [0, 1, 2, 3, 4]


async def test_take_does_not_overtake_the_queue(replicas: Open) -> None:
    """Between a slot's release and the moment at which the head of the queue has it."""
    replica = replicas(None)
    held = await taken(replica, limited())
    waiting = asyncio.create_task(replica.wait([limited()]))
    await asyncio.sleep(0)
    held.release()

    assert await replica.take(limited()) is None
    assert await waiting is not None


async def test_wait_sees_a_slot_released_by_another_replica(replicas: Open) -> None:
    one, two = replicas(), replicas()
    held = await taken(one, limited())
    waiting = asyncio.create_task(two.wait([limited()]))
    await asyncio.sleep(0.02)
    held.release()

    async with asyncio.timeout(AT_ONCE_S):
        assert await waiting is not None


async def test_release_leaves_another_replica_with_a_queue_a_chance(replicas: Open) -> None:
    """It does not pass its slot to its own queue at once while another replica has a queue: polling decides."""
    timing = LimiterTiming(poll_s=(0.5, 0.5))
    one, two = replicas(timing=timing), replicas(timing=timing)
    held = await taken(one, limited())
    here = asyncio.create_task(one.wait([limited()]))
    elsewhere = asyncio.create_task(two.wait([limited()]))
    await asyncio.sleep(0.05)
    held.release()
    await one.close()
    await asyncio.sleep(0.05)
    assert not here.done()

    async with asyncio.timeout(5):
        await asyncio.wait({here, elsewhere}, return_when=asyncio.FIRST_COMPLETED)
    for task in (here, elsewhere):
        task.cancel()
    await asyncio.gather(here, elsewhere, return_exceptions=True)


async def test_wait_ends_with_the_first_token_timeout(replicas: Open) -> None:
    replica = replicas()
    await taken(replica, limited())
    loop = asyncio.get_running_loop()
    began = loop.time()

    assert await replica.wait([limited(first_token_timeout_s=0.1)]) is None
    assert 0.1 <= round(loop.time() - began, 3) < AT_ONCE_S
    assert not replica._queues["busy"].waiters


async def test_cancelled_wait_lets_the_next_one_proceed(replicas: Open) -> None:
    replica = replicas()
    held = await taken(replica, limited())
    first, second = [asyncio.create_task(replica.wait([limited()])) for _ in range(2)]
    await asyncio.sleep(0.02)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    held.release()

    async with asyncio.timeout(AT_ONCE_S):
        assert await second is not None


async def test_take_cancelled_during_the_redis_call_holds_no_slot(
    replicas: Open, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = replicas()
    for rounds in range(12):
        taking = asyncio.create_task(replica.take(limited()))
        for _ in range(rounds):
            await asyncio.sleep(0)
        taking.cancel()
        [slot] = await asyncio.gather(taking, return_exceptions=True)
        if isinstance(slot, Slot):
            slot.release()
        await replica.close()
        assert replica.in_flight["busy"] == 0
    await asyncio.sleep(0.05)
    assert await redis.zcard(KEY) == 0


class TestOutage:
    """Redis becomes unavailable and comes back."""

    async def test_each_replica_applies_the_limit_alone(self, redis_server: RedisServer, clock: ManualClock) -> None:
        await redis_server.stop()
        async with open_redis(redis_server.url) as first, open_redis(redis_server.url) as second:
            for redis in (first, second):
                replica = ConcurrencyLimiter(reach.FailFastRedis(redis, "test", 0.05), "test", clock)
                held = [await taken(replica, limited(2)), await taken(replica, limited(2))]
                assert await replica.take(limited(2)) is None
                held[0].release()
                assert await replica.take(limited(2)) is not None
                await replica.close()

    async def test_leases_taken_during_the_outage_are_written_later(
        self, redis_server: RedisServer, clock: ManualClock
    ) -> None:
        async with open_redis(redis_server.url) as first, open_redis(redis_server.url) as second:
            one = ConcurrencyLimiter(reach.FailFastRedis(first, "test", 60.0), "test", clock)
            two = ConcurrencyLimiter(second, "test", clock)
            ends = await taken(one, limited(2))
            await redis_server.stop()
            ends.release()
            await one.close()
            stays = await taken(one, limited(2))
            (await taken(one, limited(2))).release()
            await one.close()
            assert (stays.lease or "") not in one._queues["busy"].leases._sent
            await redis_server.start()
            assert await second.zcard(KEY) == 1
            one._redis._retry_at = 0.0

            await taken(one, limited(2))
            assert await second.zcard(KEY) == 2
            assert await two.take(limited(2)) is None
            stays.release()
            await one.close()
            assert await two.take(limited(2)) is not None

    async def test_unresponsive_redis_delays_one_request_only(self, clock: ManualClock) -> None:
        """One request waits a moment; later ones do not, until Redis is tried again."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            async with open_redis(f"redis://127.0.0.1:{listener.getsockname()[1]}/0") as redis:
                replica = ConcurrencyLimiter(redis, "test", clock)
                loop = asyncio.get_running_loop()
                began = loop.time()
                await taken(replica, limited(50))
                assert loop.time() - began < reach.CALL_TIMEOUT_S + AT_ONCE_S
                replica._redis._retry_at = loop.time() + 60
                for _ in range(49):
                    await taken(replica, limited(50))
                assert loop.time() - began < reach.CALL_TIMEOUT_S + AT_ONCE_S
                assert await replica.take(limited(50)) is None
                await replica.close()

    async def test_key_of_another_type_is_no_error(self, redis: Redis, clock: ManualClock) -> None:
        await redis.set(KEY, "something else")
        replica = ConcurrencyLimiter(redis, "test", clock)
        await taken(replica, limited())
        assert await replica.take(limited()) is None
        await replica.close()


async def test_close_waits_for_pending_writes(redis: Redis, clock: ManualClock) -> None:
    replica = ConcurrencyLimiter(redis, "test", clock)
    (await taken(replica, limited())).release()
    await replica.close()
    await eventually(lambda: replica._queues["busy"].leases.writer is None)
    assert await redis.zcard(KEY) == 0
