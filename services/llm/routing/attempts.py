"""One request on its way through its candidates, and the outcome of each attempt."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import takewhile
from typing import Self

import structlog
from pydantic_ai.exceptions import ModelConnectionError
from pydantic_ai.messages import ModelMessage

from core.config.providers import ProviderKind
from core.errors import (
    AllProvidersFailed,
    AnswerInterrupted,
    ConsentNeeded,
    ContentRefused,
    ContextWindowExceeded,
    FailedAttempt,
    ProviderError,
    RequestRejected,
)
from core.redis.guard import RedisPatience
from services.llm.prompt_quotes import mask_quotes
from services.llm.request import Adaptation, Candidate, RequestSpec
from services.llm.routing.concurrency import ConcurrencyLimiter, Slot
from services.llm.routing.events import AttemptEnded, AttemptResult, Shed
from services.llm.routing.gates import Place, ProviderGates
from services.llm.routing.outcomes import AnswerGivenUp, EmptyAnswer, Outcome, classify, provider_message
from services.llm.routing.probes import ProbeLeases
from services.llm.routing.recorder import HALF_OPEN_RANK, OutcomeRecorder
from services.llm.routing.recourse import Indivisible, LastResort, Recourse, RequestShape
from services.llm.routing.refusal_words import Fault
from services.llm.server_words import find_server_words, mask_secrets
from services.llm.usage.report import NOTHING, RequestEnd, RequestReport, TokenUse, used_by_prompt

log = structlog.get_logger()

MAX_ADAPTATIONS = 12
"""Changes of a request for one candidate: six capabilities, and halvings of its length."""

BUSY = "busy"
"""The reason of a candidate that was not asked because its concurrency limit was reached."""


@dataclass(frozen=True, slots=True)
class Route:
    """The candidates of one request.

    Args:
        candidates: in the order in which they are asked.
        probe: the half-open provider that this request probes if it gets the lease.
        is_reordered: a provider that would come first cannot take the request, so an answer of another one does not
            make that one preferred.
        is_withheld: remote providers were excluded because the chat has not consented to them.
    """

    candidates: tuple[Candidate, ...]
    probe: str | None = None
    is_reordered: bool = False
    is_withheld: bool = False


@dataclass(frozen=True, slots=True)
class Admission:
    """The waits of a request before it asks a candidate: a place at its gate, a slot, the lease of a probe.

    Args:
        patience_s: how long the queue of a gate may stand still before a request goes on to another candidate.
    """

    limiter: ConcurrencyLimiter
    gates: ProviderGates
    probes: ProbeLeases
    patience_s: float


class AttemptState(Enum):
    """The state of an attempt: IN_FLIGHT, then ENDED, or PAUSED and RETRY_DUE before it is in flight again."""

    IN_FLIGHT = auto()
    """The request was sent; its outcome is unknown."""
    PAUSED = auto()
    """A hiccup: the pause before the retry is running and no request is in flight."""
    RETRY_DUE = auto()
    """The same candidate is asked next."""
    ENDED = auto()
    """The outcome is recorded, or the candidate was skipped."""


class Attempt:
    """One candidate that is asked, with its retry after a hiccup. Exactly one outcome is recorded.

    Args:
        request: the request that the attempt belongs to.
        place: held until the first output, over a retry too.
        slot: held until the attempt has ended and the request moves on.
        resort: set where every candidate has failed before.
    """

    def __init__(
        self, request: "Attempts", candidate: Candidate, place: Place, slot: Slot, resort: LastResort | None = None
    ) -> None:
        self.candidate = candidate
        self.place = place
        self.slot = slot
        self.resort = resort
        self.adaptation = request.recourse.known_adaptation(candidate) if resort is None else resort.adaptation
        """The changes with which the request is sent."""
        self._adaptations_left = MAX_ADAPTATIONS
        self._request = request
        self._recorder = request.recorder
        self._purpose = request.spec.purpose
        self._loop = asyncio.get_running_loop()
        self._retries_left = candidate.provider.retries
        self._rank_when_asked = self._recorder.health_rank(candidate.provider.id)
        self.begin()

    def begin(self) -> None:
        """Start the clock of a request that is sent now."""
        self._state = AttemptState.IN_FLIGHT
        self._began = self._recorder.time()
        self._asked_at = self._loop.time()

    @property
    def is_retry_due(self) -> bool:
        """True if the same candidate is to be asked once more."""
        return self._state is AttemptState.RETRY_DUE

    @property
    def longest_stream_s(self) -> float:
        """Longest time of a streamed answer that keeps coming."""
        return self._recorder.timing.longest_stream_s

    @property
    def has_candidates_left(self) -> bool:
        """True if another candidate could answer in place of this one."""
        return self._request.has_candidates_left

    async def failed(self, error: Exception) -> None:
        """Record a failure before the first output; returns where another attempt may help.

        Raises:
            ContentRefused: the provider's filter refused.
            Exception: `error` itself, where it is a bug of ours.
        """
        outcome = self._classify(error)
        adaptation = self._adapt(outcome)
        if adaptation is not None:
            self._ask_again(adaptation, outcome)
            return
        if not outcome.try_next:
            self._report(RequestEnd.REFUSED if outcome.fault is Fault.REFUSED else RequestEnd.FAILED, NOTHING)
            raise self._surface(outcome, error)
        if outcome.fault is Fault.HICCUP and self._retries_left > 0 and await self._pause_before_retry(outcome):
            return
        used = TokenUse(error.usage) if isinstance(error, EmptyAnswer | AnswerGivenUp) else NOTHING
        self._report(RequestEnd.FAILED, used, is_failure=outcome.cooldown_s is not None)
        self._end(AttemptResult.FAILED, outcome.fault)
        self._request.note_failure(self, outcome)
        self._blame(outcome, error)

    def _adapt(self, outcome: Outcome) -> Adaptation | None:
        """Return the request as this candidate may take it; None if another one is to be asked."""
        if self._adaptations_left == 0:
            return None
        recourse, candidate = self._request.recourse, self.candidate
        match outcome.fault:
            case Fault.CAPABILITY:
                return recourse.without_refused(candidate, self.adaptation, outcome)
            case Fault.CONTEXT_WINDOW:
                is_larger_left = self._request.is_larger_window_left(candidate, outcome.window)
                return recourse.shortened(candidate, self.adaptation, outcome, is_larger_left=is_larger_left)
            case _:
                return None

    def _ask_again(self, adaptation: Adaptation, outcome: Outcome) -> None:
        self._adaptations_left -= 1
        self._report(RequestEnd.FAILED, NOTHING)
        log.info(
            "provider.request_adapted",
            provider=self.candidate.provider.id,
            model=self.candidate.model,
            reason=outcome.reason,
            without=sorted(adaptation.without),
            max_input=adaptation.max_input,
            purpose=self._purpose,
        )
        self._publish(AttemptResult.RETRIED, outcome.fault)
        self.adaptation = adaptation
        self._state = AttemptState.RETRY_DUE

    def _blame(self, outcome: Outcome, error: Exception) -> None:
        """Record whose fault a failure was: the provider's, or that of one of its models."""
        if outcome.fault is Fault.UNCLEAR:
            return
        candidate = self.candidate
        is_pick = self._request.is_pick(candidate)
        if not is_pick and outcome.fault is not Fault.MODEL_GONE:
            self._recorder.failed(candidate.provider.id, outcome, self._purpose)
            return
        is_reachable = not (isinstance(error, ModelConnectionError) and error.phase == "connect")
        has_another = is_reachable and self._request.queue_other_model(candidate)
        if is_pick or has_another:
            is_listed = candidate.model in candidate.provider.models
            self._recorder.model_failed(candidate, outcome, self._purpose, is_listed=is_listed)
        else:
            self._recorder.failed(candidate.provider.id, outcome, self._purpose)

    async def _pause_before_retry(self, outcome: Outcome) -> bool:
        """Wait, and return whether to ask the same candidate again.

        It is not asked again if another request has seen it fail meanwhile, unless it is the last candidate.
        """
        provider = self.candidate.provider.id
        self._retries_left -= 1
        self._state = AttemptState.PAUSED
        await self._recorder.pause()
        if self._recorder.health_rank(provider) > self._rank_when_asked and self._request.has_candidates_left:
            self._state = AttemptState.IN_FLIGHT
            return False
        log.info("provider.retried", provider=provider, reason=outcome.reason, purpose=self._purpose)
        self._publish(AttemptResult.RETRIED, outcome.fault)
        self._state = AttemptState.RETRY_DUE
        return True

    def broke_off(self, error: Exception, used: TokenUse) -> ProviderError | Exception:
        """Record a failure after the first output; returns the error to raise in place of `error`."""
        cooldown_s = self._recorder.limits.cooldown_s
        outcome = self._with_words(classify(error, cooldown_s, self._recorder.words), error)
        is_failure = outcome.fault not in {Fault.REFUSED, Fault.OURS}
        self._report(RequestEnd.INTERRUPTED, used, is_failure=is_failure)
        if not is_failure:
            return self._surface(outcome, error)
        self._end(AttemptResult.INTERRUPTED, outcome.fault)
        self._request.settle_evidence(self)
        provider = self.candidate.provider.id
        self._recorder.failed(provider, replace(outcome, cooldown_s=cooldown_s), self._purpose)
        return AnswerInterrupted(provider, outcome.reason)

    def refused(self, reason: str, used: TokenUse) -> ContentRefused:
        """Record that the provider's filter ended the answer; returns the error to raise."""
        provider = self.candidate.provider.id
        self._report(RequestEnd.REFUSED, used)
        log.info("provider.refused", provider=provider, purpose=self._purpose)
        self._end(AttemptResult.SURFACED, Fault.REFUSED)
        return ContentRefused(provider, reason)

    def opened(self) -> None:
        """Record the first output of a stream: the cooldown of a provider that was probed ends here."""
        self.place.leave()
        self._recorder.opened(self.candidate.provider.id, self._purpose, began=self._began, prefer=self._is_vote)

    def succeeded(self, first_output_s: float, used: TokenUse) -> None:
        """Record a complete answer."""
        provider = self.candidate.provider.id
        if self._state is AttemptState.IN_FLIGHT:
            self._publish(AttemptResult.ANSWERED, first_output_s=first_output_s)
        self._report(RequestEnd.ANSWERED, used)
        self._state = AttemptState.ENDED
        self._request.note_answer(self)
        self._recorder.model_answered(self.candidate, self._began)
        self._recorder.succeeded(
            provider, self._purpose, began=self._began, prefer=self._is_vote, first_output_s=first_output_s
        )

    def malformed(self, reason: str, took_s: float, used: TokenUse) -> None:
        """Record a complete answer of the wrong shape: the provider is healthy, and the next candidate is asked."""
        provider = self.candidate.provider.id
        log.info("provider.malformed_answer", provider=provider, reason=reason, purpose=self._purpose)
        self.succeeded(took_s, used)
        self._request.note_failure(self, Outcome(Fault.UNREADABLE, reason))

    def skip(self) -> None:
        """Move on to the next candidate without recording an outcome: this one was not asked, or it refused."""
        self._state = AttemptState.ENDED
        self._request.is_reordered = True

    def cancel(self, used: Callable[[], TokenUse]) -> None:
        """Record that the consumer stopped reading: report usage, leave provider health unchanged.

        Args:
            used: computes the usage; not called if the outcome is already recorded.
        """
        if self._state is AttemptState.IN_FLIGHT:
            self._publish(AttemptResult.CANCELLED)
            self._report(RequestEnd.STOPPED, used())
        elif self._state is AttemptState.PAUSED:
            self._publish(AttemptResult.CANCELLED)
        self._state = AttemptState.ENDED

    @property
    def _is_vote(self) -> bool:
        """True if an answer may make the provider preferred."""
        is_first = self.candidate.by_order and not self._request.is_reordered
        return is_first and self._recorder.leads(self.candidate.provider.id)

    def _end(self, result: AttemptResult, fault: Fault) -> None:
        if self._state is AttemptState.IN_FLIGHT:
            self._publish(result, fault)
        self._state = AttemptState.ENDED

    def _publish(
        self, result: AttemptResult, fault: Fault | None = None, *, first_output_s: float | None = None
    ) -> None:
        provider, seconds = self.candidate.provider.id, self._loop.time() - self._asked_at
        self._recorder.publish(
            AttemptEnded(
                provider, self.candidate.model, self._purpose, result, fault, self._began, seconds, first_output_s
            )
        )

    def _report(self, end: RequestEnd, used: TokenUse, *, is_failure: bool = False) -> None:
        if self._state is not AttemptState.IN_FLIGHT:
            return
        self._recorder.count(
            RequestReport(
                at=self._recorder.time(),
                provider=self.candidate.provider,
                model=self.candidate.model,
                spec=self._request.spec,
                end=end,
                is_failure=is_failure,
                used=used,
            )
        )

    def _classify(self, error: Exception) -> Outcome:
        outcome = self._with_words(classify(error, self._recorder.limits.cooldown_s, self._recorder.words), error)
        if outcome.capability is not None and not self._request.recourse.can_be_meant(
            self.adaptation, outcome.capability
        ):
            # The words mislead: the request has no such part, or it was left out already.
            return replace(outcome, fault=Fault.UNCLEAR, capability=None)
        return outcome

    def _with_words(self, outcome: Outcome, error: Exception) -> Outcome:
        """Return the outcome with the server's words, except where they may quote the prompt."""
        # What is known to be about the key, the account or the model is no quote, whatever the status.
        is_about_account = outcome.fault in {Fault.MISCONFIGURED, Fault.MODEL_GONE, Fault.LOADING}
        key = self.candidate.provider.api_key
        is_unclear = outcome.fault is Fault.UNCLEAR
        words = find_server_words(error, key, is_own_prompt=is_about_account or is_unclear)
        if is_unclear and words is not None:
            # Operators need them where another provider's answer proves this one's fault.
            words = mask_quotes(words, self._request.messages)
        # The reason holds a code of the server's, and some put the key there.
        reason = mask_secrets(outcome.reason, [key.get_secret_value()]) if key is not None else outcome.reason
        return replace(outcome, reason=reason, words=words)

    def _surface(self, outcome: Outcome, error: Exception) -> Exception:
        provider = self.candidate.provider.id
        log.info("provider.surfaced", provider=provider, fault=outcome.fault.value, reason=outcome.reason)
        self._end(AttemptResult.SURFACED, outcome.fault)
        match outcome.fault:
            case Fault.REFUSED:
                surfaced: Exception = ContentRefused(provider, provider_message(error) or outcome.reason)
            case _:
                return error
        surfaced.__cause__ = error
        return surfaced


