"""Two replicas of the service on one real Redis share the routing state."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis

from core.redis.client import open_redis
from services.llm.request import RequestSpec
from services.llm.routing.events import LeaderChanged, Misconfigured
from services.llm.routing.state.shared_state import SyncTiming
from services.llm.routing.status import ProviderState
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import LLMHarness, RealPauses, answered_by, bench, eventually, provider, subscribed
from tests.support.processes.redis_server import RedisServer

pytestmark = pytest.mark.integration

AT_ONCE_S = 1.0
"""Generous: a change normally arrives within 50 ms, and a reload would take `SyncTiming.resync_s`."""


@dataclass(slots=True)
class ReplicaPair:
    """Two replicas that share a clock, a Redis and two providers."""

    first: LLMServer
    second: LLMServer
    clock: RealPauses
    redis: Redis
    one: LLMHarness
    two: LLMHarness
    told: list[LeaderChanged | Misconfigured] = field(default_factory=list[LeaderChanged | Misconfigured])

    async def first_fails(self) -> None:
        """One replica sees the first provider fail, and the other knows."""
        self.first.script(llm.status(529))
        assert answered_by(await self.one.ask(streamed=True)) == "second"
        await eventually(lambda: self.two.preferred == "second")


@pytest.fixture
async def pair(redis_server: RedisServer) -> AsyncIterator[ReplicaPair]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(LLMServer())
        second = await stack.enter_async_context(LLMServer())
        providers = [provider("first", first.url), provider("second", second.url)]
        clock = RealPauses()
        clients = [await stack.enter_async_context(open_redis(redis_server.url)) for _ in range(2)]
        one, two = [await stack.enter_async_context(bench(redis, providers, clock)) for redis in clients]
        await subscribed(clients[0], 2)
        pair = ReplicaPair(first, second, clock, clients[0], one, two)
        one.fallback.recorder.listen(pair.told.append)
        two.fallback.recorder.listen(pair.told.append)
        yield pair


async def known_after(change: asyncio.Task[object], known: Callable[[], bool]) -> float:
    """Return the seconds from a change until the other replica has it."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await eventually(known)
    took = loop.time() - began
    await change
    return took


async def test_failure_at_one_replica_steers_the_other(pair: ReplicaPair) -> None:
    """The other replica does not ask the failed provider; the admins are notified once."""
    await pair.first_fails()

    assert answered_by(await pair.two.ask(streamed=True)) == "second"
    assert len(pair.first.requests) == 1
    assert pair.told == [LeaderChanged("first", "second", "HTTP 529 (overloaded)")]


async def test_words_of_a_server_reach_the_operators_of_every_replica(pair: ReplicaPair) -> None:
    """Beside the reason of the cooldown that they explain."""
    words = "Your account is not in good standing."
    pair.first.script(llm.status(402, {"error": {"message": words}}))
    assert answered_by(await pair.one.ask(streamed=True)) == "second"
    await eventually(lambda: "first" in pair.two.shared.routing.cooldowns)
    for replica in (pair.one, pair.two):
        status = replica.fallback.get_provider_status().providers[0]
        assert (status.state, status.last_words) == (ProviderState.COOLING, words)


async def test_changes_reach_the_other_replica_at_once(pair: ReplicaPair) -> None:
    """A failure, a force and its end."""
    pair.first.script(llm.status(529))
    failing = asyncio.create_task(pair.one.ask(streamed=True))
    assert await known_after(failing, lambda: "first" in pair.two.cooling()) < AT_ONCE_S

    forcing = asyncio.create_task(pair.one.fallback.force_provider("first"))
    assert await known_after(forcing, lambda: pair.two.fallback.get_provider_status().forced == "first") < AT_ONCE_S

    clearing = asyncio.create_task(pair.two.fallback.clear_cache())
    assert await known_after(clearing, lambda: pair.one.fallback.get_provider_status().forced is None) < AT_ONCE_S


