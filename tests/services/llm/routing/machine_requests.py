"""Rules of requests: one after the other and at once, with every kind of outcome."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from core.errors import (
    AllProvidersFailed,
    AnswerInterrupted,
    ConsentNeeded,
    ContextWindowExceeded,
    RequestRejected,
)
from services.llm.request import ModelChoice, RequestSpec
from services.llm.routing.attempts import Attempt, Attempts
from services.llm.usage import NOTHING
from tests.services.llm.routing.machine_replicas import (
    LEASE_S,
    LOADING_POLL_S,
    MAX_HOPS,
    MOST_IN_FLIGHT,
    PREFERRED_FOR,
    PRIORITY,
    REMOTE,
    REPLICAS,
    TIMEOUT_S,
    ReplicasMachine,
    Request,
    names,
    replicas,
    which,
)
from tests.services.llm.routing.outcome_rows import AFTER_OUTPUT, AT_ONCE, BEFORE_OUTPUT, COOLDOWN_S, REPORTED, Row


class RequestsMachine(ReplicasMachine):
    """Requests in flight, and the candidates, cooldowns and errors that are expected of them."""

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
        assert candidate == expected, "the candidates are asked in order"
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
        assert isinstance(error, expected), "the error names the reason of the failure"
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
