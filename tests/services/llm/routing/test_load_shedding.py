"""Load shedding over HTTP: who is busy is passed over, waited for in turn, and not returned to at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from pydantic_ai.direct import model_request_stream
from redis.asyncio import Redis

from bot.operators.provider_table import provider_table
from core.errors import AllProvidersFailed, ConsentNeeded
from core.redis import guard as reach
from core.redis.client import open_redis
from services.llm.request import RequestSpec
from services.llm.routing.affinity import ProviderAffinity
from services.llm.routing.concurrency import LimiterTiming
from services.llm.routing.shared_state import SyncTiming
from services.llm.routing.status import ProviderState
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import (
    HELLO,
    LLMHarness,
    RealPauses,
    answered_by,
    bench,
    eventually,
    provider,
    subscribed,
)
from tests.support.processes.redis_server import RedisServer

ANN, BEN = "telegram:1", "telegram:2"


@dataclass(slots=True)
class LimitedHarness:
    """A replica and two providers; the first accepts one request at a time."""

    first: LLMServer
    second: LLMServer
    redis: Redis
    clock: RealPauses
    replica: LLMHarness
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def asked(self, speaker: str | None = None, **options: object) -> str:
        """Return the id of the provider that answers a request now."""
        return answered_by(await self.replica.ask(streamed=True, speaker=speaker, **options))

    async def occupy(self, *, streamed: bool = True, after_pieces: int = 0) -> asyncio.Task[object]:
        """Start a request that the first provider answers once the gate is open."""
        self.gate.clear()
        count = len(self.first.requests)
        self.first.script(llm.gate(self.gate, after_pieces=after_pieces))
        task = asyncio.create_task(self.replica.ask(streamed=streamed))
        await self.first.arrival(count + 1)
        return task

    async def set_free(self, occupying: asyncio.Task[object]) -> None:
        """Open the gate, and wait until the request has ended and its slot is released."""
        self.gate.set()
        await occupying
        await eventually(lambda: self.in_flight == 0)
        await self.replica.shedding.close()

    @property
    def in_flight(self) -> int:
        return self.replica.fallback.get_provider_status().providers[0].in_flight

    @property
    def counts(self) -> tuple[int, int]:
        return len(self.first.requests), len(self.second.requests)


@asynccontextmanager
async def open_limited_harness(
    redis: Redis, *, second_remote: bool = False, sync: SyncTiming | None = None, **first_options: object
) -> AsyncIterator[LimitedHarness]:
    async with LLMServer() as first, LLMServer() as second:
        providers = [
            provider("first", first.url, remote=False, **{"max_concurrency": 1, **first_options}),
            provider("second", second.url, remote=second_remote),
        ]
        clock = RealPauses()
        async with bench(redis, providers, clock, sync=sync) as replica:
            yield LimitedHarness(first, second, redis, clock, replica)


@pytest.fixture
async def limited(redis: Redis) -> AsyncIterator[LimitedHarness]:
    async with open_limited_harness(redis) as limited:
        yield limited


class ConcurrencyCounter:
    """A server that counts its concurrent requests."""

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


async def test_concurrent_requests_never_exceed_the_limit(redis: Redis) -> None:
    """32 requests at two replicas that share it, plain and streamed: all are answered, four at a time."""
    crowd = ConcurrencyCounter()
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
async def test_busy_provider_is_skipped(limited: LimitedHarness, *, streamed: bool) -> None:
    """Which is nobody's fault: no cooldown, no failure, no preference, no switch to tell of, no name in the answer."""
    told: list[object] = []
    limited.replica.fallback.listen(told.append)
    occupying = await limited.occupy(streamed=streamed)

    response = await limited.replica.ask(streamed=streamed)

    assert answered_by(response) == "second"
    assert response.metadata is not None
    assert response.metadata["understudy"]["failed"] == ()
    status = limited.replica.fallback.get_provider_status()
    assert [each.state for each in status.providers] == [ProviderState.HEALTHY] * 2
    assert status.providers[0].failures == 0
    assert (limited.replica.cooling(), status.preferred, told) == ({}, None, [])

    await limited.set_free(occupying)
    assert await limited.asked() == "first"


async def test_stream_holds_its_slot_until_its_end(limited: LimitedHarness) -> None:
    occupying = await limited.occupy(after_pieces=1)

    assert await limited.asked() == "second"
    await limited.set_free(occupying)
    assert await limited.asked() == "first"


