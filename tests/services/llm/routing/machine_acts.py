"""Rules of acts: of operators, of reports from outside, and of records about models."""

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from services.llm.request import Candidate, Capability
from services.llm.routing.state import model_changes, rules
from tests.services.llm.routing.machine_replicas import (
    PREFERRED_FOR,
    PRIORITY,
    PROVIDERS,
    TIMING,
    ReplicasMachine,
    names,
    replicas,
)
from tests.services.llm.routing.outcome_rows import REPORTED

SECOND_MODEL = "m2"
"""A model that only users pick: its rest changes nothing about the order."""
durations = st.sampled_from([1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0])


class ActsMachine(ReplicasMachine):
    """Acts and records at a replica, which both replicas know afterwards."""

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
        """Compare the state of each model, on each replica and by its own clock."""
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


def _candidate(provider: str) -> Candidate:
    return Candidate(next(each for each in PROVIDERS if each.id == provider), "m")
