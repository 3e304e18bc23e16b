"""The order in which a request asks its candidates, over HTTP with the embedded store."""

import asyncio

import pytest

from core.config.providers import ProviderKind
from core.config.settings import ProviderSettings
from core.errors import AllProvidersFailed, UnknownProvider
from core.redis.client import open_redis
from services.llm.request import ModelChoice
from services.llm.routing.timing import RoutingLimits
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.fallback_harness import FallbackHarness, open_fallback_harness
from tests.support.llm_harness import answered_by, bench, provider

pytestmark = pytest.mark.integration


async def test_priority_follows_the_order_of_the_provider_dict(harness: FallbackHarness) -> None:
    """With each provider's default model."""
    assert await harness.asked() == "first"
    assert harness.first.requests[0].model == "first-model"
    assert harness.counts() == [1, 0, 0]


async def test_forced_provider_comes_first_until_the_force_expires(harness: FallbackHarness) -> None:
    await harness.fallback.force_provider("third", 600)

    assert await harness.asked() == "third"
    harness.replica.clock.shift(599)
    assert await harness.asked() == "third"
    harness.replica.clock.shift(1)
    assert await harness.asked() == "first"


async def test_force_lasts_half_an_hour_by_default(harness: FallbackHarness) -> None:
    await harness.fallback.force_provider("third")

    assert harness.fallback.get_provider_status().providers[2].until == harness.replica.clock.time() + 1800


async def test_forced_provider_comes_first_even_in_cooldown(harness: FallbackHarness) -> None:
    await harness.first_fails()
    await harness.fallback.force_provider("first", 600)

    assert await harness.asked() == "first"


async def test_failed_forced_provider_falls_back_to_the_others(harness: FallbackHarness) -> None:
    """The preferred provider, then by priority; the force remains."""
    await harness.first_fails()
    await harness.fallback.force_provider("third", 600)
    harness.third.default = llm.status(529)

    assert await harness.asked() == "second"
    assert await harness.asked() == "second"
    assert harness.counts() == [1, 3, 2]


async def test_answer_of_a_forced_provider_sets_no_preference(harness: FallbackHarness) -> None:
    """After the force the priority order applies."""
    await harness.fallback.force_provider("third", 600)
    await harness.asked()

    assert harness.replica.preferred is None
    await harness.fallback.clear_cache()
    assert await harness.asked() == "first"


async def test_user_choice_precedes_the_preferred_provider(harness: FallbackHarness) -> None:
    """With the chosen model or the provider's default; the others use their own default."""
    await harness.first_fails()
    assert harness.replica.preferred == "second"

    assert await harness.asked(choice=ModelChoice("third", "third-large")) == "third"
    assert await harness.asked(choice="third") == "third"
    assert [request.model for request in harness.third.requests] == ["third-large", "third-model"]
    assert harness.replica.preferred == "second"


async def test_force_precedes_the_user_choice(harness: FallbackHarness) -> None:
    await harness.fallback.force_provider("second", 600)

    assert await harness.asked(choice=ModelChoice("third", "third-large")) == "second"
    assert harness.second.requests[0].model == "second-model"


async def test_failed_user_choice_falls_back_to_the_others(harness: FallbackHarness) -> None:
    """A chosen provider is asked even in cooldown."""
    harness.third.default = llm.status(529)

    assert await harness.asked(choice="third") == "first"
    assert await harness.asked(choice="third") == "first"
    assert harness.counts() == [2, 0, 2]


async def test_unknown_provider_cannot_be_forced_or_chosen(harness: FallbackHarness) -> None:
    with pytest.raises(UnknownProvider):
        await harness.fallback.force_provider("fourth")
    with pytest.raises(UnknownProvider):
        harness.replica.factory.create_llm_model_with_fallback("test", force_provider="fourth")


@pytest.mark.parametrize(("hops", "asked"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (9, [1, 1, 1])])
async def test_max_hops_limits_the_candidates(hops: int, asked: list[int]) -> None:
    async with open_fallback_harness(RoutingLimits(max_hops=hops)) as harness:
        for server in harness.servers:
            server.default = llm.status(529)

        with pytest.raises(AllProvidersFailed) as failure:
            await harness.asked()

        assert harness.counts() == asked
        assert len(failure.value.attempts) == sum(asked)


