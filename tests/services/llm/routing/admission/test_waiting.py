"""Waits of requests: the gate of a silent provider, and the second look at a candidate after a wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from pydantic_ai.exceptions import ModelRequestTimeout

from core.redis.client import open_redis
from services.llm.request import ModelChoice, RequestSpec
from services.llm.routing.events import AttemptResult
from services.llm.routing.timing import RoutingTiming
from services.llm.usage import NOTHING
from tests.support.clock import settle, until
from tests.support.crowd import run_crowd
from tests.support.llm_harness import LLMHarness, RealSleeps, bench, provider

DEADLINE_S = 2.0
"""First-output deadline of the silent provider."""


@dataclass(slots=True)
class Crowd:
    """Requests through the fallback service to providers that answer at once or never, without a network."""

    replica: LLMHarness
    silent: set[str] = field(default_factory=lambda: {"silent"})
    deadline: asyncio.Event = field(default_factory=asyncio.Event)
    """The test sets it: the silent provider's deadline has passed for all that asked it."""
    asked: list[str] = field(default_factory=list[str])
    """The providers that were asked, in order."""

    async def ask(self, user: str, choice: str | None = None) -> str:
        """Return the provider that answered."""
        spec = RequestSpec("test", user=user, choice=ModelChoice(choice) if choice else None)
        attempts = await self.replica.fallback.begin(spec)
        try:
            async for attempt in attempts:
                name = attempt.candidate.provider.id
                self.asked.append(name)
                if name in self.silent:
                    await self.deadline.wait()
                    await attempt.failed(ModelRequestTimeout(attempt.candidate.model, DEADLINE_S))
                    continue
                await asyncio.sleep(0)
                attempt.opened()
                attempt.succeeded(0.01, NOTHING)
                return name
            raise attempts.exhausted()
        finally:
            attempts.close()


@asynccontextmanager
async def open_crowd(timing: RoutingTiming | None = None, **options: object) -> AsyncIterator[Crowd]:
    providers = [provider(name, "http://127.0.0.1:1/v1", **options) for name in ("silent", "healthy")]
    async with open_redis(None) as redis, bench(redis, providers, RealSleeps(), timing=timing) as replica:
        yield Crowd(replica)


@pytest.mark.parametrize("is_left", [True, False], ids=["queue is left", "queue is waited in"])
async def test_crowd_on_a_silent_provider_is_answered_within_one_deadline(*, is_left: bool) -> None:
    """Of 450 people those with a place ask it; after it failed no one does, and the idle one answers at once."""
    timing = RoutingTiming(opening_patience_s=0.05 if is_left else 60.0)
    async with open_crowd(timing) as crowd:
        asking = [asyncio.create_task(crowd.ask(f"telegram:{number}")) for number in range(450)]
        await until(lambda: crowd.asked.count("silent") == timing.max_opening)
        assert await crowd.ask("telegram:idle", choice="healthy") == "healthy"
        if is_left:
            await until(lambda: sum(each.done() for each in asking) == 450 - timing.max_opening)
        else:
            assert not any(each.done() for each in asking)
        crowd.deadline.set()
        answers = await asyncio.gather(*asking)

    assert set(answers) == {"healthy"}
    assert crowd.asked.count("silent") == timing.max_opening


@pytest.mark.integration
async def test_crowd_over_http_asks_a_silent_provider_once_a_place() -> None:
    """Of 90 people 40 have a place; the rest wait in the queue, and none of them asks it after it has failed."""
    report = await run_crowd(90, 3.0, RoutingTiming(max_opening=40, opening_patience_s=60.0))

    assert report.answered == {"healthy": 90}
    assert report.asked == {"silent": 40, "healthy": 91}
    assert report.ends.count(("silent", AttemptResult.FAILED)) == 40
    # Only the one that chose the healthy provider is answered before the silent one has failed.
    first_failure = report.ends.index(("silent", AttemptResult.FAILED))
    assert report.ends[:first_failure] in ([], [("healthy", AttemptResult.ANSWERED)])


async def test_one_person_leaves_room_at_a_silent_provider() -> None:
    """A person with 400 requests holds half of the places; another one is asked for at once."""
    async with open_crowd(RoutingTiming(max_opening=8, opening_patience_s=60.0)) as crowd:
        busy = [asyncio.create_task(crowd.ask("telegram:1")) for _ in range(40)]
        await settle()
        assert crowd.asked == ["silent"] * 4
        other = asyncio.create_task(crowd.ask("telegram:2"))
        await settle()
        assert crowd.asked == ["silent"] * 5
        crowd.deadline.set()
        await asyncio.gather(other, *busy)

    assert crowd.asked.count("silent") == 5


async def test_provider_that_failed_during_the_wait_is_not_asked() -> None:
    """Not even by a request that chose it: the next candidate answers."""
    async with open_crowd(RoutingTiming(max_opening=1, opening_patience_s=60.0)) as crowd:
        first = asyncio.create_task(crowd.ask("telegram:1"))
        await settle()
        waiting = [
            asyncio.create_task(crowd.ask("telegram:2")),
            asyncio.create_task(crowd.ask("telegram:3", choice="silent")),
        ]
        await settle()
        crowd.deadline.set()
        assert set(await asyncio.gather(first, *waiting)) == {"healthy"}

    assert crowd.asked.count("silent") == 1


async def test_request_that_waited_for_a_slot_does_not_ask_a_failed_provider() -> None:
    """Both providers are busy; the first fails while the request waits, so the second's slot is waited for."""
    async with open_crowd(max_concurrency=1) as crowd:
        first = asyncio.create_task(crowd.ask("telegram:1"))
        await until(lambda: crowd.asked)
        holding = await crowd.replica.fallback.begin(RequestSpec("test", choice=ModelChoice("healthy")))
        assert (await anext(holding)).candidate.provider.id == "healthy"
        waiting = asyncio.create_task(crowd.ask("telegram:2"))
        await settle()
        crowd.deadline.set()
        await until(lambda: "silent" in crowd.replica.cooling())
        await settle()
        holding.close()
        assert await first == "healthy"
        assert await waiting == "healthy"

    assert crowd.asked.count("silent") == 1


async def test_probe_that_waited_is_told_when_it_is_asked() -> None:
    """The lease is taken at the end of the wait, and an unasked probe holds none."""
    async with open_crowd(RoutingTiming(max_opening=1)) as crowd:
        await crowd.replica.fallback.control.cool_down("silent", 10, "an admin")
        crowd.replica.clock.shift(20)
        crowd.silent.clear()
        attempts = await crowd.replica.fallback.begin(RequestSpec("test"))
        assert not crowd.replica.shared.routing.probes
        assert (await anext(attempts)).candidate.provider.id == "silent"
        assert "silent" in crowd.replica.shared.routing.probes
        attempts.close()
        assert not crowd.replica.shared.routing.probes


async def test_probe_has_succeeded_at_its_first_output() -> None:
    """Other requests ask the provider again while the probe's answer is still being streamed."""
    async with open_crowd() as crowd:
        await crowd.replica.fallback.control.cool_down("silent", 10, "an admin")
        crowd.replica.clock.shift(20)
        crowd.silent.clear()
        attempts = await crowd.replica.fallback.begin(RequestSpec("test"))
        attempt = await anext(attempts)
        attempt.opened()

        assert not crowd.replica.shared.routing.cooldowns
        assert await crowd.ask("telegram:1") == "silent"
        attempts.close()