async def test_fully_read_stream_holds_no_slot(limited: LimitedHarness) -> None:
    """Though whoever read it has not left it yet."""
    model = limited.replica.factory.create_llm_model_with_fallback("test")
    async with model_request_stream(model, HELLO) as stream:
        async for _ in stream:
            pass
        assert limited.in_flight == 0
        await limited.replica.shedding.close()
        assert await limited.asked() == "first"


@pytest.mark.parametrize("after_pieces", [0, 1], ids=["before the first output", "in mid-stream"])
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_stop_releases_the_slot(limited: LimitedHarness, *, streamed: bool, after_pieces: int) -> None:
    occupying = await limited.occupy(streamed=streamed, after_pieces=after_pieces)
    occupying.cancel()
    await asyncio.gather(occupying, return_exceptions=True)
    await limited.replica.shedding.close()

    assert limited.in_flight == 0
    assert await limited.asked() == "first"


@pytest.mark.parametrize(
    ("behaviour", "answers"),
    [
        (llm.status(529), "second"),  # fails at once
        (llm.cut(2), None),  # breaks off
        (llm.status(400), None),  # the request is at fault
        (llm.content_filter(("No",)), None),  # refused
    ],
)
async def test_failure_releases_the_slot(
    limited: LimitedHarness, behaviour: llm.Behaviour, answers: str | None
) -> None:
    limited.first.script(behaviour)
    if answers is None:
        with pytest.raises(Exception, match="first"):
            await limited.asked()
    else:
        assert await limited.asked() == answers
    await limited.replica.shedding.close()
    await limited.replica.fallback.control.reset("first")

    assert limited.in_flight == 0
    assert await limited.asked() == "first"


async def test_retry_keeps_the_slot(redis: Redis) -> None:
    """Nobody slips in while a provider that had a hiccup is given a moment."""
    async with open_limited_harness(redis) as limited:
        limited.first.script(llm.status(500), llm.gate(limited.gate))
        retried = asyncio.create_task(limited.asked())
        await limited.first.arrival(1)
        assert await limited.asked() == "second"
        await limited.first.arrival(2)
        assert await limited.asked() == "second"
        limited.gate.set()

        assert await retried == "first"
        assert limited.counts == (2, 2)


async def test_retry_renews_the_lease(limited: LimitedHarness) -> None:
    """Both tries together may take longer than the lease of one."""
    first_try = asyncio.Event()
    limited.first.script(llm.gate(first_try, then=llm.status(500)), llm.gate(limited.gate))
    retried = asyncio.create_task(limited.asked())
    await limited.first.arrival(1)
    limited.clock.shift(LimiterTiming().lease_margin_s)
    first_try.set()
    await limited.first.arrival(2)
    await limited.replica.shedding.close()
    limited.clock.shift(LimiterTiming().lease_margin_s)

    async with bench(limited.redis, limited.replica.fallback.providers, limited.clock) as other:
        assert answered_by(await other.ask(streamed=True)) == "second"
    limited.gate.set()
    assert await retried == "first"


async def test_slots_of_a_dead_replica_expire(limited: LimitedHarness) -> None:
    providers = limited.replica.fallback.providers
    async with bench(limited.redis, providers, limited.clock) as dead:
        attempts = await dead.fallback.begin(RequestSpec("dies"))
        assert (await anext(attempts)).candidate.provider.id == "first"

        assert await limited.asked() == "second"
        limited.clock.shift(5 + LimiterTiming().lease_margin_s)
        assert await limited.asked() == "first"


# Waiting


async def test_request_without_an_alternative_queues(limited: LimitedHarness) -> None:
    limited.second.default = llm.status(529)
    occupying = await limited.occupy()
    waiting = [asyncio.create_task(limited.asked()) for _ in range(3)]
    await limited.second.arrival(1)
    await asyncio.sleep(0.05)
    assert limited.counts[0] == 1
    await limited.set_free(occupying)

    assert await asyncio.gather(*waiting) == ["first"] * 3


async def test_queued_request_times_out(redis: Redis) -> None:
    """The error names who failed and who was busy; nobody is blamed for being busy."""
    async with open_limited_harness(redis, first_token_timeout_s=5.0) as limited:
        limited.second.default = llm.status(529)
        occupying = await limited.occupy()
        impatient = [provider("first", limited.first.url, max_concurrency=1, first_token_timeout_s=0.1)]
        async with bench(redis, [*impatient, limited.replica.fallback.providers[1]], limited.clock) as other:
            with pytest.raises(AllProvidersFailed) as failure:
                await other.ask(streamed=True)
            reasons = [(attempt.provider, attempt.reason) for attempt in failure.value.attempts]
            assert reasons == [("second", "HTTP 529 (overloaded)"), ("first", "busy")]
            assert set(other.cooling()) == {"second"}
        await limited.set_free(occupying)