async def test_one_request_over_all_replicas_probes(pair: ReplicaPair) -> None:
    """64 requests at the instant at which the cooldown ends, half of them at each replica."""
    # That many simultaneous requests keep a slow machine busy for longer than the ordinary wait for a lease.
    for replica in (pair.one, pair.two):
        replica.set_timing(lease_wait_s=5.0)
    await pair.first_fails()
    pair.clock.shift(300)
    held = asyncio.Event()
    pair.first.default = llm.gate(held)

    requests = [asyncio.create_task(replica.ask(streamed=True)) for replica in (pair.one, pair.two) for _ in range(32)]
    await eventually(lambda: sum(request.done() for request in requests) == 63)
    for replica in (pair.one, pair.two):
        assert replica.fallback.get_provider_status().providers[0].state is ProviderState.PROBING
    held.set()
    answered = [answered_by(response) for response in await asyncio.gather(*requests)]

    assert sorted(answered) == ["first"] + ["second"] * 63
    assert len(pair.first.requests) == 2
    await eventually(lambda: pair.one.preferred == pair.two.preferred == "first")


async def test_lease_of_a_dead_replica_expires(pair: ReplicaPair) -> None:
    await pair.first_fails()
    pair.clock.shift(300)
    await anext(await pair.one.fallback.begin(RequestSpec("dies")))
    await eventually(lambda: bool(pair.two.shared.routing.probes))
    await pair.one.shared.close()

    assert answered_by(await pair.two.ask(streamed=True)) == "second"
    pair.clock.shift(10)
    assert answered_by(await pair.two.ask(streamed=True)) == "first"


async def test_returned_lease_is_free_for_the_other_replica(pair: ReplicaPair) -> None:
    await pair.first_fails()
    pair.clock.shift(300)
    attempts = await pair.one.fallback.begin(RequestSpec("is stopped"))
    await anext(attempts)
    await eventually(lambda: bool(pair.two.shared.routing.probes))

    attempts.close()
    await eventually(lambda: not pair.two.shared.routing.probes)

    assert answered_by(await pair.two.ask(streamed=True)) == "first"


async def test_starting_replica_follows_and_changes_nothing(pair: ReplicaPair, redis_server: RedisServer) -> None:
    """In the middle of a failover; Redis holds the same bytes as before."""
    await pair.first_fails()
    await pair.one.fallback.force_provider("first", 60)
    key = "test:{llm}:routing"
    before = await pair.redis.dump(key)

    async with (
        open_redis(redis_server.url) as redis,
        bench(redis, pair.one.fallback.providers, pair.clock) as newcomer,
    ):
        assert newcomer.fallback.get_provider_status().forced == "first"
        assert newcomer.cooling() == pair.one.cooling()
        assert newcomer.preferred == "second"

    assert await pair.redis.dump(key) == before


@pytest.mark.parametrize("failing_over", [False, True], ids=["all is well", "the first cools down"])
async def test_request_costs_no_redis_command(redis_server: RedisServer, *, failing_over: bool) -> None:
    """While the order does not change, the local copy is enough."""
    async with LLMServer() as first, LLMServer() as second, open_redis(redis_server.url) as redis:
        providers = [provider("first", first.url), provider("second", second.url)]
        sync = SyncTiming(resync_s=60.0)
        async with bench(redis, providers, sync=sync) as replica, open_redis(redis_server.url) as other:
            if failing_over:
                first.default = llm.status(529)
            await replica.ask(streamed=True)
            await replica.shared.commit(lambda routing: routing, 5)
            await asyncio.sleep(0.1)
            await other.config_resetstat()

            for _ in range(10):
                await replica.ask(streamed=True)
                await replica.ask(streamed=False)

            assert set(await other.info("commandstats")) <= {"cmdstat_config|resetstat", "cmdstat_info"}
            assert len((second if failing_over else first).requests) >= 20
