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
class Stage:
    """Two providers, the first of which takes one request at once, and a replica."""

    first: LLMServer
    second: LLMServer
    redis: Redis
    clock: RealPauses
    replica: LLMHarness
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def asked(self, speaker: str | None = None, **options: object) -> str:
        """Who answers now."""
        return answered_by(await self.replica.ask(streamed=True, speaker=speaker, **options))

    async def occupy(self, *, streamed: bool = True, after_pieces: int = 0) -> asyncio.Task[object]:
        """A request that the first provider is at work on until the gate opens."""
        self.gate.clear()
        count = len(self.first.requests)
        self.first.script(llm.gate(self.gate, after_pieces=after_pieces))
        task = asyncio.create_task(self.replica.ask(streamed=streamed))
        await self.first.arrival(count + 1)
        return task

    async def set_free(self, occupying: asyncio.Task[object]) -> None:
        """Let that request come to its end, and everybody know of it."""
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
async def staged(
    redis: Redis, *, second_remote: bool = False, sync: SyncTiming | None = None, **first_options: object
) -> AsyncIterator[Stage]:
    async with LLMServer() as first, LLMServer() as second:
        providers = [
            provider("first", first.url, remote=False, **{"max_concurrency": 1, **first_options}),
            provider("second", second.url, remote=second_remote),
        ]
        clock = RealPauses()
        async with bench(redis, providers, clock, sync=sync) as replica:
            yield Stage(first, second, redis, clock, replica)


@pytest.fixture
async def stage(redis: Redis) -> AsyncIterator[Stage]:
    async with staged(redis) as stage:
        yield stage


class Crowd:
    """A server that counts how many requests it is at work on."""

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


async def test_many_at_once_never_exceed_the_limit(redis: Redis) -> None:
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
async def test_whoever_is_busy_is_passed_over(stage: Stage, *, streamed: bool) -> None:
    """Which is nobody's fault: no cooldown, no failure, no preference, no switch to tell of, no name in the answer."""
    told: list[object] = []
    stage.replica.fallback.listen(told.append)
    occupying = await stage.occupy(streamed=streamed)

    response = await stage.replica.ask(streamed=streamed)

    assert answered_by(response) == "second"
    assert response.metadata is not None
    assert response.metadata["understudy"]["failed"] == ()
    status = stage.replica.fallback.get_provider_status()
    assert [each.state for each in status.providers] == [ProviderState.HEALTHY] * 2
    assert status.providers[0].failures == 0
    assert (stage.replica.cooling(), status.preferred, told) == ({}, None, [])

    await stage.set_free(occupying)
    assert await stage.asked() == "first"


async def test_a_stream_holds_its_slot_until_its_end(stage: Stage) -> None:
    occupying = await stage.occupy(after_pieces=1)

    assert await stage.asked() == "second"
    await stage.set_free(occupying)
    assert await stage.asked() == "first"


async def test_a_stream_that_was_read_to_its_end_holds_nothing(stage: Stage) -> None:
    """Though whoever read it has not left it yet."""
    model = stage.replica.factory.create_llm_model_with_fallback("test")
    async with model_request_stream(model, HELLO) as stream:
        async for _ in stream:
            pass
        assert stage.in_flight == 0
        await stage.replica.shedding.close()
        assert await stage.asked() == "first"


@pytest.mark.parametrize("after_pieces", [0, 1], ids=["before the first output", "in mid-stream"])
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_a_stop_gives_the_slot_back(stage: Stage, *, streamed: bool, after_pieces: int) -> None:
    occupying = await stage.occupy(streamed=streamed, after_pieces=after_pieces)
    occupying.cancel()
    await asyncio.gather(occupying, return_exceptions=True)
    await stage.replica.shedding.close()

    assert stage.in_flight == 0
    assert await stage.asked() == "first"