async def test_stop_while_queued_leaves_no_state(limited: LimitedHarness) -> None:
    limited.second.default = llm.status(529)
    occupying = await limited.occupy()
    waiting = asyncio.create_task(limited.asked())
    await limited.second.arrival(1)
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    await limited.set_free(occupying)
    assert await limited.asked() == "first"


async def test_request_without_consent_queues_for_the_local_provider(redis: Redis) -> None:
    """The remote one is free, and not a byte goes there."""
    async with open_limited_harness(redis, second_remote=True) as limited:
        occupying = await limited.occupy()
        waiting = asyncio.create_task(limited.asked(ANN, local_only=True))
        await asyncio.sleep(0.05)
        await limited.set_free(occupying)

        assert await waiting == "first"
        assert limited.second.connections == 0


async def test_request_without_consent_asks_for_it_when_queueing_fails(redis: Redis) -> None:
    async with open_limited_harness(redis, second_remote=True, first_token_timeout_s=0.1) as limited:
        attempts = await limited.replica.fallback.begin(RequestSpec("holds the slot"))
        await anext(attempts)
        with pytest.raises(ConsentNeeded):
            await limited.asked(ANN, local_only=True)
        attempts.close()

        assert limited.second.connections == 0


async def test_affinity_for_a_remote_provider_ends_with_the_consent(redis: Redis) -> None:
    async with open_limited_harness(redis, second_remote=True) as limited:
        occupying = await limited.occupy()
        assert await limited.asked(ANN) == "second"
        await limited.set_free(occupying)
        connections = limited.second.connections

        assert await limited.asked(ANN, local_only=True) == "first"
        assert limited.second.connections == connections


# Staying


async def moved(limited: LimitedHarness, speaker: str = ANN) -> None:
    """A speaker is answered by the second because the first is busy, which then is free again."""
    occupying = await limited.occupy()
    assert await limited.asked(speaker) == "second"
    await limited.set_free(occupying)


async def test_affinity_lasts_five_minutes(limited: LimitedHarness) -> None:
    """From the move on, however much is asked meanwhile; others are not concerned."""
    await moved(limited)

    assert await limited.asked(ANN) == "second"
    assert (await limited.asked(BEN), await limited.asked()) == ("first", "first")
    limited.clock.shift(299)
    assert await limited.asked(ANN) == "second"
    limited.clock.shift(1)
    assert await limited.asked(ANN) == "first"
    assert limited.replica.preferred == "first"


async def test_affinity_is_shared_between_replicas(limited: LimitedHarness) -> None:
    await moved(limited)
    async with bench(limited.redis, limited.replica.fallback.providers, limited.clock) as other:
        assert answered_by(await other.ask(streamed=True, speaker=ANN)) == "second"
        assert answered_by(await other.ask(streamed=True, speaker=BEN)) == "first"
        limited.clock.shift(300)
        assert answered_by(await other.ask(streamed=True, speaker=ANN)) == "first"
    assert 0 < await limited.redis.ttl(f"test:{{llm}}:stay:{ANN}") <= 300


async def test_shed_user_does_not_alternate_between_providers(limited: LimitedHarness) -> None:
    """The first is busy every other moment; a conversation changes its provider once."""
    answered: list[str] = []
    for _ in range(5):
        occupying = await limited.occupy()
        answered.append(await limited.asked(ANN))
        await limited.set_free(occupying)
        answered.append(await limited.asked(ANN))

    assert answered == ["second"] * 10


async def test_affinity_does_not_hold_for_a_provider_in_cooldown(limited: LimitedHarness) -> None:
    await moved(limited)
    limited.second.script(llm.status(529))
    assert await limited.asked(ANN) == "first"
    limited.second.requests.clear()

    assert await limited.asked(ANN) == "first"
    assert not limited.second.requests


async def test_force_and_user_choice_precede_affinity(limited: LimitedHarness) -> None:
    await moved(limited)
    assert await limited.asked(ANN, choice="first") == "first"
    await limited.replica.fallback.force_provider("first", 10)
    assert await limited.asked(ANN) == "first"
    limited.clock.shift(10)
    assert await limited.asked(ANN) == "second"


async def test_affinity_precedes_the_preferred_provider(limited: LimitedHarness) -> None:
    assert await limited.asked() == "first"
    assert limited.replica.preferred == "first"
    await moved(limited)

    assert await limited.asked(ANN) == "second"
    assert limited.replica.preferred == "first"


