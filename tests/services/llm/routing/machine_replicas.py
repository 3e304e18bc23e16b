"""Two replicas of the fallback service, and their state as `oracle.py` expects it."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize
from redis.asyncio import Redis

from core.config.providers import ProviderKind
from core.config.settings import ProviderSettings
from services.llm.routing.attempts import Attempt, Attempts
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.state.codec import decode_routing
from services.llm.routing.state.shared_state import SharedRouting
from services.llm.routing.timing import RoutingLimits, RoutingTiming
from tests.services.llm.routing.oracle import CLOCKS_DIFFER_BY, Deed, Known, Span, World
from tests.services.llm.routing.outcome_rows import COOLDOWN_S
from tests.services.llm.routing.stores import SteppedClock, Store

PREFERRED_FOR = 1800.0
MAX_HOPS = 3
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


class ReplicasMachine(RuleBasedStateMachine):
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

    def _cools(self, replica: int, provider: str, seconds: float) -> None:
        """Expect a cooldown that does not shorten an existing one."""
        now = self.now(replica)
        before = self.known(replica).cooldowns.get(provider)
        self.do(replica, lambda known: known.cools_down(provider, now, seconds), always=True)
        cooldown = self.replicas[replica].shared.routing.cooldowns[provider]
        assert cooldown.until == max(now + seconds, before.until if before else 0), "the later end is kept"
