"""One request on its way from candidate to candidate: failover, retries, and the evidence that their answers give."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import Self

import structlog
from pydantic_ai.messages import ModelMessage

from core.errors import (
    AllProvidersFailed,
    BudgetExhausted,
    ConsentNeeded,
    ContextWindowExceeded,
    FailedAttempt,
    ProviderError,
    RequestRejected,
)
from core.redis.guard import RedisPatience
from services.llm.request import Candidate, RequestSpec
from services.llm.routing.admission.candidate_queue import CandidateQueue, Route
from services.llm.routing.admission.request_admission import Admitted, CandidateAdmission, RequestAdmission
from services.llm.routing.attempt import Attempt
from services.llm.routing.faults.outcomes import Outcome
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.recorder import OutcomeRecorder
from services.llm.routing.recourse import Indivisible, LastResort, Recourse, RequestShape
from services.llm.usage import estimate_tokens, used_by_prompt

log = structlog.get_logger()

BUSY = "busy"
"""The reason of a candidate that was not asked because its concurrency limit was reached."""
OVER_BUDGET = "over budget"
"""The reason of a candidate that was not asked because a budget is used up."""

MODELS_IN_A_ROW = 2
"""Models of one provider that fail before others are asked: a proxy that is down may name each of a long list."""


class Attempts:
    """The attempts of one request, as an asynchronous iterator: failover, retries, and the wait for busy providers.

    Record an outcome on each attempt and `close()` at the end in any case. An attempt without an outcome (a cancelled
    request) leaves provider health unchanged.

    A candidate at its concurrency limit is skipped. If no other one answers, the request waits for a slot.
    """

    def __init__(
        self,
        recorder: OutcomeRecorder,
        admission: CandidateAdmission,
        route: Route,
        spec: RequestSpec,
        messages: Sequence[ModelMessage],
        window: Callable[[Candidate], int | None],
        shape: RequestShape | None = None,
        redis_patience: RedisPatience | None = None,
    ) -> None:
        self.recorder = recorder
        self.spec = spec
        self.messages = messages
        self.candidates = route.candidates
        self._shape = shape or Indivisible()
        self.recourse = Recourse(recorder, spec, self._shape)
        self.queue = CandidateQueue(recorder, route, window)
        # No method of this object, which would keep the objects of a request alive until a garbage collection.
        size = partial(_size, self._shape, messages)
        self._admission = RequestAdmission(
            admission,
            self.queue,
            recorder,
            spec,
            size,
            redis_patience or RedisPatience(),
        )
        self._is_withheld = route.is_withheld
        self._began = recorder.clock.monotonic()
        self._loading_pause_s = recorder.timing.loading_poll_s[0]
        self._current: Attempt | None = None
        self._failed: list[tuple[FailedAttempt, Fault]] = []
        self._is_provider_at_fault = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Attempt:
        """Returns the next attempt: a due retry, else the next candidate, else a busy one once it has a slot."""
        if self._current is not None and self._current.is_retry_due:
            self._current.begin()
            self._admission.extend(self._current.slot)
            return self._current
        self._release()
        self._admission.return_lease()
        if self._is_hop_limit_reached:
            self.queue.keep_demo()
        while candidate := self.queue.pop():
            admitted = await self._admission.approach(candidate)
            if admitted is not None:
                return self._start(admitted)
        for further in (self._wait_for_busy, self._try_last_resort, self._await_loading):
            attempt = await further()
            if attempt is not None:
                return attempt
        raise StopAsyncIteration

    @property
    def _is_hop_limit_reached(self) -> bool:
        # A request that probes for all replicas gets a second candidate in case the probe fails.
        most = max(self.recorder.limits.max_hops, 2 if self._admission.has_probed else 0)
        # By provider: the models of one provider count as one.
        return len({attempt.provider for attempt, _ in self._failed}) >= most

    @property
    def failures(self) -> tuple[FailedAttempt, ...]:
        """The failed attempts, in order."""
        return tuple(attempt for attempt, _ in self._failed)

    def note_failure(self, attempt: Attempt, outcome: Outcome) -> None:
        """Adds a failed attempt; one that is not the provider's fault lets no other provider become preferred.

        An unclear refusal does not decide that yet: another candidate's answer makes it the provider's fault.
        """
        candidate = attempt.candidate
        is_unclear = outcome.fault is Fault.UNCLEAR
        self._is_provider_at_fault = self._is_provider_at_fault or outcome.cooldown_s is not None
        self.queue.is_reordered = self.queue.is_reordered or (outcome.cooldown_s is None and not is_unclear)
        if outcome.fault is Fault.CONTEXT_WINDOW:
            self.queue.overflowed = candidate
        failure = FailedAttempt(candidate.provider.id, candidate.model, outcome.reason)
        if (failure, outcome.fault) not in self._failed:
            self._failed.append((failure, outcome.fault))
        self.recourse.note_failure(candidate, attempt.adaptation, outcome)
        if is_unclear and self.recourse.is_request_at_fault:
            # Nothing is left to find out: every further candidate would refuse too.
            self.queue.clear()

    def settle_evidence(self, attempt: Attempt) -> None:
        """Blames the candidates with an unclear refusal that an answer has proved wrong."""
        for candidate, blamed in self.recourse.settle(attempt.candidate, attempt.adaptation, attempt.resort):
            is_same_provider = candidate.provider.id == attempt.candidate.provider.id
            self.blame(candidate, replace(blamed, is_of_one_model=blamed.is_of_one_model or is_same_provider))

    def blame(self, candidate: Candidate, outcome: Outcome) -> None:
        """Records a failure of a provider; of one model, where the user picked it or where others may answer."""
        has_another = outcome.is_of_one_model and self.recourse.find_other_model(candidate, {candidate.model})
        self.record_failure(candidate, outcome, of_model=self.is_pick(candidate) or bool(has_another))

    def record_failure(self, candidate: Candidate, outcome: Outcome, *, of_model: bool) -> None:
        """Records a failure of one model, which rests alone, or of its provider."""
        if of_model:
            is_listed = candidate.model in candidate.provider.models
            self.recorder.model_failed(candidate, outcome, self.spec.purpose, is_listed=is_listed)
        else:
            self.recorder.failed(candidate.provider, outcome, self.spec.purpose)

    def is_pick(self, candidate: Candidate) -> bool:
        """Returns whether the user picked this model, and it is not its provider's default."""
        choice = self.spec.choice
        return (
            choice is not None
            and choice.model is not None
            and (choice.provider, choice.model) == (candidate.provider.id, candidate.model)
            and choice.model != candidate.provider.default_model
        )

    def queue_other_model(self, candidate: Candidate) -> bool:
        """Asks the provider's next listed model, before other providers that fit as well or after them.

        Returns False if there is none.
        """
        tried = {attempt.model for attempt, _ in self._failed if attempt.provider == candidate.provider.id}
        model = self.recourse.find_other_model(candidate, tried)
        if model is not None:
            self.queue.put_back(replace(candidate, model=model), is_first=len(tried) < MODELS_IN_A_ROW)
        return model is not None

    def note_answer(self, attempt: Attempt) -> None:
        """Releases the slot, and keeps the user with this provider if it stepped in for a busy one."""
        self._release()
        self.settle_evidence(attempt)
        before = takewhile(lambda candidate: candidate is not attempt.candidate, self.candidates)
        if self.spec.user is not None and any(candidate.provider.id in self.queue.busy for candidate in before):
            self.recorder.keep_user(self.spec.user, attempt.candidate.provider.id)

    def exhausted(self) -> ProviderError:
        """Returns the error of a request that no candidate answered."""
        rejected = self._rejection()
        if rejected is not None and self.recourse.is_request_at_fault:
            return rejected
        if self._is_withheld:
            return ConsentNeeded()
        if rejected is not None:
            return rejected
        if any(fault is Fault.CONTEXT_WINDOW for _, fault in self._failed):
            return ContextWindowExceeded(self.failures)
        unpaid = self.queue.unpaid
        attempts = (
            *self.failures,
            *(FailedAttempt(name, candidate.model, BUSY) for name, (candidate, _) in self.queue.busy.items()),
            *(FailedAttempt(name, candidate.model, OVER_BUDGET) for name, (candidate, _) in unpaid.items()),
        )
        if unpaid and not self._failed and not self.queue.busy:
            _, refusal = next(iter(unpaid.values()))
            log.info("provider.budget_exhausted", purpose=self.spec.purpose, budget=refusal.kind)
            return BudgetExhausted(refusal.kind, refusal.renews_at)
        # A provider that is busy has not failed; background work gives way to people's requests, again and again.
        write = log.error if self._failed else log.debug if self.spec.stands_back else log.info
        write(
            "provider.all_failed",
            purpose=self.spec.purpose,
            attempts=[{"provider": attempt.provider, "reason": attempt.reason} for attempt in attempts],
        )
        # Operators are notified only of an outage: not where healthy providers were busy or answered in the wrong
        # shape, nor where the request names its models, so that others were not asked.
        if self._is_provider_at_fault and not self.spec.is_restricted:
            self.recorder.all_failed(attempts)
        return AllProvidersFailed(attempts)

    def _rejection(self) -> RequestRejected | None:
        """Returns the error of a request that is at fault: every candidate that was asked refused it."""
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
        """Cancels an attempt that is still in flight, and gives back its slot and a probe's lease."""
        if self._current is not None:
            self._current.cancel(lambda: used_by_prompt(self.messages))
        for candidate, outcome in self.recourse.take_unsettled():
            self.recorder.failed(candidate.provider, outcome, self.spec.purpose)
        self._release()
        self._admission.return_lease()

    async def _wait_for_busy(self) -> Attempt | None:
        """Returns an attempt at a candidate that was busy, or over a budget that requests in flight hold."""
        if self._is_hop_limit_reached:
            return None
        admitted = await self._admission.wait_for_slot() or await self._admission.wait_for_budget()
        return self._start(admitted) if admitted is not None else None

    async def _try_last_resort(self) -> Attempt | None:
        while resort := self.recourse.next_resort():
            admitted = await self._admission.approach_again(resort.candidate)
            if admitted is not None:
                return self._start(admitted, resort)
        return None

    async def _await_loading(self) -> Attempt | None:
        """Asks a server again that loads its model, after a pause; None once its timeout has passed.

        A request that was found to be at fault would be refused by that server as well.
        """
        candidate = self.recourse.loading
        if candidate is None or self.spec.stands_back or self.recourse.is_request_at_fault:
            return None
        left_s = self._began + candidate.provider.timeout_s - self.recorder.clock.monotonic()
        if left_s <= self._loading_pause_s:
            return None
        await self.recorder.clock.sleep(self._loading_pause_s)
        self._loading_pause_s = min(2 * self._loading_pause_s, self.recorder.timing.loading_poll_s[1])
        admitted = await self._admission.approach_again(candidate)
        return self._start(admitted) if admitted is not None else None

    def _start(self, admitted: Admitted, resort: LastResort | None = None) -> Attempt:
        self._current = Attempt(self, admitted, resort)
        return self._current

    def _release(self) -> None:
        if self._current is not None:
            self._current.release()
            self._admission.release(self._current.slot)
            self._current = None


def _size(shape: RequestShape, messages: Sequence[ModelMessage]) -> tuple[int, int]:
    """Returns the estimated tokens of a request and the limit of its answer."""
    sent, limit = shape.size()
    return sent or estimate_tokens(messages), limit