async def test_queued_and_served_user_gets_no_affinity(limited: LimitedHarness) -> None:
    occupying = await limited.occupy()
    limited.second.script(llm.status(529))
    waiting = asyncio.create_task(limited.asked(ANN))
    await limited.second.arrival(1)
    await limited.set_free(occupying)
    assert await waiting == "first"

    assert not await limited.redis.exists(f"test:{{llm}}:stay:{ANN}")


async def test_user_with_affinity_does_not_probe(limited: LimitedHarness) -> None:
    """They are not sent back to find out whether the other one is well again; anybody else finds that out."""
    await moved(limited)
    limited.first.script(llm.status(529))
    assert await limited.asked(BEN) == "second"
    await limited.replica.fallback.control.reset("first")
    await limited.replica.fallback.control.cool_down("first", 10, "an admin")
    limited.clock.shift(20)

    assert await limited.asked(ANN) == "second"
    assert await limited.asked(BEN) == "first"


async def test_busy_provider_is_probed_by_a_later_request(limited: LimitedHarness) -> None:
    """The lease goes back at once, and not with the answer of whoever steps in."""
    limited.replica.set_timing(lease_wait_s=5.0)
    limited.first.script(llm.status(529))
    assert await limited.asked() == "second"
    limited.clock.shift(300)
    # Somebody who picked it occupies it.
    limited.first.script(llm.gate(limited.gate))
    picking = asyncio.create_task(limited.asked(choice="first"))
    await limited.first.arrival(2)
    held = asyncio.Event()
    limited.second.script(llm.gate(held))
    shed = asyncio.create_task(limited.asked())
    await limited.second.arrival(2)

    assert not limited.replica.shared.routing.probes
    limited.gate.set()
    held.set()
    assert (await picking, await shed) == ("first", "second")


# Redis


async def test_provider_without_a_limit_costs_no_redis_command(redis_server: RedisServer) -> None:
    async with (
        open_redis(redis_server.url) as redis,
        open_redis(redis_server.url) as other,
        open_limited_harness(redis, sync=SyncTiming(resync_s=60.0), max_concurrency=None) as limited,
    ):
        await limited.asked(ANN)
        await limited.replica.shared.commit(lambda routing: routing, 5)
        await subscribed(redis, 1)
        await asyncio.sleep(0.1)
        await other.config_resetstat()
        for _ in range(5):
            await limited.asked(ANN)
        assert set(await other.info("commandstats")) <= {"cmdstat_config|resetstat", "cmdstat_info"}


async def test_redis_outage_keeps_limit_and_affinity_local(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "RETRY_AFTER_S", 0.1)
    async with open_redis(redis_server.url) as redis, open_limited_harness(redis) as limited:
        assert await limited.asked(ANN) == "first"
        await redis_server.stop()
        await moved(limited)
        assert await limited.asked(ANN) == "second"
        assert await limited.asked(BEN) == "first"
        await redis_server.start()
        await asyncio.sleep(0.2)
        assert await limited.asked(BEN) == "first"
        await limited.replica.shedding.close()
        assert await redis.zcard("test:{llm}:inflight:first") == 0


async def test_unreadable_affinity_is_ignored(limited: LimitedHarness) -> None:
    for stored in ("second", "[1]", '{"a": 1}', '["second", "soon"]', '["gone", 9e12]'):
        await limited.redis.set(f"test:{{llm}}:stay:{ANN}", stored)
        assert await limited.asked(ANN) == "first"


# Telling


async def test_status_counts_requests_in_flight(limited: LimitedHarness) -> None:
    occupying = await limited.occupy()
    held = asyncio.Event()
    limited.second.script(llm.gate(held))
    other = asyncio.create_task(limited.asked())
    await limited.second.arrival(1)

    status = limited.replica.fallback.get_provider_status()
    assert [(each.in_flight, each.limit) for each in status.providers] == [(1, 1), (1, None)]
    table = provider_table(status, limited.clock.time())
    assert "in flight: 1, limit over all replicas: 1" in table
    assert "in flight: 1\n" in f"{table}\n"
    held.set()
    await other
    await limited.set_free(occupying)
    assert "in flight: 0, limit over all replicas: 1" in provider_table(
        limited.replica.fallback.get_provider_status(), limited.clock.time()
    )


async def test_affinity_forgets_expired_users() -> None:
    clock = RealPauses()
    kept = ProviderAffinity(None, "test", clock)
    for number in range(10):
        kept.begin(f"telegram:{number}", "second")
        clock.shift(200)
    await kept.close()
    assert len(kept._local) <= 3
    assert await kept.provider_for("telegram:9") == "second"
