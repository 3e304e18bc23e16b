"""Load shedding over HTTP: a busy provider is skipped, waited for in turn, and not returned to at once."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic_ai.direct import model_request_stream
from redis.asyncio import Redis

from bot.operators.provider import provider_table
from core.errors import AllProvidersFailed, ConsentNeeded
from core.redis.client import open_redis
from services.llm.request import RequestSpec
from services.llm.routing.admission.concurrency import LimiterTiming
from services.llm.routing.state.shared_state import SyncTiming
from services.llm.routing.status import ProviderState
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import (
    HELLO,
    RealPauses,
    answered_by,
    bench,
    provider,
    subscribed,
)
from tests.support.load_shedding_harness import ANN, BEN, LoadSheddingHarness, move_user, open_harness
from tests.support.processes.redis_server import RedisServer


@pytest.fixture
async def harness(redis: Redis) -> AsyncIterator[LoadSheddingHarness]:
    async with open_harness(redis) as harness:
        yield harness


class Crowd:
    """Counts a server's requests in flight."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    def behaviour(self) -> llm.Behaviour:
        async def do(exchange: llm.Exchange) -> None:
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await asyncio.sleep(0.01)
                await llm.answer("one", ["of ", "many"], pause_s=0.005).play(exchange)
            finally:
                self.now -= 1

        return llm.Act(do)


# The limit


async def test_limit_holds_for_concurrent_requests(redis: Redis) -> None:
    """32 requests at two replicas that share it, plain and streamed: all are answered, four at a time."""
    crowd = Crowd()
    async with LLMServer() as server:
        server.default = crowd.behaviour()
        providers = [provider("first", server.url, max_concurrency=4, timeout_s=30, first_token_timeout_s=30)]
        clock = RealPauses()
        async with bench(redis, providers, clock) as one, bench(redis, providers, clock) as two:
            asking = [replica.ask(streamed=bool(n % 2)) for replica in (one, two) for n in range(16)]
            answered = await asyncio.gather(*asking)

    assert [answered_by(response) for response in answered] == ["first"] * 32
    assert crowd.most == 4


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_busy_provider_is_skipped_without_a_failure(harness: LoadSheddingHarness, *, streamed: bool) -> None:
    """No cooldown, no failure, no preference, no switch event, no name in the answer."""
    told: list[object] = []
    harness.fallback.recorder.listen(told.append)
    occupying = await harness.occupy(streamed=streamed)

    response = await harness.replica.ask(streamed=streamed)

    assert answered_by(response) == "second"
    assert response.metadata is not None
    assert response.metadata["understudy"]["failed"] == ()
    status = harness.fallback.get_provider_status()
    assert [each.state for each in status.providers] == [ProviderState.HEALTHY] * 2
    assert status.providers[0].failures == 0
    assert (harness.replica.cooling(), status.preferred, told) == ({}, None, [])

    await harness.set_free(occupying)
    assert await harness.asked() == "first"


async def test_stream_holds_its_slot_until_its_end(harness: LoadSheddingHarness) -> None:
    occupying = await harness.occupy(after_pieces=1)

    assert await harness.asked() == "second"
    await harness.set_free(occupying)
    assert await harness.asked() == "first"


async def test_stream_read_to_its_end_releases_the_slot(harness: LoadSheddingHarness) -> None:
    """Even if its consumer has not left the context yet."""
    model = harness.replica.factory.create_llm_model_with_fallback("test")
    async with model_request_stream(model, HELLO) as stream:
        async for _ in stream:
            pass
        assert harness.in_flight == 0
        await harness.replica.shedding.close()
        assert await harness.asked() == "first"


@pytest.mark.parametrize("after_pieces", [0, 1], ids=["before the first output", "in mid-stream"])
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_cancel_releases_the_slot(harness: LoadSheddingHarness, *, streamed: bool, after_pieces: int) -> None:
    occupying = await harness.occupy(streamed=streamed, after_pieces=after_pieces)
    occupying.cancel()
    await asyncio.gather(occupying, return_exceptions=True)
    await harness.replica.shedding.close()

    assert harness.in_flight == 0
    assert await harness.asked() == "first"


@pytest.mark.parametrize(
    ("behaviour", "answers"),
    [
        (llm.status(529), "second"),  # fails at once
        (llm.cut(2), None),  # breaks off
        (llm.status(400), "second"),  # an unclear refusal
        (llm.content_filter(("No",)), None),  # refused
    ],
)
async def test_failure_releases_the_slot(
    harness: LoadSheddingHarness, behaviour: llm.Behaviour, answers: str | None
) -> None:
    harness.first.script(behaviour)
    if answers is None:
        with pytest.raises(Exception, match="first"):
            await harness.asked()
    else:
        assert await harness.asked() == answers
    await harness.replica.shedding.close()
    await harness.fallback.control.reset("first")

    assert harness.in_flight == 0
    assert await harness.asked() == "first"


async def test_retry_keeps_the_slot(redis: Redis) -> None:
    """No other request takes it during the pause after a hiccup."""
    async with open_harness(redis) as harness:
        harness.first.script(llm.status(500), llm.gate(harness.gate))
        retried = asyncio.create_task(harness.asked())
        await harness.first.arrival(1)
        assert await harness.asked() == "second"
        await harness.first.arrival(2)
        assert await harness.asked() == "second"
        harness.gate.set()

        assert await retried == "first"
        assert harness.counts() == [2, 2]