@pytest.mark.parametrize(
    ("behaviour", "answers"),
    [
        (llm.status(529), "second"),  # fails at once
        (llm.cut(2), None),  # breaks off
        (llm.status(400), None),  # the request is at fault
        (llm.content_filter(("No",)), None),  # refused
    ],
)
async def test_a_failure_gives_the_slot_back(stage: Stage, behaviour: llm.Behaviour, answers: str | None) -> None:
    stage.first.script(behaviour)
    if answers is None:
        with pytest.raises(Exception, match="first"):
            await stage.asked()
    else:
        assert await stage.asked() == answers
    await stage.replica.shedding.close()
    await stage.replica.fallback.control.reset("first")

    assert stage.in_flight == 0
    assert await stage.asked() == "first"


async def test_a_retry_keeps_the_slot(redis: Redis) -> None:
    """Nobody slips in while a provider that had a hiccup is given a moment."""
    async with staged(redis) as stage:
        stage.first.script(llm.status(500), llm.gate(stage.gate))
        retried = asyncio.create_task(stage.asked())
        await stage.first.arrival(1)
        assert await stage.asked() == "second"
        await stage.first.arrival(2)
        assert await stage.asked() == "second"
        stage.gate.set()

        assert await retried == "first"
        assert stage.counts == (2, 2)


async def test_a_retry_begins_the_lease_anew(stage: Stage) -> None:
    """Both tries together may take longer than the lease of one."""
    first_try = asyncio.Event()
    stage.first.script(llm.gate(first_try, then=llm.status(500)), llm.gate(stage.gate))
    retried = asyncio.create_task(stage.asked())
    await stage.first.arrival(1)
    stage.clock.shift(LimiterTiming().lease_margin_s)
    first_try.set()
    await stage.first.arrival(2)
    await stage.replica.shedding.close()
    stage.clock.shift(LimiterTiming().lease_margin_s)

    async with bench(stage.redis, stage.replica.fallback.providers, stage.clock) as other:
        assert answered_by(await other.ask(streamed=True)) == "second"
    stage.gate.set()
    assert await retried == "first"


async def test_the_slots_of_a_dead_replica_come_back(stage: Stage) -> None:
    providers = stage.replica.fallback.providers
    async with bench(stage.redis, providers, stage.clock) as dead:
        attempts = await dead.fallback.begin(RequestSpec("dies"))
        assert (await anext(attempts)).candidate.provider.id == "first"

        assert await stage.asked() == "second"
        stage.clock.shift(5 + LimiterTiming().lease_margin_s)
        assert await stage.asked() == "first"


# Waiting


async def test_who_finds_nobody_else_waits_for_its_turn(stage: Stage) -> None:
    stage.second.default = llm.status(529)
    occupying = await stage.occupy()
    waiting = [asyncio.create_task(stage.asked()) for _ in range(3)]
    await stage.second.arrival(1)
    await asyncio.sleep(0.05)
    assert stage.counts[0] == 1
    await stage.set_free(occupying)

    assert await asyncio.gather(*waiting) == ["first"] * 3


async def test_nobody_waits_for_ever(redis: Redis) -> None:
    """The error names who failed and who was busy; nobody is blamed for being busy."""
    async with staged(redis, first_token_timeout_s=5.0) as stage:
        stage.second.default = llm.status(529)
        occupying = await stage.occupy()
        impatient = [provider("first", stage.first.url, max_concurrency=1, first_token_timeout_s=0.1)]
        async with bench(redis, [*impatient, stage.replica.fallback.providers[1]], stage.clock) as other:
            with pytest.raises(AllProvidersFailed) as failure:
                await other.ask(streamed=True)
            reasons = [(attempt.provider, attempt.reason) for attempt in failure.value.attempts]
            assert reasons == [("second", "HTTP 529 (overloaded)"), ("first", "busy")]
            assert set(other.cooling()) == {"second"}
        await stage.set_free(occupying)


async def test_a_stop_while_waiting_leaves_nothing_behind(stage: Stage) -> None:
    stage.second.default = llm.status(529)
    occupying = await stage.occupy()
    waiting = asyncio.create_task(stage.asked())
    await stage.second.arrival(1)
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    await stage.set_free(occupying)
    assert await stage.asked() == "first"


