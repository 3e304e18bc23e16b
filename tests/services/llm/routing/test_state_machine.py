"""Random histories of two replicas of the fallback service, compared step by step with `oracle.py`.

A history is a sequence of concurrent requests with every kind of outcome, of cancellations, forces, clears, cooldowns
and resets, reports, clock steps (to just before, at and after the next end of a state), of replicas that lose Redis and
reconnect with or without its data, and of restarts; the clocks differ by up to the tolerated skew. After each step the
replicas must agree with each other and with the oracle.

The same histories run every time. For more, and new ones each time:

    python -m pytest tests/services/llm/routing/test_state_machine.py --hypothesis-profile long -o timeout=0
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from services.llm.routing.status import ProviderState
from tests.services.llm.routing.machine_acts import ActsMachine
from tests.services.llm.routing.machine_replicas import (
    MOST_IN_FLIGHT,
    PREFERRED_FOR,
    PRIORITY,
    REPLICAS,
    Replica,
    names,
    replicas,
)
from tests.services.llm.routing.machine_requests import RequestsMachine
from tests.services.llm.routing.oracle import CLOCKS_DIFFER_BY, Known
from tests.services.llm.routing.stores import Embedded, Server
from tests.support.processes.redis_server import BINARY, RedisServer

pytestmark = pytest.mark.integration

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


class FallbackMachine(RequestsMachine, ActsMachine):
    """Requests and acts while time passes, replicas restart, and Redis comes and goes."""

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
