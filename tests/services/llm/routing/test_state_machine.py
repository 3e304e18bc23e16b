"""Random histories of two replicas of the fallback service, compared step by step with `oracle.py`.

A history is a sequence of concurrent requests with every kind of outcome, of cancellations, forces, clears, cooldowns
and resets, reports, clock steps (to just before, at and after the next end of a state), of replicas that lose Redis and
reconnect with or without its data, and of restarts; the clocks differ by up to the tolerated skew. After each step the
replicas must agree with each other and with the oracle.

The same histories run every time. For more, and new ones each time:

    python -m pytest tests/services/llm/routing/test_state_machine.py --hypothesis-profile long -o timeout=0
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from core.config.providers import ProviderKind
from core.config.settings import ProviderSettings
from core.errors import (
    AllProvidersFailed,
    AnswerInterrupted,
    ConsentNeeded,
    ContextWindowExceeded,
    RequestRejected,
)
from services.llm.request import Candidate, Capability, ModelChoice, RequestSpec
from services.llm.routing.attempt import Attempt
from services.llm.routing.attempts import Attempts
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.state import model_changes, rules
from services.llm.routing.state.codec import decode_routing
from services.llm.routing.state.shared_state import SharedRouting
from services.llm.routing.status import ProviderState
from services.llm.routing.timing import RoutingLimits, RoutingTiming
from services.llm.usage import NOTHING
from tests.services.llm.routing.oracle import CLOCKS_DIFFER_BY, Deed, Known, Span, World
from tests.services.llm.routing.outcome_rows import AFTER_OUTPUT, AT_ONCE, BEFORE_OUTPUT, COOLDOWN_S, REPORTED, Row
from tests.services.llm.routing.stores import Embedded, Server, SteppedClock, Store
from tests.support.processes.redis_server import BINARY, RedisServer

pytestmark = pytest.mark.integration

PREFERRED_FOR = 1800.0
MAX_HOPS = 3
SECOND_MODEL = "m2"
"""A model that only users pick: its rest changes nothing about the order."""
TIMEOUT_S = 60.0
REMOTE = frozenset({"b", "d"})
PRIORITY = ("a", "b", "c", "d")
PROVIDERS = [
    ProviderSettings(
        id=name,
        kind=ProviderKind.OPENAI_COMPATIBLE,
        models=("m",),
        base_url="http://127.0.0.1:1/v1",
        timeout_s=TIMEOUT_S,
        retries=1,
        remote=name in REMOTE,
    )
    for name in PRIORITY
]
REPLICAS = (0, 1)
MOST_IN_FLIGHT = 6
PATIENCE_S = 10.0
"""Time limit for the replicas to agree; normally they take a few milliseconds."""
LOADING_POLL_S = (0.1, 0.3)
TIMING = RoutingTiming(lease_wait_s=PATIENCE_S, acknowledge_s=PATIENCE_S, loading_poll_s=LOADING_POLL_S)
"""A machine that stalls for a moment does not make a request give up its probe."""
LEASE_S = TIMEOUT_S + TIMING.lease_margin_s

_Result = TypeVar("_Result")


replicas = st.sampled_from(REPLICAS)
names = st.sampled_from(PRIORITY)
durations = st.sampled_from([1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0])
APART = [
    # an act at a disconnected replica, and a later one at the other
    ("force", "force"),
    ("clear", "force"),
    ("clear", "success"),
    ("reset", "failure"),
    ("failure", "reset"),
    ("failure", "failure"),
    ("failure", "success"),
    ("success", "failure"),
]
which = st.integers(0, MOST_IN_FLIGHT - 1)


@dataclass
class Replica:
    """One process: its service, clock and client."""

    clock: SteppedClock
    redis: Redis
    shared: SharedRouting
    service: LLMProviderFallback


@dataclass(eq=False)
class Request:
    """A request in flight, with the oracle's expectations."""

    replica: int
    attempts: Attempts
    allowed: Sequence[str]
    wished: frozenset[str | None]
    trial: str | None
    tried: Span | None
    """The ended cooldown that is probed."""
    left: list[str]
    apart: bool
    """True if it began at a disconnected replica."""
    started: float
    first: Attempt | None = None
    """The attempt that came with its beginning."""
    attempt: Attempt | None = None
    """The attempt in flight."""
    began: float = 0.0
    current: str = ""
    lateness: tuple[int, float] = (0, 0.0)
    retries: int = 0
    asked: list[str] = field(default_factory=list[str])
    failed: list[str] = field(default_factory=list[str])
    passed_over: bool = False
    too_long: bool = False
    unclear: list[str] = field(default_factory=list[str])
    """The providers whose refusal is not settled."""
    loading: list[str] = field(default_factory=list[str])
    """The providers whose server loads its model."""
    pause: float = LOADING_POLL_S[0]
    """The pause before such a server is asked again."""


