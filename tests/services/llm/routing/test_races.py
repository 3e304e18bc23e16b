"""Races of requests, replicas and operators, with a slow Redis and with clocks that differ."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from core.errors import AnswerInterrupted
from core.redis.client import open_redis
from services.admin.notices import AdminNotices
from services.llm.routing.timing import RoutingTiming
from tests.support.clock import ManualClock
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import (
    LLMHarness,
    RealPauses,
    RealSleeps,
    answered_by,
    bench,
    eventually,
    provider,
    subscribed,
)
from tests.support.processes.redis_server import RedisServer
from tests.support.processes.tcp_proxy import TCPProxy

pytestmark = pytest.mark.integration

CROWD = 64
CROWD_S = 30.0
"""Time limit of that many requests on a busy machine."""
PATIENT = RoutingTiming(lease_wait_s=5.0)
"""That many simultaneous requests keep a slow machine busy for longer than the ordinary wait for a lease."""
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


@dataclass(slots=True)
class ReplicaPair:
    """Two replicas on one real Redis, each with its own clock and connection, and two providers."""

    first: LLMServer
    second: LLMServer
    lines: list[TCPProxy]
    replicas: list[LLMHarness]
    told: list[str] = field(default_factory=list[str])

    @property
    def counts(self) -> tuple[int, int]:
        return len(self.first.requests), len(self.second.requests)

    def shift(self, seconds: float) -> None:
        for replica in self.replicas:
            replica.clock.shift(seconds)

    def agree(self) -> bool:
        """Return whether both are connected and hold the same state."""
        one, two = (replica.shared for replica in self.replicas)
        return one.connected and two.connected and one.routing == two.routing

    async def first_fails(self) -> None:
        """Put the first provider in cooldown for 300 s at both replicas."""
        self.first.script(llm.status(529))
        assert answered_by(await self.replicas[0].ask(streamed=True)) == "second"
        await eventually(lambda: self.agree() and "first" in self.replicas[1].cooling())

    def crowd(self, *, streamed: bool = True) -> list[asyncio.Task[str]]:
        """Start many requests at once, half of them at each replica."""

        async def asked(replica: LLMHarness) -> str:
            return answered_by(await replica.ask(streamed=streamed))

        return [asyncio.create_task(asked(self.replicas[number % 2])) for number in range(CROWD)]


@asynccontextmanager
async def paired(
    server: RedisServer,
    clock: Callable[[], ManualClock] = RealPauses,
    timing: RoutingTiming = PATIENT,
    **changes: object,
) -> AsyncIterator[ReplicaPair]:
    """Open a pair whose providers have the settings `changes`."""
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(LLMServer()) for _ in range(2)]
        patient = {"timeout_s": CROWD_S, "first_token_timeout_s": CROWD_S, "stall_timeout_s": CROWD_S}
        providers = [
            provider("first", first.url, **(patient | changes)),
            provider("second", second.url, **patient),
        ]
        lines = [await stack.enter_async_context(TCPProxy(server.port)) for _ in range(2)]
        clients = [await stack.enter_async_context(open_redis(line.url)) for line in lines]
        replicas = [
            await stack.enter_async_context(bench(redis, providers, clock(), timing=timing)) for redis in clients
        ]
        await subscribed(clients[0], 2)
        pair = ReplicaPair(first, second, lines, replicas)
        for redis, replica in zip(clients, replicas, strict=True):

            async def send(text: str) -> None:
                pair.told.append(text)

            notices = AdminNotices(redis, "test", replica.clock, send)
            replica.fallback.recorder.listen(notices.put)
            stack.callback(asyncio.create_task(notices.run()).cancel)
        yield pair


@pytest.fixture
async def pair(redis_server: RedisServer) -> AsyncIterator[ReplicaPair]:
    async with paired(redis_server) as pair:
        yield pair


# The moment at which a cooldown ends


@STREAMED
async def test_failing_probe_is_the_only_one(pair: ReplicaPair, *, streamed: bool) -> None:
    """The second provider answers all others, and the first cools down again at both replicas."""
    await pair.first_fails()
    pair.shift(300)
    held = asyncio.Event()
    pair.first.default = llm.gate(held, then=llm.status(529))

    requests = pair.crowd(streamed=streamed)
    await eventually(lambda: sum(request.done() for request in requests) == CROWD - 1, CROWD_S)
    held.set()

    assert await asyncio.gather(*requests) == ["second"] * CROWD
    assert pair.counts == (2, 1 + CROWD)
    await eventually(lambda: pair.agree() and pair.replicas[1].cooling() == {"first": 300})
    assert pair.replicas[0].cooling() == {"first": 300}


async def test_hanging_probe_delays_no_other_request(redis_server: RedisServer) -> None:
    """It fails at its own deadline."""
    async with paired(redis_server, first_token_timeout_s=1.5) as pair:
        await pair.first_fails()
        pair.shift(300)
        pair.first.default = llm.hang()

        requests = pair.crowd()
        await eventually(lambda: sum(request.done() for request in requests) == CROWD - 1, CROWD_S)
        [prober] = [request for request in requests if not request.done()]

        assert await prober == "second"
        assert pair.counts == (2, 1 + CROWD)
        await eventually(lambda: all(replica.cooling() == {"first": 300} for replica in pair.replicas))


async def test_cancelled_probe_is_followed_by_one_other(pair: ReplicaPair) -> None:
    """No failure is recorded; of the next crowd again exactly one request probes."""
    await pair.first_fails()
    pair.shift(300)
    pair.first.script(llm.hang())
    requests = pair.crowd()
    await eventually(lambda: sum(request.done() for request in requests) == CROWD - 1, CROWD_S)
    [prober] = [request for request in requests if not request.done()]
    prober.cancel()
    await asyncio.gather(prober, return_exceptions=True)
    await eventually(lambda: pair.agree() and not pair.replicas[0].shared.routing.probes)
    assert [replica.cooling() for replica in pair.replicas] == [{}, {}]

    held = asyncio.Event()
    pair.first.default = llm.gate(held)
    requests = pair.crowd()
    await eventually(lambda: sum(request.done() for request in requests) == CROWD - 1, CROWD_S)
    held.set()

    assert sorted(await asyncio.gather(*requests)) == ["first"] + ["second"] * (CROWD - 1)
    assert len(pair.first.requests) == 3


@pytest.mark.parametrize("ahead_s", [3.0, -3.0], ids=["3 s ahead", "3 s behind"])
async def test_clock_skew_allows_one_probe(pair: ReplicaPair, ahead_s: float) -> None:
    """The cooldown ends by the clock that is ahead; one request of both replicas probes, and its outcome counts."""
    early, late = (1, 0) if ahead_s > 0 else (0, 1)
    pair.replicas[1].clock.shift(ahead_s)
    await pair.first_fails()
    until = pair.replicas[0].shared.routing.cooldowns["first"].until
    pair.shift(until - pair.replicas[early].clock.time())
    assert pair.replicas[late].cooling() == {"first": pytest.approx(3)}
    pair.first.script(llm.status(529))

    assert set(await asyncio.gather(*pair.crowd())) == {"second"}
    assert len(pair.first.requests) == 2
    again = pair.replicas[early].clock.time() + 300
    await eventually(lambda: pair.agree() and pair.replicas[late].shared.routing.cooldowns["first"].until == again)

    pair.shift(300)
    await asyncio.gather(*pair.crowd())
    assert len(pair.first.requests) >= 3
    await eventually(lambda: all(replica.preferred == "first" for replica in pair.replicas))


@pytest.mark.parametrize("ahead_s", [3.0, -3.0], ids=["3 s ahead", "3 s behind"])
async def test_operator_act_wins_despite_clock_skew(pair: ReplicaPair, ahead_s: float) -> None:
    """The last act counts, although it may seem older by its own clock than the state that it changes."""
    pair.replicas[1].clock.shift(ahead_s)
    one, two = (replica.fallback for replica in pair.replicas)
    for earlier, later in ((one, two), (two, one)):
        await earlier.force_provider("first", 600)
        await eventually(pair.agree)
        await later.force_provider("second", 600)
        await eventually(lambda: pair.agree() and one.get_provider_status().forced == "second")
        assert [answered_by(await replica.ask(streamed=True)) for replica in pair.replicas] == ["second"] * 2
        await earlier.clear_cache()
        await eventually(lambda: pair.agree() and one.get_provider_status().forced is None)


# Both replicas at once


async def test_simultaneous_failover_sets_one_cooldown(pair: ReplicaPair) -> None:
    """Before either replica sees the other's: the later end is kept, and the admins are notified once."""
    held = asyncio.Event()
    shorter, longer = llm.status(529), llm.status(429, headers={"retry-after": "900"})
    pair.first.script(llm.gate(held, then=shorter), llm.gate(held, then=longer))
    requests = [asyncio.create_task(replica.ask(streamed=True)) for replica in pair.replicas]
    await pair.first.arrival(2)
    held.set()

    assert [answered_by(response) for response in await asyncio.gather(*requests)] == ["second"] * 2
    await eventually(lambda: pair.agree() and bool(pair.told))
    assert [replica.cooling() for replica in pair.replicas] == [{"first": 900}] * 2
    assert [replica.preferred for replica in pair.replicas] == ["second"] * 2
    await asyncio.sleep(0.1)
    assert len(pair.told) == 1