async def test_without_consent_it_waits_for_the_local_one(redis: Redis) -> None:
    """The remote one is free, and not a byte goes there."""
    async with staged(redis, second_remote=True) as stage:
        occupying = await stage.occupy()
        waiting = asyncio.create_task(stage.asked(ANN, local_only=True))
        await asyncio.sleep(0.05)
        await stage.set_free(occupying)

        assert await waiting == "first"
        assert stage.second.connections == 0


async def test_without_consent_it_is_asked_for_when_the_wait_was_in_vain(redis: Redis) -> None:
    async with staged(redis, second_remote=True, first_token_timeout_s=0.1) as stage:
        attempts = await stage.replica.fallback.begin(RequestSpec("holds the slot"))
        await anext(attempts)
        with pytest.raises(ConsentNeeded):
            await stage.asked(ANN, local_only=True)
        attempts.close()

        assert stage.second.connections == 0


async def test_a_stay_with_a_remote_one_ends_with_the_consent(redis: Redis) -> None:
    async with staged(redis, second_remote=True) as stage:
        occupying = await stage.occupy()
        assert await stage.asked(ANN) == "second"
        await stage.set_free(occupying)
        connections = stage.second.connections

        assert await stage.asked(ANN, local_only=True) == "first"
        assert stage.second.connections == connections


# Staying


async def moved(stage: Stage, speaker: str = ANN) -> None:
    """A speaker is answered by the second because the first is busy, which then is free again."""
    occupying = await stage.occupy()
    assert await stage.asked(speaker) == "second"
    await stage.set_free(occupying)


async def test_who_was_moved_stays_for_five_minutes(stage: Stage) -> None:
    """From the move on, however much is asked meanwhile; others are not concerned."""
    await moved(stage)

    assert await stage.asked(ANN) == "second"
    assert (await stage.asked(BEN), await stage.asked()) == ("first", "first")
    stage.clock.shift(299)
    assert await stage.asked(ANN) == "second"
    stage.clock.shift(1)
    assert await stage.asked(ANN) == "first"
    assert stage.replica.preferred == "first"


async def test_other_replicas_know_who_stays(stage: Stage) -> None:
    await moved(stage)
    async with bench(stage.redis, stage.replica.fallback.providers, stage.clock) as other:
        assert answered_by(await other.ask(streamed=True, speaker=ANN)) == "second"
        assert answered_by(await other.ask(streamed=True, speaker=BEN)) == "first"
        stage.clock.shift(300)
        assert answered_by(await other.ask(streamed=True, speaker=ANN)) == "first"
    assert 0 < await stage.redis.ttl(f"test:{{llm}}:stay:{ANN}") <= 300


async def test_nobody_is_sent_to_and_fro(stage: Stage) -> None:
    """The first is busy every other moment; a conversation changes its provider once."""
    answered: list[str] = []
    for _ in range(5):
        occupying = await stage.occupy()
        answered.append(await stage.asked(ANN))
        await stage.set_free(occupying)
        answered.append(await stage.asked(ANN))

    assert answered == ["second"] * 10


async def test_nobody_stays_with_who_cools_down(stage: Stage) -> None:
    await moved(stage)
    stage.second.script(llm.status(529))
    assert await stage.asked(ANN) == "first"
    stage.second.requests.clear()

    assert await stage.asked(ANN) == "first"
    assert not stage.second.requests


async def test_a_force_and_a_choice_come_before_a_stay(stage: Stage) -> None:
    await moved(stage)
    assert await stage.asked(ANN, choice="first") == "first"
    await stage.replica.fallback.force_provider("first", 10)
    assert await stage.asked(ANN) == "first"
    stage.clock.shift(10)
    assert await stage.asked(ANN) == "second"


async def test_a_stay_comes_before_the_preferred(stage: Stage) -> None:
    assert await stage.asked() == "first"
    assert stage.replica.preferred == "first"
    await moved(stage)

    assert await stage.asked(ANN) == "second"
    assert stage.replica.preferred == "first"