class FallbackMachine(RuleBasedStateMachine):
    """Two replicas and their expected state."""

    def __init__(self, store: Callable[[], Store]) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.store = store()
        self.admin = self.run(self.store.open())
        self.world = World(PRIORITY)
        self.elapsed = 0.0
        self.in_flight: list[Request] = []
        self.trials: list[Request] = []
        self.not_preferred_at = dict.fromkeys(PRIORITY, 0.0)
        self.replicas: dict[int, Replica] = {}

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        return self.loop.run(coroutine)

    @initialize(skew=st.sampled_from([0.0, 3.0, -3.0, CLOCKS_DIFFER_BY, -CLOCKS_DIFFER_BY]))
    def start(self, skew: float) -> None:
        for replica in REPLICAS:
            clock = self.run(self._clock())
            self.replicas[replica] = self.run(self._started(replica, clock))
        self.replicas[1].clock.shift(skew)
        self.settle()

    async def _clock(self) -> SteppedClock:
        return SteppedClock()

    async def _started(self, replica: int, clock: SteppedClock) -> Replica:
        redis = await self.store.client(replica)
        shared = SharedRouting(redis, self.store.prefix, clock)
        service = LLMProviderFallback(
            PROVIDERS, shared, clock, RoutingLimits(PREFERRED_FOR, COOLDOWN_S, MAX_HOPS), timing=TIMING
        )
        await shared.start()
        return Replica(clock, redis, shared, service)

    def teardown(self) -> None:
        async def close() -> None:
            for replica in self.replicas.values():
                replica.clock.reachable.set()
                await replica.shared.close()
                await replica.redis.aclose()
            await self.store.close()
            await self.admin.aclose()

        self.run(close())
        self.loop.close()

    # Observation

    def now(self, replica: int) -> float:
        return self.replicas[replica].clock.time()

    def known(self, replica: int) -> Known:
        return self.world.known_to(replica)

    def do(self, replica: int, deed: Deed, *, always: bool = False) -> None:
        self.world.do(replica, deed, always=always)

    async def stored(self) -> dict[str, str]:
        return await self.admin.hgetall(f"{self.store.prefix}:{{llm}}:routing")

    def settle(self) -> None:
        """Wait until every connected replica has the state in Redis."""
        self.run(self._settle())

    async def _settle(self) -> None:
        reaching = [self.replicas[replica].shared for replica in self.replicas if not self.world.is_cut_off(replica)]
        try:
            async with asyncio.timeout(PATIENCE_S):
                while reaching:
                    shared, _ = decode_routing(await self.stored())
                    if all(one.connected and not one._pending and one.routing == shared for one in reaching):
                        return
                    await asyncio.sleep(0)
        except TimeoutError:
            raise AssertionError("replicas agree once settled") from None

    def picked(self, number: int) -> Request:
        return self.in_flight[number % len(self.in_flight)]

    # Requests

    @precondition(lambda self: len(self.in_flight) < MOST_IN_FLIGHT)
    @rule(replica=replicas, choice=st.none() | names, local_only=st.booleans())
    def ask(self, replica: int, choice: str | None, *, local_only: bool) -> None:
        """Begin a request."""
        request = self._expected(replica, choice, local_only=local_only)
        request.attempts, request.first = self.run(self._begun(replica, choice, local_only=local_only))
        self._checked_trial(request)
        self.in_flight.append(request)
        self._ask_next(request)
        self.settle()

    async def _begun(self, replica: int, choice: str | None, *, local_only: bool) -> tuple[Attempts, Attempt | None]:
        """Begin a request up to its first attempt, which is when a probe takes its lease."""
        picked = ModelChoice(choice) if choice is not None else None
        spec = RequestSpec("test", choice=picked, local_only=local_only)
        attempts = await self.replicas[replica].service.begin(spec)
        return attempts, await anext(aiter(attempts), None)

    def _expected(self, replica: int, choice: str | None, *, local_only: bool, may_try: bool = True) -> Request:
        """Return the oracle's expectations for a request that begins now."""
        known, now = self.known(replica), self.now(replica)
        allowed = [name for name in PRIORITY if not (local_only and name in REMOTE)]
        due = known.due_for_trial(allowed, now, choice) if may_try else None
        request = Request(
            replica,
            attempts=None,
            allowed=allowed,
            wished=frozenset({known.forced(now), choice}),
            trial=due,
            tried=known.cooldowns.get(due) if due is not None else None,
            left=known.order(allowed, now, choice, due),
            apart=self.world.is_cut_off(replica),
            started=self.elapsed,
        )
        if due is not None:
            self.do(replica, lambda known: known.is_tried(due, request, now, LEASE_S))
        return request

    def _checked_trial(self, request: Request) -> None:
        """Check that no other request over all replicas probes after the same cooldown."""
        lease = request.attempts._admission._lease
        assert (lease[0] if lease else None) == request.trial, "one probe per ended cooldown, by the next request"
        if request.trial is None or request.apart:
            return
        for other in self.trials:
            assert other.tried is not request.tried or self.elapsed - other.started >= TIMEOUT_S, (
                "one probe per ended cooldown over all replicas"
            )
        self.trials.append(request)

    def _ask_next(self, request: Request) -> None:
        """Move on to the next candidate, or end if there is none."""
        known, now = self.known(request.replica), self.now(request.replica)
        candidate = self.run(self._next(request))
        if not request.left or len(request.failed) >= MAX_HOPS:
            request.left.clear()
            if self._is_loading_awaited(request):
                assert candidate == request.loading[0], "where all others fail, the first that loads is waited for"
                request.pause = min(2 * request.pause, LOADING_POLL_S[1])
                request.retries = 1
                self._asked(request, candidate)
                return
            assert candidate is None, "no more than so many are tried"
            self._exhausted(request)
            return
        assert candidate is not None, "no request is refused while an allowed provider has not been asked"
        forced = known.forced(now)
        if not request.asked and forced in request.allowed:
            assert candidate == forced, "force wins"
        expected = min(request.left, key=lambda name: self._lateness(request, name))
        better = [name for name in request.left if known.is_well(name)]
        if candidate not in request.wished and better:
            assert not known.is_cooling(candidate, now), "a provider in cooldown is asked before a healthy one"
            assert known.is_well(candidate) or candidate == request.trial, "only its probe asks who is on trial"
        assert candidate == expected, "everybody is asked in order"
        request.left.remove(candidate)
        request.retries = 1
        request.lateness = known.lateness(candidate, now)
        self._asked(request, candidate)

    def _is_loading_awaited(self, request: Request) -> bool:
        is_at_fault = len(request.unclear) == 2
        return (
            bool(request.loading) and not is_at_fault and TIMEOUT_S - (self.elapsed - request.started) > request.pause
        )

    def _lateness(self, request: Request, name: str) -> tuple[int, float]:
        known, now = self.known(request.replica), self.now(request.replica)
        is_trial = name == request.trial and known.is_on_trial(name, now)
        return (0, 0.0) if name in request.wished or is_trial else known.lateness(name, now)

    async def _next(self, request: Request) -> str | None:
        if request.asked or request.first is None:
            request.attempt = await anext(aiter(request.attempts), None)
        else:
            request.attempt = request.first
        return request.attempt.candidate.provider.id if request.attempt is not None else None

    def _asked(self, request: Request, candidate: str) -> None:
        request.current = candidate
        request.began = self.now(request.replica)
        request.asked.append(candidate)

    def _exhausted(self, request: Request) -> None:
        error = request.attempts.exhausted()
        expected = ContextWindowExceeded if request.too_long else AllProvidersFailed
        if request.failed and request.failed == request.unclear:
            expected = RequestRejected
        if len(request.allowed) < len(PRIORITY):
            # A remote provider could still answer, with consent.
            expected = ConsentNeeded
        if len(request.unclear) == 2:
            expected = RequestRejected
        assert isinstance(error, expected), "the error says what kept everybody from answering"
        # One that was waited for has a reason for each time.
        failed = dict.fromkeys(attempt.provider for attempt in request.attempts.failures)
        assert list(failed) == request.failed, "each with its reason"
        self._over(request)

    def _over(self, request: Request) -> None:
        request.attempts.close()
        self.in_flight.remove(request)
        self._gives_back(request)

    def _gives_back(self, request: Request) -> None:
        if request in self.trials:
            self.trials.remove(request)
        provider = request.trial
        if provider is not None:
            self.do(request.replica, lambda known: known.is_given_back(provider, request))

    @precondition(lambda self: self.in_flight)
    @rule(number=which)
    def answer(self, number: int) -> None:
        """Complete an answer."""
        request = self.picked(number)
        provider, began, now = request.current, request.began, self.now(request.replica)
        self._expect_evidence(request)
        counts = (
            provider not in request.wished and not request.passed_over and self.known(request.replica).leads(provider)
        )
        request.attempt.succeeded(0.1, NOTHING)
        self._check_evidence(request)
        self.do(request.replica, lambda known: known.answered(provider, began, now, PREFERRED_FOR, counts=counts))
        self._over(request)
        self.settle()

    @precondition(lambda self: self.in_flight)
    @rule(number=which, outcome=st.sampled_from(list(REPORTED)))
    def fail(self, number: int, outcome: str) -> None:
        """Fail a request before its first output."""
        request, row = self.picked(number), REPORTED[outcome]
        if row.surfaces is not None:
            with pytest.raises(row.surfaces):
                self.run(request.attempt.failed(row.error()))
            self._over(request)
        else:
            self.run(request.attempt.failed(row.error()))
            self._failed(request, row)
        self.settle()

    def _failed(self, request: Request, row: Row) -> None:
        provider, now = request.current, self.now(request.replica)
        known = self.known(request.replica)
        if row.again and request.retries:
            request.retries = 0
            if known.lateness(provider, now) <= request.lateness or not request.left:
                assert self.run(self._next(request)) == provider, "one more try after a hiccup"
                self._asked(request, provider)
                return
        if provider not in request.failed:
            request.failed.append(provider)
        if row.loading:
            request.loading += [provider] * (provider not in request.loading)
        elif provider in request.loading:
            request.loading.remove(provider)
        seconds = row.cools_for
        if row.unclear:
            request.unclear += [provider] * (provider not in request.unclear)
            if len(request.unclear) == 2:
                request.left.clear()
        elif seconds is None:
            request.passed_over = True
            request.too_long = request.too_long or row.too_long
        else:
            self._cools(request.replica, provider, seconds)
        self._ask_next(request)

    def _expect_evidence(self, request: Request) -> None:
        """Expect that an answer puts the blame on those who refused the same request."""
        now = self.now(request.replica)
        for name in request.unclear:
            self.do(request.replica, lambda known, name=name: known.cools_down(name, now, COOLDOWN_S), always=True)

    def _check_evidence(self, request: Request) -> None:
        cooldowns = self.replicas[request.replica].shared.routing.cooldowns
        for name in request.unclear:
            assert cooldowns[name].until >= self.now(request.replica) + COOLDOWN_S, "the answer proves its fault"

    def _cools(self, replica: int, provider: str, seconds: float) -> None:
        """Expect a cooldown that does not shorten an existing one."""
        now = self.now(replica)
        before = self.known(replica).cooldowns.get(provider)
        self.do(replica, lambda known: known.cools_down(provider, now, seconds), always=True)
        cooldown = self.replicas[replica].shared.routing.cooldowns[provider]
        assert cooldown.until == max(now + seconds, before.until if before else 0), "the later end is kept"

    @precondition(lambda self: self.in_flight)
    @rule(number=which, outcomes=st.lists(st.sampled_from(AT_ONCE), min_size=len(PRIORITY), max_size=len(PRIORITY)))
    def fail_everywhere(self, number: int, outcomes: list[str]) -> None:
        """Fail a request at each candidate."""
        request = self.picked(number)
        for outcome in outcomes:
            if request in self.in_flight:
                self.run(request.attempt.failed(BEFORE_OUTPUT[outcome].error()))
                self._failed(request, BEFORE_OUTPUT[outcome])
        self.settle()

    @precondition(lambda self: self.in_flight)
    @rule(number=which, outcome=st.sampled_from(list(AFTER_OUTPUT)))
    def break_off(self, number: int, outcome: str) -> None:
        """Fail a request after its first output."""
        request, row = self.picked(number), AFTER_OUTPUT[outcome]
        if row.cools_for is not None:
            self._expect_evidence(request)
        error = request.attempt.broke_off(row.error(), NOTHING)
        assert isinstance(error, row.surfaces or AnswerInterrupted), "no provider takes over after the first output"
        if row.cools_for is not None:
            self._cools(request.replica, request.current, row.cools_for)
        self._over(request)
        self.settle()

    @precondition(lambda self: self.in_flight)
    @rule(number=which)
    def stop(self, number: int) -> None:
        """Cancel a request."""
        request = self.picked(number)
        before = self._blame()
        self._over(request)
        assert self._blame() == before, "nothing is blamed for a cancel"
        self.settle()

    def _blame(self) -> list[object]:
        states = [self.replicas[replica].shared.routing for replica in REPLICAS]
        failures = [
            one.failures
            for replica in REPLICAS
            for one in self.replicas[replica].service.get_provider_status().providers
        ]
        return [[(known.cooldowns, known.preference, known.force) for known in states], failures]

    @rule(at=st.lists(replicas, min_size=2, max_size=8), local_only=st.booleans())
    def ask_at_once(self, at: list[int], *, local_only: bool) -> None:
        """Begin many requests at once at both replicas, and cancel them once each has asked a candidate."""
        allowed = [name for name in PRIORITY if not (local_only and name in REMOTE)]
        due = {replica: self.known(replica).due_for_trial(allowed, self.now(replica)) for replica in sorted(set(at))}
        begun = self.run(self._begun_together(at, local_only=local_only))
        # Which of the requests gets the lease is not determined.
        requests: list[Request] = []
        for number in sorted(range(len(at)), key=lambda number: begun[number][0]._admission._lease is None):
            may_try = begun[number][0]._admission._lease is not None
            request = self._expected(at[number], None, local_only=local_only, may_try=may_try)
            request.attempts, request.first = begun[number]
            self._checked_trial(request)
            self.in_flight.append(request)
            self._ask_next(request)
            requests.append(request)
        tried = {request.trial for request in requests if not request.apart}
        for replica, provider in due.items():
            assert provider in tried or provider is None or self.world.is_cut_off(replica), (
                "the next request probes whose cooldown has ended"
            )
        # All of them: the one that went on would differ between runs of the same history.
        for request in requests:
            self._over(request)
        self.settle()

    async def _begun_together(self, at: Sequence[int], *, local_only: bool) -> list[tuple[Attempts, Attempt | None]]:
        return await asyncio.gather(*(self._begun(replica, None, local_only=local_only) for replica in at))

    @precondition(lambda self: len(self.in_flight) <= MOST_IN_FLIGHT - 2)
    @rule(provider=names, outcomes=st.tuples(st.sampled_from(AT_ONCE), st.sampled_from(AT_ONCE)))
    def fail_at_once(self, provider: str, outcomes: tuple[str, str]) -> None:
        """Have both replicas record an outcome of the same provider before either sees the other's."""
        rows = [BEFORE_OUTPUT[outcome] for outcome in outcomes]
        requests: list[Request] = []
        for replica in REPLICAS:
            self.ask(replica, provider, local_only=False)
            requests.append(self.in_flight[-1])
        current = [request.current for request in requests]

        async def failing() -> None:
            await asyncio.gather(
                *(request.attempt.failed(row.error()) for request, row in zip(requests, rows, strict=True))
            )

        self.run(failing())
        self.settle()
        for request, row in zip(requests, rows, strict=True):
            now, seconds, name = self.now(request.replica), row.cools_for or 0.0, request.current
            self.do(
                request.replica,
                lambda known, now=now, name=name, for_s=seconds: known.cools_down(name, now, for_s),
                always=True,
            )
            request.failed.append(request.current)
        for replica, name in zip(REPLICAS, current, strict=True):
            cooldown = self.replicas[replica].shared.routing.cooldowns[name]
            assert cooldown.until == self.known(replica).cooldowns[name].until, (
                "a cooldown set twice keeps the later end"
            )
        for request in requests:
            self._ask_next(request)
        self.settle()

    # Operators and reports

    @rule(replica=replicas, provider=names, seconds=durations)
    def force(self, replica: int, provider: str, seconds: float) -> None:
        now = self.now(replica)
        self.run(self.replicas[replica].service.force_provider(provider, seconds))
        self.do(replica, lambda known: known.is_forced_to(provider, now, seconds), always=True)
        self.settle()

    @rule(replica=replicas)
    def clear(self, replica: int) -> None:
        now = self.now(replica)
        self.run(self.replicas[replica].service.clear_cache())
        self.do(replica, lambda known: known.is_cleared(now), always=True)
        status = self.replicas[replica].service.get_provider_status()
        assert (status.forced, status.preferred) == (None, None), "a clear leaves neither force nor preference"
        self.settle()

    @rule(replica=replicas, provider=names, seconds=durations)
    def cool_down(self, replica: int, provider: str, seconds: float) -> None:
        self.run(self.replicas[replica].service.control.cool_down(provider, seconds, "an admin"))
        self._cools(replica, provider, seconds)
        self.settle()

    @rule(replica=replicas, provider=names)
    def reset(self, replica: int, provider: str) -> None:
        now = self.now(replica)
        self.run(self.replicas[replica].service.control.reset(provider))
        self.do(replica, lambda known: known.is_reset(provider, now), always=True)
        self.settle()

    # Models

    @rule(replica=replicas, provider=names, capability=st.sampled_from(list(Capability)), is_guess=st.booleans())
    def refuse(self, replica: int, provider: str, capability: Capability, *, is_guess: bool) -> None:
        """Learn that a model refuses a capability."""
        now, for_s = self.now(replica), TIMING.guessed_s if is_guess else TIMING.learned_s
        recorder, candidate = self.replicas[replica].service.recorder, _candidate(provider)

        async def learn() -> None:
            recorder.capabilities_refused(candidate, frozenset({capability}), is_guess=is_guess)

        self.run(learn())
        self.do(replica, lambda known: known.refuses(provider, capability.value, now, for_s), always=True)
        self.settle()

    @rule(replica=replicas, provider=names, longest=st.integers(100, 5000), window=st.none() | st.just(4096))
    def learn_length(self, replica: int, provider: str, longest: int, window: int | None) -> None:
        """Learn the longest request that a model takes."""
        now, recorder = self.now(replica), self.replicas[replica].service.recorder

        async def learn() -> None:
            recorder.length_learned(_candidate(provider), longest, window)

        self.run(learn())
        for_s = TIMING.learned_s
        self.do(replica, lambda known: known.takes_at_most(provider, longest, window, now, for_s), always=True)
        self.settle()

    @rule(replica=replicas, provider=names, seconds=st.sampled_from([10.0, 300.0, 1800.0]))
    def rest_model(self, replica: int, provider: str, seconds: float) -> None:
        """Let the second model of a provider rest."""
        now, shared = self.now(replica), self.replicas[replica].shared

        async def rest() -> None:
            shared.apply(model_changes.rested(provider, SECOND_MODEL, "gone", now, seconds, shared.replica))

        self.run(rest())
        self.do(replica, lambda known: known.rests_model(provider, now, seconds))
        self.settle()

    @rule(replica=replicas, provider=names, ago=st.sampled_from([0.0, 60.0]))
    def wake_model(self, replica: int, provider: str, ago: float) -> None:
        """Have the second model of a provider answer a request that began a while ago."""
        began, shared = self.now(replica) - ago, self.replicas[replica].shared

        async def wake() -> None:
            shared.apply(model_changes.woken(provider, SECOND_MODEL, began))

        self.run(wake())
        self.do(replica, lambda known: known.wakes_model(provider, began))
        self.settle()

    @invariant()
    def replicas_know_the_models(self) -> None:
        """Compare what is known about each model, on each replica and by its own clock."""
        for number, replica in self.replicas.items():
            known, now, routing = self.known(number), self.now(number), replica.shared.routing
            for name in PRIORITY:
                adaptation = rules.adaptation(routing, name, "m", now)
                assert {each.value for each in adaptation.without} == known.without(name, now), "every refusal counts"
                assert (adaptation.max_input, adaptation.window) == known.length(name, now), "a length is only lowered"
                rests = name in known.rests and known.rests[name].lasts(now)
                assert rules.is_resting(routing, name, SECOND_MODEL, now) == rests, "the later end counts"

    @rule(replica=replicas, provider=names, outcome=st.none() | st.sampled_from(list(REPORTED)))
    def report(self, replica: int, provider: str, outcome: str | None) -> None:
        """Report an outcome that a caller saw."""
        service, now = self.replicas[replica].service, self.now(replica)
        if outcome is None:
            self.run(service.report_provider_success(provider, "test"))
            self.do(replica, lambda known: known.answered(provider, now, now, PREFERRED_FOR, counts=True))
        else:
            row = REPORTED[outcome]
            self.run(service.report_provider_failure(provider, row.error(), "test"))
            if row.cools_for is not None:
                self._cools(replica, provider, row.cools_for)
        self.settle()

    # Time

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0, 30.0, 61.0, 299.0, 400.0, 1700.0, 5000.0]))
    def wait(self, seconds: float) -> None:
        self._pass(seconds)

    @rule(number=st.integers(0, 15), replica=replicas, offset=st.sampled_from([-0.001, 0.0, 0.001]))
    def wait_for_an_end(self, number: int, replica: int, offset: float) -> None:
        """Move the clocks to just before, to, or just after the end of a state."""
        known, now = self.known(replica), self.now(replica)
        spans = [known.force, known.preference, *known.cooldowns.values()]
        ends = [span.until for span in spans if span is not None] + [each.until for each in known.leases.values()]
        coming = sorted({end - now + offset for end in ends if end - now + offset > 0})
        if coming:
            self._pass(coming[number % len(coming)])

    def _pass(self, seconds: float) -> None:
        self.elapsed += seconds
        for replica in self.replicas.values():
            replica.clock.shift(seconds)
        # A later rule may renew a state that has just ended.
        self.no_preference_outlives_its_time()

    # Redis

    @rule(replica=replicas)
    def lose_redis(self, replica: int) -> None:
        """Disconnect a replica; both at once is an outage."""
        if self.world.is_cut_off(replica):
            return
        self.world.cut_off(replica)
        self.replicas[replica].clock.reachable.clear()
        self.run(self.store.cut(replica))

    @precondition(lambda self: any(self.world.is_cut_off(replica) for replica in REPLICAS))
    @rule(first=replicas, wiped=st.booleans())
    def find_redis(self, first: int, *, wiped: bool) -> None:
        """Reconnect all, one after the other; after an outage the data may be lost."""
        if wiped and all(self.world.is_cut_off(replica) for replica in REPLICAS):
            self.run(self._wipe())
        for replica in (first, 1 - first):
            self._find(replica)

    @rule(replica=replicas)
    def find_redis_alone(self, replica: int) -> None:
        """Reconnect one replica."""
        self._find(replica)

    @rule(
        replica=replicas,
        provider=names,
        acts=st.sampled_from(APART),
        seconds=st.sampled_from([1.0, 30.0, 400.0]),
    )
    def act_apart(self, replica: int, provider: str, acts: tuple[str, str], seconds: float) -> None:
        """Act at a disconnected replica, and a while later at the other one."""
        self.lose_redis(replica)
        self._act(acts[0], replica, provider)
        self._pass(seconds)
        self._act(acts[1], 1 - replica, provider)
        self._find(replica)

    def _act(self, act: str, replica: int, provider: str) -> None:
        match act:
            case "force":
                self.force(replica, provider, 600.0)
            case "clear":
                self.clear(replica)
            case "reset":
                self.reset(replica, provider)
            case _:
                self.report(replica, provider, None if act == "success" else "529")

    @precondition(lambda self: len(self.in_flight) < MOST_IN_FLIGHT)
    @rule(replica=replicas, provider=names)
    def die_while_probing(self, replica: int, provider: str) -> None:
        """Kill a replica while its request probes."""
        self.cool_down(replica, provider, 1.0)
        self._pass(1.0 + CLOCKS_DIFFER_BY)
        self.ask(replica, None, local_only=False)
        self.restart(replica)

    async def _wipe(self) -> None:
        await self.admin.flushall()
        self.world.wipe()

    def _find(self, replica: int) -> None:
        if not self.world.is_cut_off(replica):
            return

        async def find() -> None:
            await self.store.mend(replica)
            self.replicas[replica].clock.reachable.set()
            # A replica that did not notice the loss gets missed changes with the next publish or reload.
            await self.admin.publish(f"{self.store.prefix}:{{llm}}:changed", "somebody else")

        self.world.reconnect(replica)
        self.run(find())
        self.settle()
        # Probes made while disconnected are no longer told from those of the other replica.
        self.trials = [request for request in self.trials if request.replica != replica]

    @rule(replica=replicas)
    def restart(self, replica: int) -> None:
        """Restart a replica; its requests are lost."""
        before = self.run(self.stored())
        old = self.replicas[replica]

        async def again() -> Replica:
            old.shared._pending.clear()
            await old.shared.close()
            await old.redis.aclose()
            return await self._started(replica, old.clock)

        self.replicas[replica] = self.run(again())
        self.world.restart(replica)
        self.in_flight = [request for request in self.in_flight if request.replica != replica]
        self.settle()
        assert self.run(self.stored()) == before, "starting a replica changes nothing of what the others share"

    # Invariants

    @invariant()
    def replicas_know_what_they_should(self) -> None:
        """Compare force, preference, and each provider's state with its end."""
        for number, replica in self.replicas.items():
            known, now = self.known(number), self.now(number)
            status = replica.service.get_provider_status()
            assert status.forced == known.forced(now), "the force is the one that an admin set"
            assert status.preferred == known.preferred(now), "the preference is that of the first success"
            states = [(one.provider, one.state, one.until) for one in status.providers]
            assert states == [_state(known, name, now) for name in PRIORITY], "replicas agree with the rules"

    @invariant()
    def no_preference_outlives_its_time(self) -> None:
        """Check that no provider is preferred for longer than a preference lasts."""
        preferred = {replica.service.get_provider_status().preferred for replica in self.replicas.values()}
        for name in PRIORITY:
            if preferred != {name}:
                self.not_preferred_at[name] = self.elapsed
            age = self.elapsed - self.not_preferred_at[name]
            assert age < PREFERRED_FOR + CLOCKS_DIFFER_BY, "the preference never outlives its time"


