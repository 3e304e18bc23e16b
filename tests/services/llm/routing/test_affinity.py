"""Affinity over HTTP: a user stays with the provider that stepped in for a busy one."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from services.llm.routing.affinity import ProviderAffinity
from tests.support.fake_llm import server as llm
from tests.support.llm_harness import (
    RealPauses,
    answered_by,
    bench,
)
from tests.support.load_shedding_harness import ANN, BEN, LoadSheddingHarness, move_user, open_harness


@pytest.fixture
async def harness(redis: Redis) -> AsyncIterator[LoadSheddingHarness]:
    async with open_harness(redis) as harness:
        yield harness


async def test_affinity_with_a_remote_provider_ends_with_the_consent(redis: Redis) -> None:
    async with open_harness(redis, second_remote=True) as harness:
        occupying = await harness.occupy()
        assert await harness.asked(ANN) == "second"
        await harness.set_free(occupying)
        connections = harness.second.connections

        assert await harness.asked(ANN, local_only=True) == "first"
        assert harness.second.connections == connections


async def test_affinity_lasts_five_minutes(harness: LoadSheddingHarness) -> None:
    """From the move on, however many requests follow; other users are not affected."""
    await move_user(harness)

    assert await harness.asked(ANN) == "second"
    assert (await harness.asked(BEN), await harness.asked()) == ("first", "first")
    harness.clock.shift(299)
    assert await harness.asked(ANN) == "second"
    harness.clock.shift(1)
    assert await harness.asked(ANN) == "first"
    assert harness.replica.preferred == "first"


async def test_affinity_is_shared_with_other_replicas(harness: LoadSheddingHarness) -> None:
    await move_user(harness)
    async with bench(harness.redis, harness.fallback.providers, harness.clock) as other:
        assert answered_by(await other.ask(streamed=True, user=ANN)) == "second"
        assert answered_by(await other.ask(streamed=True, user=BEN)) == "first"
        harness.clock.shift(300)
        assert answered_by(await other.ask(streamed=True, user=ANN)) == "first"
    assert 0 < await harness.redis.ttl(f"test:{{llm}}:stay:{ANN}") <= 300


async def test_affinity_prevents_switching_back_and_forth(harness: LoadSheddingHarness) -> None:
    """The first is busy every other moment; a conversation changes its provider once."""
    answered: list[str] = []
    for _ in range(5):
        occupying = await harness.occupy()
        answered.append(await harness.asked(ANN))
        await harness.set_free(occupying)
        answered.append(await harness.asked(ANN))

    assert answered == ["second"] * 10


async def test_affinity_ignores_a_provider_in_cooldown(harness: LoadSheddingHarness) -> None:
    await move_user(harness)
    harness.second.script(llm.status(529))
    assert await harness.asked(ANN) == "first"
    harness.second.requests.clear()

    assert await harness.asked(ANN) == "first"
    assert not harness.second.requests


async def test_force_and_choice_come_before_affinity(harness: LoadSheddingHarness) -> None:
    await move_user(harness)
    assert await harness.asked(ANN, choice="first") == "first"
    await harness.fallback.force_provider("first", 10)
    assert await harness.asked(ANN) == "first"
    harness.clock.shift(10)
    assert await harness.asked(ANN) == "second"


async def test_affinity_comes_before_the_preferred_provider(harness: LoadSheddingHarness) -> None:
    assert await harness.asked() == "first"
    assert harness.replica.preferred == "first"
    await move_user(harness)

    assert await harness.asked(ANN) == "second"
    assert harness.replica.preferred == "first"


async def test_request_that_waited_creates_no_affinity(harness: LoadSheddingHarness) -> None:
    occupying = await harness.occupy()
    harness.second.script(llm.status(529))
    waiting = asyncio.create_task(harness.asked(ANN))
    await harness.second.arrival(1)
    await harness.set_free(occupying)
    assert await waiting == "first"

    assert not await harness.redis.exists(f"test:{{llm}}:stay:{ANN}")


async def test_user_with_affinity_does_not_probe(harness: LoadSheddingHarness) -> None:
    """Another user's request probes instead."""
    await move_user(harness)
    harness.first.script(llm.status(529))
    assert await harness.asked(BEN) == "second"
    await harness.fallback.control.reset("first")
    await harness.fallback.control.cool_down("first", 10, "an admin")
    harness.clock.shift(20)

    assert await harness.asked(ANN) == "second"
    assert await harness.asked(BEN) == "first"


async def test_probe_of_a_busy_provider_returns_the_lease(harness: LoadSheddingHarness) -> None:
    """At once, not with the answer of the provider that steps in."""
    harness.replica.set_timing(lease_wait_s=5.0)
    harness.first.script(llm.status(529))
    assert await harness.asked() == "second"
    harness.clock.shift(300)
    # A request with an explicit choice occupies it.
    harness.first.script(llm.gate(harness.gate))
    picking = asyncio.create_task(harness.asked(choice="first"))
    await harness.first.arrival(2)
    held = asyncio.Event()
    harness.second.script(llm.gate(held))
    shed = asyncio.create_task(harness.asked())
    await harness.second.arrival(2)

    assert not harness.replica.shared.routing.probes
    harness.gate.set()
    held.set()
    assert (await picking, await shed) == ("first", "second")


async def test_unreadable_affinity_is_ignored(harness: LoadSheddingHarness) -> None:
    for stored in ("second", "[1]", '{"a": 1}', '["second", "soon"]', '["gone", 9e12]'):
        await harness.redis.set(f"test:{{llm}}:stay:{ANN}", stored)
        assert await harness.asked(ANN) == "first"


async def test_affinity_forgets_expired_users() -> None:
    clock = RealPauses()
    kept = ProviderAffinity(None, "test", clock)
    for number in range(10):
        kept.begin(f"telegram:{number}", "second")
        clock.shift(200)
    await kept.close()
    assert len(kept._local) <= 3
    assert await kept.provider_for("telegram:9") == "second"
