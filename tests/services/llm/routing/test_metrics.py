"""Provider metrics: every result of an attempt, over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from core.errors import AllProvidersFailed, AnswerInterrupted, ContentRefused, RequestRejected
from core.observability.metrics import Metrics
from core.redis.client import open_redis
from services.llm.routing.metrics import ProviderMetrics
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import LLMHarness, RealSleeps, bench, eventually, provider
from tests.support.processes.redis_server import RedisServer
from tests.support.web_client import Page

FIRST = "model=first-model,provider=first"
SECOND = "model=second-model,provider=second"


@dataclass
class Counted:
    """Two providers whose requests are counted."""

    first: LLMServer
    second: LLMServer
    replica: LLMHarness
    metrics: Metrics

    def shown(self, name: str) -> float:
        text = self.metrics.exposition()[0].decode()
        return Page(200, {}, text).samples.get(f"understudy_{name}", 0)

    def results(self, of: str) -> dict[str, float]:
        """Outcomes of attempts, each with its count."""
        text = self.metrics.exposition()[0].decode()
        begins = f"understudy_provider_requests_total{{{of},result="
        figures = Page(200, {}, text).samples
        return {name[len(begins) : -1]: value for name, value in figures.items() if name.startswith(begins) and value}


@pytest.fixture(params=[None, 1], ids=["no limit", "one at a time"])
async def counted(request: pytest.FixtureRequest) -> AsyncIterator[Counted]:
    async with LLMServer() as first, LLMServer() as second, open_redis(None) as redis:
        providers = [
            provider("first", first.url, max_concurrency=request.param, retries=1),
            provider("second", second.url),
        ]
        async with bench(redis, providers) as replica:
            metrics = Metrics((each.id, model) for each in providers for model in each.models)
            ProviderMetrics(metrics, replica.fallback, replica.shared)
            yield Counted(first, second, replica, metrics)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_answer_is_counted_with_its_times(counted: Counted, *, streamed: bool) -> None:
    await counted.replica.ask(streamed=streamed)
    assert counted.results(FIRST) == {"answered": 1}
    assert counted.shown(f"first_output_seconds_count{{{FIRST}}}") == 1
    first_output = counted.shown(f"first_output_seconds_sum{{{FIRST}}}")
    assert 0 < first_output <= counted.shown(f"answer_seconds_sum{{{FIRST}}}") < 5
    assert counted.results(SECOND) == {}


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_hiccup_failure_and_answer_are_counted(counted: Counted, *, streamed: bool) -> None:
    counted.first.default = llm.status(500)
    await counted.replica.ask(streamed=streamed)
    assert counted.results(FIRST) == {"retried": 1, "failed": 1}
    assert counted.results(SECOND) == {"answered": 1}
    assert counted.shown("provider_failures_total{outcome=hiccup,provider=first}") == 2
    assert counted.shown("provider_switches_total{cause=failure,provider=second}") == 1
    assert counted.shown("provider_cooling{provider=first}") == 1
    assert counted.shown("provider_serving{provider=first}") == 0
    assert counted.shown("provider_serving{provider=second}") == 1


async def test_probe_and_recovery_are_counted(counted: Counted) -> None:
    counted.first.script(llm.status(529))
    await counted.replica.ask(streamed=True)
    assert counted.shown("provider_probes_total{provider=first}") == 0
    counted.replica.clock.shift(301)
    await counted.replica.ask(streamed=True)
    assert counted.shown("provider_probes_total{provider=first}") == 1
    assert counted.shown("provider_switches_total{cause=recovery,provider=first}") == 1
    assert counted.shown("provider_serving{provider=first}") == 1


async def test_rejected_key_is_counted(counted: Counted) -> None:
    """Once as misconfigured, and each time as a failure."""
    counted.first.default = llm.status(401)
    for _ in range(2):
        await counted.replica.ask(streamed=False, choice="first")
    assert counted.shown("provider_misconfigured_total{provider=first}") == 1
    assert counted.shown("provider_failures_total{outcome=misconfigured,provider=first}") >= 1


async def test_interrupted_answer_is_counted(counted: Counted) -> None:
    counted.first.script(llm.cut(after_pieces=2))
    with pytest.raises(AnswerInterrupted):
        await counted.replica.ask(streamed=True)
    assert counted.results(FIRST) == {"interrupted": 1}
    assert counted.shown(f"answer_seconds_count{{{FIRST}}}") == 0


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_refusal_and_rejected_request_are_surfaced(counted: Counted, *, streamed: bool) -> None:
    """A refusal is asked of one provider, an unclear one of two."""
    counted.first.script(llm.content_filter(), llm.status(422))
    counted.second.script(llm.status(422))
    with pytest.raises(ContentRefused):
        await counted.replica.ask(streamed=streamed)
    with pytest.raises(RequestRejected):
        await counted.replica.ask(streamed=streamed)
    assert counted.results(FIRST) == {"surfaced": 1, "failed": 1}
    assert counted.shown("provider_failures_total{outcome=refused,provider=first}") == 1
    assert counted.shown("provider_failures_total{outcome=unclear,provider=first}") == 1
    assert counted.results(SECOND) == {"failed": 1}


@pytest.mark.parametrize("behaviour", [llm.hang(), llm.stall(after_pieces=2)], ids=["before", "in the middle"])
async def test_cancel_is_no_failure(counted: Counted, behaviour: llm.Behaviour) -> None:
    counted.first.default = behaviour
    asking = asyncio.create_task(counted.replica.ask(streamed=True))
    await counted.first.arrival(1)
    await asyncio.sleep(0.05)
    assert counted.shown("provider_in_flight{provider=first}") == 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert counted.results(FIRST) == {"cancelled": 1}
    assert counted.shown("provider_in_flight{provider=first}") == 0
    text = counted.metrics.exposition()[0].decode()
    assert "understudy_provider_failures_total{" not in text


async def test_shedding_is_counted(counted: Counted) -> None:
    """Only where there is a limit."""
    more = asyncio.Event()
    counted.first.default = llm.gate(more, then=llm.answer("first"))
    asking = asyncio.create_task(counted.replica.ask(streamed=True))
    await counted.first.arrival(1)
    limited = counted.replica.fallback.providers[0].max_concurrency is not None
    second = asyncio.create_task(counted.replica.ask(streamed=True))
    await (counted.second if limited else counted.first).arrival(1 if limited else 2)
    more.set()
    await asyncio.gather(asking, second)
    assert counted.shown("provider_shed_total{provider=first}") == (1 if limited else 0)
    assert counted.results(SECOND) == ({"answered": 1} if limited else {})


async def test_gauges_show_pending_changes_and_the_connection(redis_server: RedisServer) -> None:
    async with LLMServer() as server, open_redis(redis_server.url) as redis:
        server.default = llm.status(529)
        async with bench(redis, [provider("first", server.url)], RealSleeps()) as replica:
            metrics = Metrics()
            ProviderMetrics(metrics, replica.fallback, replica.shared)
            counted = Counted(server, server, replica, metrics)
            assert counted.shown("routing_shared") == 1
            await redis_server.stop()
            with pytest.raises(AllProvidersFailed):
                await replica.ask(streamed=True)
            await eventually(lambda: counted.shown("routing_shared") == 0)
            assert counted.shown("routing_changes_waiting") == 1
            await redis_server.start()
            await eventually(lambda: counted.shown("routing_shared") == 1)
            await eventually(lambda: counted.shown("routing_changes_waiting") == 0)
