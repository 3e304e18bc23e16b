"""Concurrent requests at two replicas while the providers fail and recover at random."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from pydantic_ai.direct import model_request, model_request_stream
from redis.asyncio import Redis

from core.errors import AnswerInterrupted
from core.redis.client import open_redis
from services.llm.request import RequestSpec
from services.llm.routing.timing import RoutingLimits
from tests.support.clock import ManualClock
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import HELLO, LLMHarness, bench, provider, said
from tests.support.routed_requests import piece_of

NAMES = ("first", "second", "third")
PIECES = 4
QUICK_FAILURES = ("cut", "closed", "empty", "rate limit", "overload", "reset", "server error")


class SystemTime(ManualClock):
    """The system's time, for replicas whose cooldowns end while requests run."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class FlappingPlan:
    """The load and the failures.

    Args:
        seconds: duration of the run.
        requests: in flight at any time, half of them at each replica.
        change_s: shortest and longest time between two changes of a provider's health.
        cooldown_s: of a provider that failed.
        deadline_s: to the first output.
        concurrency: `<ID>_MAX_CONCURRENCY` of each provider.
        failures: kinds of failure, of which each request to an unhealthy provider gets one.
        seed: of the random choices.
    """

    seconds: float
    requests: int = 200
    change_s: tuple[float, float] = (0.05, 0.4)
    cooldown_s: float = 0.5
    deadline_s: float = 10.0
    concurrency: int = 100
    failures: tuple[str, ...] = QUICK_FAILURES
    seed: int = 1


@dataclass(slots=True)
class FlappingReport:
    """The outcomes of a run.

    Args:
        answered: by provider.
        interrupted: answers that broke off after their first text.
        unanswered: errors of requests although one provider was healthy from their start to their end.
        excused: errors of requests during which each provider was unhealthy for a time.
        glued: texts with pieces of more than one answer.
        leases: names of the leases that Redis holds at the end.
        most_leases: the largest number of concurrency leases that Redis held.
        failures: answers of unhealthy providers, by kind.
        waits_s: durations of the answered requests.
    """

    answered: Counter[str] = field(default_factory=Counter[str])
    interrupted: int = 0
    unanswered: list[str] = field(default_factory=list[str])
    excused: int = 0
    glued: list[str] = field(default_factory=list[str])
    leases: list[str] = field(default_factory=list[str])
    most_leases: int = 0
    failures: Counter[str] = field(default_factory=Counter[str])
    waits_s: list[float] = field(default_factory=list[float])

    @property
    def ended(self) -> int:
        """The number of requests that ended, with any outcome."""
        return self.answered.total() + self.interrupted + len(self.unanswered) + self.excused


