"""Instants of shared state that a wrong clock wrote are clamped to the longest possible duration."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from core.redis.client import open_redis
from services.llm.routing.admission.concurrency import ConcurrencyLimiter, LimiterTiming
from services.llm.routing.affinity import AFFINITY_S, ProviderAffinity
from services.llm.routing.state.changes import CLOCK_SKEW_S
from services.llm.routing.state.clock_bounds import SET_BY_ADMIN, InstantBounds, clamped
from services.llm.routing.state.codec import encode_routing
from services.llm.routing.state.rules import (
    Cooldown,
    Force,
    Lease,
    ModelLimits,
    Preferred,
    RestingModel,
    Routing,
)
from services.llm.routing.state.shared_state import SharedRouting, SyncTiming
from tests.support.clock import ManualClock
from tests.support.llm_harness import provider

NOW = 1_800_000_000.0
BOUNDS = InstantBounds()
HOUR_S = 3600.0

instants = st.floats(min_value=NOW - 30 * 24 * HOUR_S, max_value=NOW + 30 * 24 * HOUR_S)


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    """Return a state whose every instant is anything within a month."""

    def span() -> tuple[float, float]:
        first, second = draw(instants), draw(instants)
        return min(first, second), max(first, second)

    return Routing(
        force=Force("a", *span()),
        preference=Preferred("a", *span()),
        cooldowns={
            "a": Cooldown("a", "HTTP 503", *span(), "replica-1"),
            "b": Cooldown("b", SET_BY_ADMIN, *span(), "admin 1"),
        },
        probes={"a": Lease("a", "replica-1", draw(instants))},
        resting={"a/large": RestingModel("a", "large", "HTTP 404", *span(), "replica-1")},
        limits={"a/large": ModelLimits("a", "large", {"tools": draw(instants)}, 4096, 3000, draw(instants))},
    )


@settings(deadline=None)
@given(routings())
def test_clamped_bounds_each_instant(routing: Routing) -> None:
    bounded = clamped(routing, NOW, BOUNDS)
    assert bounded.force is not None
    assert bounded.preference is not None
    limits = [
        (bounded.force.until, BOUNDS.operator_s),
        (bounded.preference.until, BOUNDS.preferred_s),
        (bounded.cooldowns["a"].until, BOUNDS.cooldown_s),
        (bounded.cooldowns["b"].until, BOUNDS.operator_s),
        (bounded.probes["a"].until, BOUNDS.lease_s),
        (bounded.resting["a/large"].until, BOUNDS.cooldown_s),
        (bounded.limits["a/large"].until, BOUNDS.learned_s),
        (bounded.limits["a/large"].refused["tools"], BOUNDS.learned_s),
    ]
    assert all(end <= NOW + longest_s + CLOCK_SKEW_S for end, longest_s in limits)
    spans = (bounded.force, bounded.preference, *bounded.cooldowns.values(), *bounded.resting.values())
    assert all(entry.since <= NOW + CLOCK_SKEW_S for entry in spans)
    assert clamped(bounded, NOW, BOUNDS) is bounded


@settings(deadline=None)
@given(st.floats(min_value=CLOCK_SKEW_S + 1, max_value=30 * 24 * HOUR_S), st.floats(min_value=1.0, max_value=HOUR_S))
def test_clamped_keeps_the_duration_of_a_clock_that_is_ahead(ahead_s: float, duration_s: float) -> None:
    written = Cooldown("a", "HTTP 503", NOW + ahead_s, NOW + ahead_s + duration_s, "replica-1")
    cooldown = clamped(Routing(cooldowns={"a": written}), NOW, BOUNDS).cooldowns["a"]

    assert cooldown.until - NOW == pytest.approx(duration_s, abs=1e-3)


def test_clamped_leaves_right_instants_alone() -> None:
    routing = Routing(
        force=Force("b", NOW - 10, NOW + 590),
        preference=Preferred("a", NOW, NOW + 1800),
        cooldowns={"a": Cooldown("a", "HTTP 429", NOW, NOW + HOUR_S, "replica-1")},
        probes={"a": Lease("a", "replica-1", NOW + 65)},
    )
    assert clamped(routing, NOW, BOUNDS) is routing


async def test_replica_with_a_clock_ahead_leaves_no_hours_of_cooldown(redis: Redis) -> None:
    """The entry ends when it should, however often it is read until then."""
    clock = ManualClock(NOW)
    ahead = Cooldown("a", "HTTP 503", NOW + 5 * HOUR_S, NOW + 5 * HOUR_S + 300, "replica-1")
    fields = encode_routing(Routing(cooldowns={"a": ahead}))
    await redis.hset("test:{llm}:routing", mapping={"life": "1", **fields})
    shared = SharedRouting(redis, "test", clock, SyncTiming(resync_s=0.01))
    await shared.start()
    try:
        assert shared.routing.cooldowns["a"].until == pytest.approx(NOW + 300)
        clock.shift(200)
        await shared.commit(lambda routing: replace(routing, force=Force("b", NOW, NOW + 600)), 5)
        assert shared.routing.cooldowns["a"].until == pytest.approx(NOW + 300)
    finally:
        await shared.close()


async def test_affinity_of_a_clock_ahead_lasts_five_minutes(redis: Redis) -> None:
    ahead, right = ManualClock(NOW + 5 * HOUR_S), ManualClock(NOW)
    writer = ProviderAffinity(redis, "test", ahead)
    writer.begin("telegram:1", "second")
    await writer.close()
    entry = await ProviderAffinity(redis, "test", right)._read("telegram:1", None)

    assert entry == ("second", NOW + AFFINITY_S)


async def test_slot_lease_of_a_clock_ahead_is_shortened() -> None:
    """A replica whose clock was hours ahead died with the only slot."""
    settings = provider("busy", "http://127.0.0.1:1/v1", max_concurrency=1, timeout_s=60.0)
    clock = ManualClock(NOW)
    async with open_redis(None) as redis:
        dead = ConcurrencyLimiter(redis, "test", ManualClock(NOW + 5 * HOUR_S))
        assert await dead.take(settings) is not None
        alive = ConcurrencyLimiter(redis, "test", clock)
        assert await alive.take(settings) is None
        await alive.close()
        clock.shift(60 + LimiterTiming().lease_margin_s + 1)
        assert await alive.take(settings) is not None
        await alive.close()