async def test_retry_renews_the_lease(harness: LoadSheddingHarness) -> None:
    """Both attempts together may take longer than the lease of one."""
    first_try = asyncio.Event()
    harness.first.script(llm.gate(first_try, then=llm.status(500)), llm.gate(harness.gate))
    retried = asyncio.create_task(harness.asked())
    await harness.first.arrival(1)
    harness.clock.shift(LimiterTiming().lease_margin_s)
    first_try.set()
    await harness.first.arrival(2)
    await harness.replica.shedding.close()
    harness.clock.shift(LimiterTiming().lease_margin_s)

    async with bench(harness.redis, harness.fallback.providers, harness.clock) as other:
        assert answered_by(await other.ask(streamed=True)) == "second"
    harness.gate.set()
    assert await retried == "first"


async def test_slots_of_a_dead_replica_expire(harness: LoadSheddingHarness) -> None:
    providers = harness.fallback.providers
    async with bench(harness.redis, providers, harness.clock) as dead:
        attempts = await dead.fallback.begin(RequestSpec("dies"))
        assert (await anext(attempts)).candidate.provider.id == "first"

        assert await harness.asked() == "second"
        harness.clock.shift(5 + LimiterTiming().lease_margin_s)
        assert await harness.asked() == "first"


# Waiting for a slot


async def test_request_waits_for_a_slot_if_all_are_busy(harness: LoadSheddingHarness) -> None:
    harness.second.default = llm.status(529)
    occupying = await harness.occupy()
    waiting = [asyncio.create_task(harness.asked()) for _ in range(3)]
    await harness.second.arrival(1)
    await asyncio.sleep(0.05)
    assert harness.counts()[0] == 1
    await harness.set_free(occupying)

    assert await asyncio.gather(*waiting) == ["first"] * 3


async def test_wait_for_a_slot_is_bounded(redis: Redis) -> None:
    """The error names failed and busy providers; a busy provider gets no cooldown."""
    async with open_harness(redis, first_token_timeout_s=5.0) as harness:
        harness.second.default = llm.status(529)
        occupying = await harness.occupy()
        impatient = [provider("first", harness.first.url, max_concurrency=1, first_token_timeout_s=0.1)]
        async with bench(redis, [*impatient, harness.fallback.providers[1]], harness.clock) as other:
            with pytest.raises(AllProvidersFailed) as failure:
                await other.ask(streamed=True)
            reasons = [(attempt.provider, attempt.reason) for attempt in failure.value.attempts]
            assert reasons == [("second", "HTTP 529 (overloaded)"), ("first", "busy")]
            assert set(other.cooling()) == {"second"}
        await harness.set_free(occupying)


async def test_cancel_while_waiting_leaves_the_queue(harness: LoadSheddingHarness) -> None:
    harness.second.default = llm.status(529)
    occupying = await harness.occupy()
    waiting = asyncio.create_task(harness.asked())
    await harness.second.arrival(1)
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    await harness.set_free(occupying)
    assert await harness.asked() == "first"


async def test_request_without_consent_waits_for_the_local_provider(redis: Redis) -> None:
    """The remote one is free and gets no request."""
    async with open_harness(redis, second_remote=True) as harness:
        occupying = await harness.occupy()
        waiting = asyncio.create_task(harness.asked(ANN, local_only=True))
        await asyncio.sleep(0.05)
        await harness.set_free(occupying)

        assert await waiting == "first"
        assert harness.second.connections == 0


async def test_request_without_consent_raises_consent_needed_after_the_wait(redis: Redis) -> None:
    async with open_harness(redis, second_remote=True, first_token_timeout_s=0.1) as harness:
        attempts = await harness.fallback.begin(RequestSpec("holds the slot"))
        await anext(attempts)
        with pytest.raises(ConsentNeeded):
            await harness.asked(ANN, local_only=True)
        attempts.close()

        assert harness.second.connections == 0


# Redis


async def test_without_a_limit_a_user_costs_no_redis_command(redis_server: RedisServer) -> None:
    async with (
        open_redis(redis_server.url) as redis,
        open_redis(redis_server.url) as other,
        open_harness(redis, sync=SyncTiming(resync_s=60.0), max_concurrency=None) as harness,
    ):
        await harness.asked(ANN)
        await harness.replica.shared.commit(lambda routing: routing, 5)
        await subscribed(redis, 1)
        await asyncio.sleep(0.1)
        await other.config_resetstat()
        for _ in range(5):
            await harness.asked(ANN)
        assert set(await other.info("commandstats")) <= {"cmdstat_config|resetstat", "cmdstat_info"}


async def test_limit_and_affinity_hold_locally_without_redis(redis_server: RedisServer) -> None:
    async with open_redis(redis_server.url) as redis, open_harness(redis, redis_retry_s=0.1) as harness:
        assert await harness.asked(ANN) == "first"
        await redis_server.stop()
        await move_user(harness)
        assert await harness.asked(ANN) == "second"
        assert await harness.asked(BEN) == "first"
        await redis_server.start()
        await asyncio.sleep(0.2)
        assert await harness.asked(BEN) == "first"
        await harness.replica.shedding.close()
        assert await redis.zcard("test:{llm}:inflight:first") == 0


# Status


async def test_status_counts_requests_in_flight(harness: LoadSheddingHarness) -> None:
    occupying = await harness.occupy()
    held = asyncio.Event()
    harness.second.script(llm.gate(held))
    other = asyncio.create_task(harness.asked())
    await harness.second.arrival(1)

    status = harness.fallback.get_provider_status()
    assert [(each.in_flight, each.limit) for each in status.providers] == [(1, 1), (1, None)]
    table = provider_table(status, harness.clock.time())
    assert "in flight: 1, limit over all replicas: 1" in table
    assert "in flight: 1\n" in f"{table}\n"
    held.set()
    await other
    await harness.set_free(occupying)
    assert "in flight: 0, limit over all replicas: 1" in provider_table(
        harness.fallback.get_provider_status(), harness.clock.time()
    )