def _candidate(provider: str) -> Candidate:
    return Candidate(next(each for each in PROVIDERS if each.id == provider), "m")


def _state(known: Known, name: str, now: float) -> tuple[str, ProviderState, float | None]:
    if known.forced(now) == name and known.force is not None:
        return name, ProviderState.FORCED, known.force.until
    if known.is_cooling(name, now):
        return name, ProviderState.COOLING, known.cooldowns[name].until
    if known.is_on_trial(name, now):
        tried = known.is_tried_by_somebody(name, now)
        return name, ProviderState.PROBING if tried else ProviderState.HALF_OPEN, None
    if known.preferred(now) == name and known.preference is not None:
        return name, ProviderState.PREFERRED, known.preference.until
    return name, ProviderState.HEALTHY, None


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Start a real server and return its port."""
    if BINARY is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path)
    with asyncio.Runner() as runner:
        runner.run(server.start())
        yield server.port
        runner.run(server.stop())


def histories(count: int) -> settings:
    """Return settings for that many fixed histories; the profile `long` runs new ones, in proportion."""
    if settings.get_current_profile_name() == "long":
        profile = settings.get_profile("long")
        return settings(profile, max_examples=profile.max_examples * count // 100, suppress_health_check=HealthCheck)
    return settings(
        max_examples=count,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=HealthCheck,
    )


@pytest.mark.timeout(300)
def test_on_the_embedded_store() -> None:
    run_state_machine_as_test(lambda: FallbackMachine(Embedded), settings=histories(60))


@pytest.mark.timeout(300)
def test_on_a_real_server(port: int) -> None:
    run_state_machine_as_test(lambda: FallbackMachine(lambda: Server(port)), settings=histories(20))