async def test_force_does_not_affect_requests_in_flight(pair: ReplicaPair) -> None:
    """It applies to the next request at either replica, and so does a clear."""
    one, two = pair.replicas
    held = asyncio.Event()
    pair.first.script(llm.gate(held, after_pieces=2, then=llm.answer("one two three")))
    in_flight = asyncio.create_task(one.ask(streamed=True))
    await pair.first.arrival(1)

    await two.fallback.force_provider("second", 600)
    await eventually(lambda: one.fallback.get_provider_status().forced == "second")
    assert answered_by(await one.ask(streamed=True)) == "second"
    held.set()
    assert answered_by(await in_flight) == "first"
    assert one.fallback.get_provider_status().forced == "second"

    held.clear()
    pair.second.script(llm.gate(held))
    in_flight = asyncio.create_task(two.ask(streamed=True))
    await pair.second.arrival(2)
    await one.fallback.clear_cache()
    await eventually(lambda: two.fallback.get_provider_status().forced is None)
    held.set()
    assert answered_by(await in_flight) == "second"
    assert answered_by(await two.ask(streamed=True)) == "first"
    assert two.preferred == "first"


async def test_forced_provider_that_breaks_off_stays_forced(pair: ReplicaPair) -> None:
    """The force outlasts the cooldown of a failure in mid-stream; the text so far is kept."""
    one, two = pair.replicas
    await one.fallback.force_provider("first", 600)
    await eventually(pair.agree)
    pair.first.script(llm.cut(after_pieces=2))
    with pytest.raises(AnswerInterrupted):
        await two.ask(streamed=True)

    assert len(pair.second.requests) == 0
    await eventually(lambda: one.cooling() == {"first": 300})
    assert [answered_by(await replica.ask(streamed=True)) for replica in pair.replicas] == ["first"] * 2