async def test_who_waited_and_was_served_does_not_stay_elsewhere(stage: Stage) -> None:
    occupying = await stage.occupy()
    stage.second.script(llm.status(529))
    waiting = asyncio.create_task(stage.asked(ANN))
    await stage.second.arrival(1)
    await stage.set_free(occupying)
    assert await waiting == "first"

    assert not await stage.redis.exists(f"test:{{llm}}:stay:{ANN}")


async def test_who_stays_does_not_probe(stage: Stage) -> None:
    """They are not sent back to find out whether the other one is well again; anybody else finds that out."""
    await moved(stage)
    stage.first.script(llm.status(529))
    assert await stage.asked(BEN) == "second"
    await stage.replica.fallback.control.reset("first")
    await stage.replica.fallback.control.cool_down("first", 10, "an admin")
    stage.clock.shift(20)

    assert await stage.asked(ANN) == "second"
    assert await stage.asked(BEN) == "first"


async def test_a_probe_of_who_is_busy_is_left_to_others(stage: Stage) -> None:
    """The lease goes back at once, and not with the answer of whoever steps in."""
    stage.replica.set_timing(lease_wait_s=5.0)
    stage.first.script(llm.status(529))
    assert await stage.asked() == "second"
    stage.clock.shift(300)
    # Somebody who picked it occupies it.
    stage.first.script(llm.gate(stage.gate))
    picking = asyncio.create_task(stage.asked(choice="first"))
    await stage.first.arrival(2)
    held = asyncio.Event()
    stage.second.script(llm.gate(held))
    shed = asyncio.create_task(stage.asked())
    await stage.second.arrival(2)

    assert not stage.replica.shared.routing.probes
    stage.gate.set()
    held.set()
    assert (await picking, await shed) == ("first", "second")


# Redis


async def test_without_a_limit_a_speaker_costs_no_command(redis_server: RedisServer) -> None:
    async with (
        open_redis(redis_server.url) as redis,
        open_redis(redis_server.url) as other,
        staged(redis, sync=SyncTiming(resync_s=60.0), max_concurrency=None) as stage,
    ):
        await stage.asked(ANN)
        await stage.replica.shared.commit(lambda routing: routing, 5)
        await subscribed(redis, 1)
        await asyncio.sleep(0.1)
        await other.config_resetstat()
        for _ in range(5):
            await stage.asked(ANN)
        assert set(await other.info("commandstats")) <= {"cmdstat_config|resetstat", "cmdstat_info"}


async def test_redis_gone_the_limit_and_the_stay_hold_here(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "RETRY_AFTER_S", 0.1)
    async with open_redis(redis_server.url) as redis, staged(redis) as stage:
        assert await stage.asked(ANN) == "first"
        await redis_server.stop()
        await moved(stage)
        assert await stage.asked(ANN) == "second"
        assert await stage.asked(BEN) == "first"
        await redis_server.start()
        await asyncio.sleep(0.2)
        assert await stage.asked(BEN) == "first"
        await stage.replica.shedding.close()
        assert await redis.zcard("test:{llm}:inflight:first") == 0


async def test_a_stay_that_nobody_can_read_is_none(stage: Stage) -> None:
    for stored in ("second", "[1]", '{"a": 1}', '["second", "soon"]', '["gone", 9e12]'):
        await stage.redis.set(f"test:{{llm}}:stay:{ANN}", stored)
        assert await stage.asked(ANN) == "first"


# Telling


async def test_the_status_counts_what_is_in_flight(stage: Stage) -> None:
    occupying = await stage.occupy()
    held = asyncio.Event()
    stage.second.script(llm.gate(held))
    other = asyncio.create_task(stage.asked())
    await stage.second.arrival(1)

    status = stage.replica.fallback.get_provider_status()
    assert [(each.in_flight, each.limit) for each in status.providers] == [(1, 1), (1, None)]
    table = provider_table(status, stage.clock.time())
    assert "in flight: 1, limit over all replicas: 1" in table
    assert "in flight: 1\n" in f"{table}\n"
    held.set()
    await other
    await stage.set_free(occupying)
    assert "in flight: 0, limit over all replicas: 1" in provider_table(
        stage.replica.fallback.get_provider_status(), stage.clock.time()
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
