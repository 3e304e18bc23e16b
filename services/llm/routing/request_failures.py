"""The failures of one request: the candidates that are blamed for them, those that are left, and the error in the end.

Made with the first failure of a request, or where no candidate could be asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

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
from services.llm.request import Adaptation, Candidate, RequestSpec
from services.llm.routing.admission.request_admission import CandidateQueue
from services.llm.routing.faults.outcomes import Outcome
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.recorder import OutcomeRecorder
from services.llm.routing.recourse import LastResort, Recourse, RequestShape

log = structlog.get_logger()

BUSY = "busy"
"""The reason of a candidate that was not asked because its concurrency limit was reached."""
OVER_BUDGET = "over budget"
"""The reason of a candidate that was not asked because a budget is used up."""

MODELS_IN_A_ROW = 2
"""Models of one provider that fail before others are asked: a proxy that is down may name each of a long list."""


@dataclass(frozen=True, slots=True)
class _Windows:
    """The context windows of the candidates, as far as they are known.

    Args:
        window: returns the window that a model is known to have.
    """

    recorder: OutcomeRecorder
    window: Callable[[Candidate], int | None]

    def find(self, candidate: Candidate) -> int | None:
        """Returns the window that the server named, else the one that its model is known to have."""
        return self.recorder.adaptation(candidate).window or self.window(candidate)

    def is_no_larger(self, overflowed: Candidate, candidate: Candidate) -> bool:
        """Returns whether the candidate's window is known to be no larger than one that was too small."""
        known, window = self.find(overflowed), self.find(candidate)
        return known is not None and window is not None and window <= known


class RequestFailures:
    """The failed attempts of one request, and the evidence that they give.

    Args:
        window: returns the context window that a model is known to have.
    """

    def __init__(
        self,
        recorder: OutcomeRecorder,
        spec: RequestSpec,
        messages: Sequence[ModelMessage],
        queue: CandidateQueue,
        shape: RequestShape,
        window: Callable[[Candidate], int | None],
    ) -> None:
        self.recorder = recorder
        self.spec = spec
        self.messages = messages
        self.queue = queue
        self.recourse = Recourse(recorder, spec, shape, queue.fits)
        self._windows = _Windows(recorder, window)
        self._failed: list[tuple[FailedAttempt, Fault]] = []
        self._is_provider_at_fault = False

    @property
    def attempts(self) -> tuple[FailedAttempt, ...]:
        """The failed attempts, in order."""
        return tuple(attempt for attempt, _ in self._failed)

    @property
    def providers(self) -> frozenset[str]:
        """The providers that failed; the models of one provider count as one."""
        return frozenset(attempt.provider for attempt, _ in self._failed)

    def note(self, candidate: Candidate, adaptation: Adaptation, outcome: Outcome) -> None:
        """Adds a failed attempt; one that is not the provider's fault lets no other provider become preferred.

        An unclear refusal does not decide that yet: another candidate's answer makes it the provider's fault.
        """
        is_unclear = outcome.fault is Fault.UNCLEAR
        is_its_fault = outcome.cooldown_s is not None or (is_unclear and not outcome.may_be_request)
        self._is_provider_at_fault = self._is_provider_at_fault or is_its_fault
        self.queue.is_reordered = self.queue.is_reordered or (outcome.cooldown_s is None and not is_unclear)
        if outcome.fault is Fault.CONTEXT_WINDOW:
            self.queue.is_too_small = partial(self._windows.is_no_larger, candidate)
        failure = FailedAttempt(candidate.provider.id, candidate.model, outcome.reason)
        if (failure, outcome.fault) not in self._failed:
            self._failed.append((failure, outcome.fault))
        self.recourse.note_failure(candidate, adaptation, outcome)
        if is_unclear and self.recourse.is_request_at_fault:
            # Nothing is left to find out: every further candidate would refuse too.
            self.queue.clear()

    def is_larger_window_left(self, candidate: Candidate, named: int | None) -> bool:
        """Returns whether a candidate that was not asked is known to have a larger window.

        Args:
            named: the window of the candidate that failed, where its server named it.
        """
        window = named or self._windows.find(candidate)
        return window is not None and any((self._windows.find(other) or 0) > window for other in self.queue.left)

    def settle(self, answered: Candidate, adaptation: Adaptation, resort: LastResort | None) -> None:
        """Blames the candidates with an unclear refusal that an answer has proved wrong."""
        for candidate, blamed in self.recourse.settle(answered, adaptation, resort):
            is_same_provider = candidate.provider.id == answered.provider.id
            self.blame(candidate, replace(blamed, is_of_one_model=blamed.is_of_one_model or is_same_provider))

    def record_unsettled(self) -> None:
        """Records the unclear refusals that no answer has settled, of a request that is over."""
        for candidate, outcome in self.recourse.take_unsettled():
            self.recorder.failed(candidate.provider, outcome, self.spec.purpose)

    def blame(self, candidate: Candidate, outcome: Outcome) -> None:
        """Records a failure of a provider; of one model, where the user picked it or where others may answer."""
        has_another = outcome.is_of_one_model and self.recourse.find_other_model(candidate, {candidate.model})
        self.record(candidate, outcome, of_model=self.is_pick(candidate) or bool(has_another))

    def record(self, candidate: Candidate, outcome: Outcome, *, of_model: bool) -> None:
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

    def exhausted(self) -> ProviderError:
        """Returns the error of a request that no candidate answered."""
        rejected = self._rejection()
        if rejected is not None and self.recourse.is_request_at_fault:
            return rejected
        if self.queue.is_withheld:
            return ConsentNeeded()
        if rejected is not None:
            return rejected
        if any(fault is Fault.CONTEXT_WINDOW for _, fault in self._failed):
            return ContextWindowExceeded(self.attempts)
        unpaid = self.queue.unpaid
        attempts = (
            *self.attempts,
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
        unclear = [(candidate, outcome) for candidate, outcome in self.recourse.unclear if outcome.may_be_request]
        if not unclear or not (
            self.recourse.is_request_at_fault or all(fault is Fault.UNCLEAR for _, fault in self._failed)
        ):
            return None
        candidate, outcome = unclear[0]
        log.warning(
            "provider.request_rejected",
            purpose=self.spec.purpose,
            attempts=[{"provider": failed.provider, "reason": failed.reason} for failed in self.attempts],
        )
        return RequestRejected(candidate.provider.id, outcome.reason)