# A Redis that is slow


async def test_slow_redis_delays_no_request(redis_server: RedisServer) -> None:
    """200 ms each way: neither an answer nor a failover waits for it, and both replicas agree soon after."""
    async with paired(redis_server, RealSleeps) as pair:
        one, two = pair.replicas
        await one.ask(streamed=True)
        for line in pair.lines:
            line.delay_s = ROUND_TRIP_S / 2

        assert min([(await _took(one.ask(streamed=True)))[1] for _ in range(3)]) < ROUND_TRIP_S
        pair.first.script(llm.status(529))
        assert (await _took(one.ask(streamed=True)))[1] < WRITE_S

        await eventually(lambda: pair.agree() and set(two.cooling()) == {"first"}, 20)
        assert answered_by(await two.ask(streamed=True)) == "second"
        assert all(replica.shared.connected for replica in pair.replicas)


async def test_probe_waits_for_the_lease_no_longer_than_its_timeout(redis_server: RedisServer) -> None:
    """Another replica may be probing: the request takes the ordinary order, and none probes."""
    timing = RoutingTiming()
    async with paired(redis_server, RealSleeps, timing) as pair:
        await pair.first_fails()
        pair.shift(300)
        for line in pair.lines:
            line.flows.clear()
        one, two = pair.replicas

        took = await asyncio.gather(*(_took(replica.ask(streamed=True)) for replica in pair.replicas))
        for took_s, in_time_s in took:
            assert took_s >= timing.lease_wait_s
            assert in_time_s < timing.lease_wait_s + SLACK_S
        assert pair.counts == (1, 3)
        _, in_time_s = await _took(two.fallback.force_provider("second", 60))
        assert in_time_s < timing.acknowledge_s + SLACK_S

        for line in pair.lines:
            line.flows.set()
        await eventually(lambda: pair.agree() and one.fallback.get_provider_status().forced == "second")
        assert not one.shared.routing.probes


ROUND_TRIP_S = 0.4
"""The least that a request would take if it waited for that Redis."""
WRITE_S = 3 * ROUND_TRIP_S
"""The least that a write takes there."""
SLACK_S = 0.5
"""Allowance for a busy machine."""
TICK_S = 0.01


async def _took(act: Awaitable[object]) -> tuple[float, float]:
    """Return the seconds that it took, and the same without those by which a busy machine delayed the event loop."""
    loop, late_s = asyncio.get_running_loop(), 0.0

    async def measure_lateness() -> None:
        nonlocal late_s
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            late_s += loop.time() - due

    began, measuring = loop.time(), asyncio.create_task(measure_lateness())
    try:
        await act
        took_s = loop.time() - began
        return took_s, took_s - late_s
    finally:
        measuring.cancel()


@STREAMED
async def test_requests_beyond_max_opening_wait_before_their_deadline_starts(*, streamed: bool) -> None:
    """The last ones start later than the deadline's length, and none fails."""
    async with LLMServer() as server:
        only = provider("only", server.url, first_token_timeout_s=1.2, timeout_s=1.2)
        redis = open_redis(None)
        async with bench(redis, [only], timing=RoutingTiming(max_opening=8)) as here:
            server.default = llm.answer("Heard.", delay_s=0.4)
            crowd = [asyncio.create_task(here.ask(streamed=streamed)) for _ in range(40)]
            await server.arrival(8)
            assert len(server.requests) == 8
            assert {answered_by(response) for response in await asyncio.gather(*crowd)} == {"only"}
            assert not here.cooling()
        await redis.aclose()