class Attempts:
    """The attempts of one request, as an asynchronous iterator: failover, retries, and the wait for busy providers.

    Record an outcome on each attempt and `close()` at the end in any case. An attempt without an outcome (a cancelled
    request) leaves provider health unchanged.

    A candidate whose concurrency limit is reached is skipped. If no other one answers, the request waits for a slot.
    After each wait the candidate is looked at again: one that others have found failing meanwhile is not asked while
    another one could answer.
    """

    def __init__(
        self,
        recorder: OutcomeRecorder,
        admission: Admission,
        route: Route,
        spec: RequestSpec,
        messages: Sequence[ModelMessage],
        window: Callable[[Candidate], int | None],
        shape: RequestShape | None = None,
        redis_patience: RedisPatience | None = None,
    ) -> None:
        self.recorder = recorder
        self.spec = spec
        self.recourse = Recourse(recorder, spec, shape or Indivisible())
        self._began = recorder.monotonic()
        self._loading_pause_s = recorder.timing.loading_poll_s[0]
        self.candidates = route.candidates
        self.is_reordered = route.is_reordered
        """True if an earlier candidate was skipped, so that an answer says nothing about which one should lead."""
        self._limiter = admission.limiter
        self._gates = admission.gates
        self._probes = admission.probes
        self._patience_s: float | None = admission.patience_s
        self._person = spec.user or spec.chat or spec.purpose
        """Requests of one person share a queue at each gate."""
        self._redis_patience = redis_patience or RedisPatience()
        self.messages = messages
        self._window = window
        self._probe = route.probe
        self._lease: tuple[str, str] | None = None
        """The provider that this request probes, with the name of the lease's holder."""
        self._is_withheld = route.is_withheld
        self._max_hops = recorder.limits.max_hops
        self._left = deque(route.candidates)
        self._passed: list[Candidate] = []
        """Candidates whose gate stood still."""
        self._found_failing: set[str] = set()
        """Providers that failed elsewhere while this request waited for them."""
        self._current: Attempt | None = None
        self._failed: list[tuple[FailedAttempt, Fault]] = []
        self._busy: dict[str, tuple[Candidate, bool]] = {}
        """Candidates at their concurrency limit, each with `is_reordered` as of when it was skipped."""
        self._overflowed: Candidate | None = None
        """The last candidate whose context window was too small."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Attempt:
        """Return the next attempt: a due retry, else the next candidate, else a busy one once it has a slot."""
        if self._current is not None and self._current.is_retry_due:
            self._current.begin()
            self._limiter.extend(self._current.slot)
            return self._current
        self._release()
        self._return_lease()
        if self._is_hop_limit_reached:
            # The demo provider makes no request; it names the providers that could be configured.
            self._left = deque(each for each in self._left if each.provider.kind is ProviderKind.DEMO)
            self._passed.clear()
        while candidate := self._pop_next():
            if self._is_too_small(candidate):
                self.is_reordered = True
                continue
            attempt = await self._approach(candidate)
            if attempt is not None:
                return attempt
        for further in (self._wait_for_slot, self._try_last_resort, self._await_loading):
            attempt = await further()
            if attempt is not None:
                return attempt
        raise StopAsyncIteration

    @property
    def _is_hop_limit_reached(self) -> bool:
        # By provider: the models of one provider count as one.
        return len({attempt.provider for attempt, _ in self._failed}) >= self._max_hops

    @property
    def has_candidates_left(self) -> bool:
        """True if candidates remain that were not asked."""
        return bool(self._left or self._passed)

    @property
    def failures(self) -> tuple[FailedAttempt, ...]:
        """The failed attempts, in order."""
        return tuple(attempt for attempt, _ in self._failed)

    def note_failure(self, attempt: Attempt, outcome: Outcome) -> None:
        """Add a failed attempt; one that is not the provider's fault lets no other provider become preferred.

        An unclear refusal does not decide that yet: another candidate's answer makes it the provider's fault.
        """
        candidate = attempt.candidate
        is_unclear = outcome.fault is Fault.UNCLEAR
        self.is_reordered = self.is_reordered or (outcome.cooldown_s is None and not is_unclear)
        if outcome.fault is Fault.CONTEXT_WINDOW:
            self._overflowed = candidate
        failure = FailedAttempt(candidate.provider.id, candidate.model, outcome.reason)
        if (failure, outcome.fault) not in self._failed:
            self._failed.append((failure, outcome.fault))
        self.recourse.note_failure(candidate, attempt.adaptation, outcome)
        if is_unclear and self.recourse.is_request_at_fault:
            # Nothing is left to find out: every further candidate would refuse too.
            self._left.clear()
            self._busy.clear()

    def settle_evidence(self, attempt: Attempt) -> None:
        """Blame the candidates whose unclear refusal an answer has proved wrong."""
        for candidate, outcome in self.recourse.settle(attempt.candidate, attempt.resort):
            blamed = replace(outcome, cooldown_s=self.recorder.limits.cooldown_s)
            if self.is_pick(candidate):
                self.recorder.model_failed(candidate, blamed, self.spec.purpose, is_listed=False)
            else:
                self.recorder.failed(candidate.provider.id, blamed, self.spec.purpose)

    def is_pick(self, candidate: Candidate) -> bool:
        """Return whether the user picked this model, and it is not its provider's default."""
        choice = self.spec.choice
        return (
            choice is not None
            and choice.model is not None
            and (choice.provider, choice.model) == (candidate.provider.id, candidate.model)
            and choice.model != candidate.provider.default_model
        )

    def queue_other_model(self, candidate: Candidate) -> bool:
        """Ask the provider's next listed model before the next provider; returns False if there is none."""
        provider = candidate.provider
        tried = {attempt.model for attempt, _ in self._failed if attempt.provider == provider.id}
        for model in provider.models:
            if model not in tried and not self.recorder.is_resting(provider.id, model):
                self._left.appendleft(replace(candidate, model=model))
                return True
        return False

    def is_larger_window_left(self, candidate: Candidate, named: int | None) -> bool:
        """Return whether a candidate that was not asked is known to have a larger window."""
        window = named or self._known_window(candidate)
        if window is None:
            return False
        return any((self._known_window(other) or 0) > window for other in self._left)

    def note_answer(self, attempt: Attempt) -> None:
        """Release the slot, and keep the user with this provider if it stepped in for a busy one."""
        self._release()
        self.settle_evidence(attempt)
        before = takewhile(lambda candidate: candidate is not attempt.candidate, self.candidates)
        if self.spec.user is not None and any(candidate.provider.id in self._busy for candidate in before):
            self.recorder.keep_user(self.spec.user, attempt.candidate.provider.id)

    def exhausted(self) -> ProviderError:
        """Return the error of a request that no candidate answered."""
        rejected = self._rejection()
        if rejected is not None and self.recourse.is_request_at_fault:
            return rejected
        if self._is_withheld:
            return ConsentNeeded()
        if rejected is not None:
            return rejected
        if any(fault is Fault.CONTEXT_WINDOW for _, fault in self._failed):
            return ContextWindowExceeded(self.failures)
        busy = [FailedAttempt(name, candidate.model, BUSY) for name, (candidate, _) in self._busy.items()]
        attempts = (*self.failures, *busy)
        log.error(
            "provider.all_failed",
            purpose=self.spec.purpose,
            attempts=[{"provider": attempt.provider, "reason": attempt.reason} for attempt in attempts],
        )
        if self._failed:
            # Nobody failed where all were merely busy.
            self.recorder.all_failed(attempts)
        return AllProvidersFailed(attempts)

    def _rejection(self) -> RequestRejected | None:
        """Return the error of a request that is at fault: every candidate that was asked refused it."""
        unclear = self.recourse.unclear
        if not unclear or not (
            self.recourse.is_request_at_fault or all(fault is Fault.UNCLEAR for _, fault in self._failed)
        ):
            return None
        candidate, outcome = unclear[0]
        log.warning(
            "provider.request_rejected",
            purpose=self.spec.purpose,
            attempts=[{"provider": failed.provider, "reason": failed.reason} for failed in self.failures],
        )
        return RequestRejected(candidate.provider.id, outcome.reason)

    def close(self) -> None:
        """Cancel an attempt that is still in flight, and give back its slot and a probe's lease."""
        if self._current is not None:
            self._current.cancel(lambda: used_by_prompt(self.messages))
        for candidate, outcome in self.recourse.take_unsettled():
            self.recorder.failed(candidate.provider.id, outcome, self.spec.purpose)
        self._release()
        self._return_lease()

    def _pop_next(self) -> Candidate | None:
        """Remove and return the healthiest candidate as of now: others may have been found failing meanwhile."""
        if not self._left and self._passed:
            # No other candidate answered: wait in these queues however long they stand still.
            self._left.extend(self._passed)
            self._passed.clear()
            self._patience_s = None
        if not self._left:
            return None
        candidate = min(self._left, key=self._rank)
        self._left.remove(candidate)
        return candidate

    def _rank(self, candidate: Candidate) -> tuple[bool, float]:
        provider = candidate.provider.id
        is_ranked = candidate.by_order or provider in self._found_failing
        health = self.recorder.health_rank(provider) if is_ranked else 0.0
        # The probed provider comes first until another request has found it failing.
        is_probe = provider == self._probe and health == HALF_OPEN_RANK
        return candidate.misfit, 0.0 if is_probe else health

    async def _approach(self, candidate: Candidate) -> Attempt | None:
        """Wait for what a candidate needs; returns None where another one is to be asked first."""
        provider = candidate.provider
        health = self.recorder.health_rank(provider.id)
        place = await self._gates[provider.id].enter(self._person, self._gate_patience_s)
        if place is None and self.spec.stands_back:
            self._shed(candidate)
            return None
        if place is None:
            log.info("provider.queue_left", provider=provider.id, purpose=self.spec.purpose)
            self._passed.append(candidate)
            self.is_reordered = True
            return None
        slot: Slot | None = None
        attempt: Attempt | None = None
        try:
            slot = await self._limiter.take(provider, self._redis_patience, self._preempt)
            if slot is None:
                self._shed(candidate)
            elif await self._may_ask(candidate, health):
                attempt = self._start(candidate, place, slot)
            return attempt
        finally:
            if attempt is None:
                place.leave()
                if slot is not None:
                    self._limiter.release(slot)

    async def _may_ask(self, candidate: Candidate, health: float) -> bool:
        """Take the lease of a probe; returns False, with the candidate put back, if another is to be asked first.

        Args:
            candidate: the one that the request waited for.
            health: its rank before the wait.
        """
        provider = candidate.provider.id
        if provider == self._probe:
            holder = await self._probes.take(provider, self._redis_patience)
            if holder is not None:
                self._lease = (provider, holder)
                # It probes on behalf of all replicas, so it gets a second candidate in case the probe fails.
                self._max_hops = max(self._max_hops, 2)
            else:
                self._probe = None
        is_worse = self.recorder.health_rank(provider) > health
        if is_worse:
            self._found_failing.add(provider)
        if (is_worse or health > 0.0) and self._has_better(candidate):
            self._return_lease()
            self._left.appendleft(candidate)
            return False
        return True

    @property
    def _preempt(self) -> Callable[[], object] | None:
        """Cancels this request where it stands back."""
        task = asyncio.current_task()
        return task.cancel if self.spec.stands_back and task is not None else None

    @property
    def _gate_patience_s(self) -> float | None:
        if self.spec.stands_back:
            return 0.0
        return self._patience_s if self._has_healthy_alternative() else None

    def _has_healthy_alternative(self) -> bool:
        return any(
            self.recorder.health_rank(other.provider.id) == 0.0
            for other in self._left
            if other.provider.kind is not ProviderKind.DEMO and not other.misfit
        )

    def _has_better(self, candidate: Candidate) -> bool:
        rank = self._rank(candidate)
        others = (other for other in (*self._left, *self._passed) if other.provider.kind is not ProviderKind.DEMO)
        return any(self._rank(other) < rank for other in others)

    async def _wait_for_slot(self) -> Attempt | None:
        """Return an attempt at the first busy candidate that has a slot and was not found failing meanwhile."""
        waiting = {name: each for name, (each, _) in self._busy.items() if not self._is_too_small(each)}
        health = {name: self.recorder.health_rank(name) for name in waiting}
        while waiting and not self._is_hop_limit_reached and not self.spec.stands_back:
            slot = await self._limiter.wait([each.provider for each in waiting.values()], self._redis_patience)
            if slot is None:
                break
            name = slot.provider.id
            attempt = await self._approach_busy(waiting.pop(name), slot, health)
            if attempt is not None:
                return attempt
        return None

    async def _try_last_resort(self) -> Attempt | None:
        resort = self.recourse.next_resort()
        while resort is not None:
            attempt = await self._ask_again(resort.candidate, resort)
            if attempt is not None:
                return attempt
            resort = self.recourse.next_resort()
        return None

    async def _await_loading(self) -> Attempt | None:
        """Ask a server again that loads its model, after a pause; None once its timeout has passed."""
        candidate = self.recourse.loading
        if candidate is None or self.spec.stands_back:
            return None
        left_s = self._began + candidate.provider.timeout_s - self.recorder.monotonic()
        if left_s <= self._loading_pause_s:
            return None
        await self.recorder.sleep(self._loading_pause_s)
        self._loading_pause_s = min(2 * self._loading_pause_s, self.recorder.timing.loading_poll_s[1])
        return await self._ask_again(candidate)

    async def _ask_again(self, candidate: Candidate, resort: LastResort | None = None) -> Attempt | None:
        """Return an attempt at a candidate where no other one is left, after its waits; None without a slot."""
        slot = await self._limiter.take(candidate.provider, self._redis_patience, self._preempt)
        if slot is None and not self.spec.stands_back:
            slot = await self._limiter.wait([candidate.provider], self._redis_patience)
        if slot is None:
            return None
        place: Place | None = None
        try:
            place = await self._gates[candidate.provider.id].enter(self._person)
        finally:
            if place is None:
                self._limiter.release(slot)
        return self._start(candidate, place, slot, resort) if place is not None else None

    async def _approach_busy(self, candidate: Candidate, slot: Slot, health: Mapping[str, float]) -> Attempt | None:
        """Return an attempt with a slot that was waited for; None where the provider fails and another is healthier."""
        name = candidate.provider.id
        attempt: Attempt | None = None
        place: Place | None = None
        try:
            place = await self._gates[name].enter(self._person)
            rank = self.recorder.health_rank
            is_worse = rank(name) > health[name]
            if place is not None and not (is_worse and any(rank(other) < rank(name) for other in self._busy)):
                self.is_reordered = self._busy.pop(name)[1]
                attempt = self._start(candidate, place, slot)
            return attempt
        finally:
            if attempt is None:
                self._limiter.release(slot)
                if place is not None:
                    place.leave()

    def _start(self, candidate: Candidate, place: Place, slot: Slot, resort: LastResort | None = None) -> Attempt:
        if self._lease is not None and self._lease[0] == candidate.provider.id:
            self._probes.note_asked(candidate.provider.id)
        self._current = Attempt(self, candidate, place, slot, resort)
        return self._current

    def _shed(self, candidate: Candidate) -> None:
        provider = candidate.provider.id
        log.info("provider.shed", provider=provider, purpose=self.spec.purpose)
        self.recorder.publish(Shed(provider))
        self._busy[provider] = (candidate, self.is_reordered)
        self.is_reordered = True

    def _release(self) -> None:
        if self._current is not None:
            self._current.place.leave()
            self._limiter.release(self._current.slot)
            self._current = None

    def _return_lease(self) -> None:
        if self._lease is not None:
            self._probes.give_back(*self._lease)
            self._lease = None

    def _is_too_small(self, candidate: Candidate) -> bool:
        """Return whether the candidate's window is known to be no larger than one that was too small."""
        if self._overflowed is None:
            return False
        known, window = self._known_window(self._overflowed), self._known_window(candidate)
        return known is not None and window is not None and window <= known

    def _known_window(self, candidate: Candidate) -> int | None:
        """Return the window that the server named, else the one that its model is known to have."""
        return self.recorder.adaptation(candidate).window or self._window(candidate)