@pytest.mark.parametrize("hops", [1, 2])
async def test_failed_probe_counts_as_a_hop(hops: int) -> None:
    """Except for a probe with a limit of one, which gets a second candidate."""
    async with open_fallback_harness(RoutingLimits(max_hops=hops)) as harness:
        await harness.fallback.report_provider_failure("first", TimeoutError("silent"), "test")
        harness.replica.clock.shift(300)
        for server in harness.servers:
            server.default = llm.status(529)

        with pytest.raises(AllProvidersFailed) as failure:
            await harness.asked()

        assert [attempt.provider for attempt in failure.value.attempts] == ["first", "second"]


async def test_demo_provider_counts_as_no_hop() -> None:
    """With many failing providers the demo's explanation still appears."""
    async with LLMServer() as down, open_redis(None) as redis:
        down.default = llm.status(529)
        demo = ProviderSettings(id="demo", kind=ProviderKind.DEMO, models=("demo",), remote=False)
        providers = [*(provider(name, down.url) for name in ("a", "b", "c", "d")), demo]
        async with bench(redis, providers, rules=RoutingLimits(max_hops=2)) as replica:
            response = await replica.ask(streamed=False)

            assert answered_by(response) == "demo"
            assert len(down.requests) == 2


async def test_all_in_cooldown_asks_the_one_that_recovers_first(harness: FallbackHarness) -> None:
    """No request is refused while a provider is configured."""
    for server, seconds in zip(harness.servers, (300, 100, 200), strict=True):
        server.script(llm.status(429, headers={"retry-after": str(seconds)}))
    with pytest.raises(AllProvidersFailed):
        await harness.asked()

    assert await harness.asked() == "second"


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_single_provider_cools_down_too(harness: FallbackHarness, *, streamed: bool) -> None:
    """It is asked because there is no other, and leads again after its answer."""
    async with bench(open_redis(None), harness.fallback.providers[:1]) as replica:
        harness.first.script(llm.status(529))
        with pytest.raises(AllProvidersFailed):
            await replica.ask(streamed=streamed)
        assert replica.cooling() == {"first": 300}

        assert answered_by(await replica.ask(streamed=streamed)) == "first"
        assert replica.cooling() == {}
        assert replica.preferred == "first"


async def test_single_provider_is_retried_after_a_transient_error(harness: FallbackHarness) -> None:
    """Although another request has just retried it without success: there is no other candidate."""
    async with bench(open_redis(None), harness.fallback.providers[:1]) as replica:
        held = asyncio.Event()
        harness.first.script(llm.gate(held, then=llm.status(500)), llm.status(500), llm.status(500))
        stuck = asyncio.create_task(replica.ask(streamed=True))
        await harness.first.arrival(1)
        with pytest.raises(AllProvidersFailed):
            await replica.ask(streamed=True)
        held.set()

        assert answered_by(await stuck) == "first"


async def test_provider_that_began_a_cooldown_meanwhile_is_moved_behind_healthy_ones(harness: FallbackHarness) -> None:
    """The order is evaluated when a candidate is asked, not when the request begins."""
    held = asyncio.Event()
    harness.first.script(llm.gate(held, then=llm.status(529)))
    stuck = asyncio.create_task(harness.asked())
    await harness.first.arrival(1)
    harness.second.script(llm.status(529))
    assert await harness.asked(choice="second") == "first"

    held.set()

    assert await stuck == "third"
    assert harness.counts()[1] == 1


async def test_provider_that_has_not_recovered_yet_is_moved_behind_healthy_ones(harness: FallbackHarness) -> None:
    """Its cooldown has ended by then, but only the request with the lease probes it."""
    held = asyncio.Event()
    harness.first.script(llm.gate(held, then=llm.status(529)))
    stuck = asyncio.create_task(harness.asked())
    await harness.first.arrival(1)
    harness.second.script(llm.status(429, headers={"retry-after": "1"}))
    assert await harness.asked(choice="second") == "first"
    harness.replica.clock.shift(2)

    held.set()

    assert await stuck == "third"


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_provider_that_began_a_cooldown_meanwhile_is_not_retried(
    harness: FallbackHarness, *, streamed: bool
) -> None:
    """Another request has already retried it without success."""
    held = asyncio.Event()
    harness.first.script(llm.gate(held, then=llm.status(500)), llm.status(500), llm.status(500))
    stuck = asyncio.create_task(harness.asked(streamed=streamed))
    await harness.first.arrival(1)
    assert await harness.asked(streamed=streamed) == "second"

    held.set()

    assert await stuck == "second"
    assert harness.counts() == [3, 2, 0]


async def test_chosen_provider_in_cooldown_is_retried_after_a_transient_error(harness: FallbackHarness) -> None:
    """Its cooldown was known when it was asked."""
    await harness.first_fails()
    harness.first.script(llm.status(500))

    assert await harness.asked(choice="first") == "first"