class FlappingProvider:
    """A server whose answers name it and the request, or fail while it is unhealthy."""

    def __init__(self, name: str, server: LLMServer, plan: FlappingPlan, report: FlappingReport) -> None:
        self.name = name
        self.server = server
        self.is_healthy = True
        self.changed_at = 0.0
        self._plan = plan
        self._report = report
        self._random = random.Random(f"{plan.seed} {name}")
        self._count = 0
        server.default = llm.Act(self._play)

    def was_healthy_since(self, instant: float) -> bool:
        """Return whether the provider has been healthy from that instant until now."""
        return self.is_healthy and self.changed_at <= instant

    def change(self) -> None:
        """Fail from now on, or recover."""
        self.is_healthy = not self.is_healthy
        self.changed_at = time.monotonic()

    async def _play(self, exchange: llm.Exchange) -> None:
        self.server.requests.clear()
        self._count += 1
        good = llm.answer("", [f"{self.name}-{self._count} "] * PIECES, pause_s=0.005)
        if self.is_healthy:
            await good.play(exchange)
            return
        kind = self._random.choice(self._plan.failures)
        self._report.failures[kind] += 1
        broken = replace(good, pieces=good.pieces[: PIECES // 2], breaks_off=llm.cut(0).breaks_off)
        behaviours: dict[str, llm.Behaviour] = {
            "cut": broken,
            "closed": llm.closed_without_answer(),
            "empty": llm.empty_answer(),
            "hang": llm.hang(),
            "rate limit": llm.status(429),
            "overload": llm.status(529),
            "reset": llm.reset(),
            "server error": llm.status(500),
        }
        await behaviours[kind].play(exchange)


class FlappingRun:
    """The requests of a run, and the changes of health meanwhile."""

    def __init__(
        self,
        plan: FlappingPlan,
        providers: Sequence[FlappingProvider],
        replicas: Sequence[LLMHarness],
        redis: Redis,
        report: FlappingReport,
    ) -> None:
        self.report = report
        self._redis = redis
        self._plan = plan
        self._providers = providers
        self._replicas = replicas
        self._ends_at = 0.0
        self._is_over = False

    async def run(self) -> None:
        """Keep the requests in flight until the time is over, then let them end."""
        for replica in self._replicas:
            # The first request of a process imports for a second or two.
            await replica.ask(streamed=True)
        self._ends_at = time.monotonic() + self._plan.seconds
        flapping = asyncio.create_task(self._flap())
        asking = [self._ask_repeatedly(number) for number in range(self._plan.requests)]
        try:
            await asyncio.gather(*asking)
        finally:
            self._is_over = True
            await flapping

    async def _flap(self) -> None:
        """Change the health of one provider after the other; at least one is healthy at any time."""
        chance = random.Random(self._plan.seed)
        while not self._is_over:
            await asyncio.sleep(chance.uniform(*self._plan.change_s))
            leases = [each for each in await _leases(self._redis) if not each.startswith("probe")]
            self.report.most_leases = max(self.report.most_leases, len(leases))
            changed = chance.choice(self._providers)
            if not changed.is_healthy or sum(each.is_healthy for each in self._providers) > 1:
                changed.change()

    async def _ask_repeatedly(self, number: int) -> None:
        replica = self._replicas[number % len(self._replicas)]
        is_streamed = number % 4 < 2
        is_over = False
        while not is_over:
            began = time.monotonic()
            pieces: list[str] = []
            try:
                answered = await _ask(replica, f"telegram:{number}", pieces, is_streamed=is_streamed)
            except AnswerInterrupted:
                self.report.interrupted += 1
            except Exception as error:  # noqa: BLE001 - every kind of error is counted
                self._note_error(error, began)
            else:
                self.report.answered[answered] += 1
                self.report.waits_s.append(time.monotonic() - began)
            if len(set("".join(pieces).split())) > 1:
                self.report.glued.append("".join(pieces))
            is_over = time.monotonic() >= self._ends_at

    def _note_error(self, error: Exception, began: float) -> None:
        healthy = [each.name for each in self._providers if each.was_healthy_since(began)]
        if healthy:
            self.report.unanswered.append(f"{healthy} after {time.monotonic() - began:.1f} s: {error!r}")
        else:
            self.report.excused += 1


async def _ask(replica: LLMHarness, user: str, pieces: list[str], *, is_streamed: bool) -> str:
    """Make one request, add its text to `pieces`, and return the provider named in a whole answer."""
    model = replica.factory.create_routed_model(RequestSpec("test", user=user))
    if is_streamed:
        async with model_request_stream(model, HELLO) as stream:
            async for event in stream:
                pieces.append(piece_of(event))
    else:
        pieces.append(said(await model_request(model, HELLO)))
    words = "".join(pieces).split()
    assert len(words) == PIECES or words == ["Hello"], words
    return words[0].rpartition("-")[0]


async def _leases(redis: Redis) -> list[str]:
    """Return the concurrency leases and probe leases that Redis holds."""
    left = [f"probe: {key}" for key in await redis.hkeys("test:{llm}:routing") if str(key).startswith("probe")]
    for name in NAMES:
        left += [f"{name}: {lease}" for lease in await redis.zrange(f"test:{{llm}}:inflight:{name}", 0, -1)]
    return left


@asynccontextmanager
async def _open_replicas(
    plan: FlappingPlan, servers: Sequence[LLMServer], redis_url: str
) -> AsyncIterator[list[LLMHarness]]:
    providers = [
        provider(
            name,
            server.url,
            max_concurrency=plan.concurrency,
            timeout_s=2 * plan.deadline_s,
            first_token_timeout_s=plan.deadline_s,
            stall_timeout_s=plan.deadline_s,
        )
        for name, server in zip(NAMES, servers, strict=True)
    ]
    limits = RoutingLimits(cooldown_s=plan.cooldown_s)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_redis(redis_url)) for _ in range(2)]
        yield [await stack.enter_async_context(bench(redis, providers, SystemTime(), limits)) for redis in clients]


async def run_flapping(plan: FlappingPlan, redis_url: str) -> FlappingReport:
    """Run two replicas that share a Redis, and return the outcomes of their requests."""
    report = FlappingReport()
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(LLMServer()) for _ in NAMES]
        providers = [FlappingProvider(name, server, plan, report) for name, server in zip(NAMES, servers, strict=True)]
        redis = await stack.enter_async_context(open_redis(redis_url))
        async with _open_replicas(plan, servers, redis_url) as replicas:
            await FlappingRun(plan, providers, replicas, redis, report).run()
        report.leases = await _leases(redis)
    return report
