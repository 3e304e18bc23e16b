"""One request on its way from candidate to candidate, as far as it succeeds.

Failures are the matter of `candidate_failures.py` and `request_failures.py`, which a request without one never enters.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Self

import structlog
from pydantic_ai.messages import ModelMessage

from core.errors import ContentRefused, FailedAttempt, ProviderError
from core.redis.guard import RedisPatience
from services.llm.request import Candidate, RequestSpec
from services.llm.routing.admission.concurrency import SharedLimits
from services.llm.routing.admission.request_admission import (
    Admitted,
    CandidateQueue,
    RequestAdmission,
)
from services.llm.routing.candidate_failures import AttemptState, CandidateFailures
from services.llm.routing.events import AttemptEnded, AttemptResult
from services.llm.routing.faults.outcomes import Outcome
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.further_tries import FurtherTries
from services.llm.routing.recorder import OutcomeRecorder
from services.llm.routing.recourse import Indivisible, LastResort, RequestShape
from services.llm.routing.request_failures import RequestFailures
from services.llm.usage import RequestEnd, RequestReport, TokenUse, estimate_tokens, used_by_prompt

log = structlog.get_logger()


class Attempt:
    """One candidate that is asked, with its retries. Exactly one outcome is recorded.

    Args:
        request: the request that the attempt belongs to.
        admitted: the candidate; its place is held until the first output, over a retry too, its slot until the attempt
            has ended and the request moves on.
        resort: set where every candidate has failed before.
    """

    def __init__(self, request: "Attempts", admitted: Admitted, resort: LastResort | None = None) -> None:
        self.candidate = admitted.candidate
        self.slot = admitted.slot
        self.resort = resort
        self._place = admitted.place
        self._reservation = admitted.reservation
        self._request = request
        self._recorder = recorder = request.recorder
        self.adaptation = (
            recorder.known_adaptation(admitted.candidate, request.spec) if resort is None else resort.adaptation
        )
        """The changes with which the request is sent."""
        self.longest_stream_s = recorder.timing.longest_stream_s
        """Longest time of a streamed answer that keeps coming."""
        self.may_be_empty_at = request.spec.may_be_empty_at
        """Finish reasons after which an answer without text is the caller's own doing."""
        self._failures: CandidateFailures | None = None
        self._loop = asyncio.get_running_loop()
        self.rank_when_asked = recorder.health_rank(admitted.candidate.provider.id)
        self.begin()

    def begin(self) -> None:
        """Starts the clock of a request that is sent now."""
        self.state = AttemptState.IN_FLIGHT
        self._began = self._recorder.clock.time()
        self._asked_at = self._loop.time()

    @property
    def is_retry_due(self) -> bool:
        """True if the same candidate is to be asked once more."""
        return self.state is AttemptState.RETRY_DUE

    @property
    def has_candidates_left(self) -> bool:
        """True if another candidate could answer in place of this one."""
        return not self._request.queue.is_empty

    async def failed(self, error: Exception) -> None:
        """Records a failure before the first output; returns where another attempt may help.

        Raises:
            ContentRefused: the provider's filter refused.
            Exception: `error` itself, where it is a bug of ours.
        """
        await self._open_failures().failed(error)

    def broke_off(self, error: Exception, used: TokenUse) -> ProviderError | Exception:
        """Records a failure after the first output; returns the error to raise in place of `error`."""
        return self._open_failures().broke_off(error, used)

    def refused(self, reason: str, used: TokenUse) -> ContentRefused:
        """Records that the provider's filter ended the answer; returns the error to raise."""
        provider = self.candidate.provider.id
        self.report(RequestEnd.REFUSED, used)
        log.info("provider.refused", provider=provider, purpose=self._request.spec.purpose)
        self.end(AttemptResult.SURFACED, Fault.REFUSED)
        return ContentRefused(provider, reason)

    def opened(self) -> None:
        """Records the first output of a stream: the cooldown of a provider that was probed ends here."""
        self._place.leave()
        purpose = self._request.spec.purpose
        self._recorder.opened(self.candidate.provider, purpose, began=self._began, prefer=self._is_vote)

    def succeeded(self, first_output_s: float, used: TokenUse) -> None:
        """Records a complete answer."""
        if self.state is AttemptState.IN_FLIGHT:
            self._publish(AttemptResult.ANSWERED, first_output_s=first_output_s)
        self.report(RequestEnd.ANSWERED, used, first_output_s=first_output_s)
        self.state = AttemptState.ENDED
        if self._failures is not None:
            self._failures.learn_from_answer()
        self._request.note_answer(self)
        self._recorder.model_answered(self.candidate, self._began)
        self._recorder.succeeded(
            self.candidate.provider,
            self._request.spec.purpose,
            began=self._began,
            prefer=self._is_vote,
            first_output_s=first_output_s,
        )

    def malformed(self, reason: str, took_s: float, used: TokenUse) -> None:
        """Records a complete answer of the wrong shape: the provider is healthy, and the next candidate is asked."""
        provider, purpose = self.candidate.provider.id, self._request.spec.purpose
        log.info("provider.malformed_answer", provider=provider, reason=reason, purpose=purpose)
        self.succeeded(took_s, used)
        self._request.open_failures().note(self.candidate, self.adaptation, Outcome(Fault.UNREADABLE, reason))

    def release(self) -> None:
        """Gives back the place, and the part of the reservation that was not used."""
        self._place.leave()
        if self._reservation is not None:
            self._reservation.settle()
        # They refer back to this attempt, and a request leaves no object to the garbage collector.
        self._failures = None

    def skip(self) -> None:
        """Moves on to the next candidate without recording an outcome: this one was not asked, or it refused."""
        self.state = AttemptState.ENDED
        self._request.queue.is_reordered = True

    def cancel(self, used: Callable[[], TokenUse]) -> None:
        """Records that the consumer stopped reading: report usage, leave provider health unchanged.

        Args:
            used: computes the usage; not called if the outcome is already recorded.
        """
        if self.state is AttemptState.IN_FLIGHT:
            self._publish(AttemptResult.CANCELLED)
            self.report(RequestEnd.STOPPED, used())
        elif self.state is AttemptState.PAUSED:
            self._publish(AttemptResult.CANCELLED)
        self.state = AttemptState.ENDED

    def ask_again(self, fault: Fault) -> None:
        """Records a failure after which the same candidate is asked once more."""
        self._publish(AttemptResult.RETRIED, fault)
        self.state = AttemptState.RETRY_DUE

    def end(self, result: AttemptResult, fault: Fault) -> None:
        """Records the end of a failed attempt."""
        if self.state is AttemptState.IN_FLIGHT:
            self._publish(result, fault)
        self.state = AttemptState.ENDED

    def report(
        self, end: RequestEnd, used: TokenUse, *, is_failure: bool = False, first_output_s: float | None = None
    ) -> None:
        """Reports the usage of the request in flight, which is over."""
        if self.state is not AttemptState.IN_FLIGHT:
            return
        report = RequestReport(
            at=self._recorder.clock.time(),
            provider=self.candidate.provider,
            model=self.candidate.model,
            spec=self._request.spec,
            end=end,
            is_failure=is_failure,
            used=used,
            first_output_s=first_output_s,
        )
        self._recorder.count(report)
        if self._reservation is not None:
            self._reservation.add(report)

    @property
    def _is_vote(self) -> bool:
        """True if an answer may make the provider preferred."""
        is_first = self.candidate.by_order and not self._request.queue.is_reordered
        return is_first and self._recorder.leads(self.candidate.provider.id)

    def _open_failures(self) -> CandidateFailures:
        if self._failures is None:
            self._failures = CandidateFailures(self, self._request.open_failures())
        return self._failures

    def _publish(
        self, result: AttemptResult, fault: Fault | None = None, *, first_output_s: float | None = None
    ) -> None:
        provider, seconds = self.candidate.provider.id, self._loop.time() - self._asked_at
        purpose = self._request.spec.purpose
        self._recorder.publish(
            AttemptEnded(provider, self.candidate.model, purpose, result, fault, self._began, seconds, first_output_s)
        )


class Attempts:
    """The attempts of one request, as an asynchronous iterator: failover, retries, and the wait for busy providers.

    Record an outcome on each attempt and `close()` at the end in any case. An attempt without an outcome (a cancelled
    request) leaves provider health unchanged.

    A candidate at its concurrency limit is skipped. If no other one answers, the request waits for a slot.

    Args:
        window: returns the context window that a model is known to have.
    """

    def __init__(
        self,
        recorder: OutcomeRecorder,
        limits: SharedLimits,
        queue: CandidateQueue,
        spec: RequestSpec,
        messages: Sequence[ModelMessage],
        window: Callable[[Candidate], int | None],
        shape: RequestShape | None,
        redis_patience: RedisPatience,
    ) -> None:
        self.recorder = recorder
        self.spec = spec
        self.queue = queue
        self._messages = messages
        self._window = window
        self._shape = shape or Indivisible()
        # No method of this object, which would keep the objects of a request alive until a garbage collection.
        size = partial(_size, self._shape, messages)
        self._admission = RequestAdmission(limits, queue, recorder, spec, size, redis_patience)
        self._began = recorder.clock.monotonic()
        self._current: Attempt | None = None
        self._failures: RequestFailures | None = None
        self._further: FurtherTries | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Attempt:
        """Returns the next attempt: a due retry, else the next candidate, else a busy one once it has a slot."""
        if self._current is not None and self._current.is_retry_due:
            self._current.begin()
            self._current.slot.extend()
            return self._current
        self._release()
        self._admission.return_lease()
        if self._is_hop_limit_reached:
            self.queue.keep_demo()
        while candidate := self.queue.pop():
            admitted = await self._admission.approach(candidate)
            if admitted is not None:
                return self._start(admitted)
        if self._further is None:
            self._further = FurtherTries(self._admission, self.open_failures(), self._began)
        found = await self._further.find(waits_for_busy=not self._is_hop_limit_reached)
        if found is None:
            raise StopAsyncIteration
        return self._start(*found)

    @property
    def _is_hop_limit_reached(self) -> bool:
        if self._failures is None:
            return False
        # A request that probes for all replicas gets a second candidate in case the probe fails.
        most = max(self.recorder.limits.max_hops, 2 if self._admission.has_probed else 0)
        return len(self._failures.providers) >= most

    @property
    def failures(self) -> tuple[FailedAttempt, ...]:
        """The failed attempts, in order."""
        return () if self._failures is None else self._failures.attempts

    def open_failures(self) -> RequestFailures:
        """Returns the failures of this request; their object is made with the first one."""
        if self._failures is None:
            self._failures = RequestFailures(
                self.recorder, self.spec, self._messages, self.queue, self._shape, self._window
            )
        return self._failures

    def note_answer(self, attempt: Attempt) -> None:
        """Releases the slot, and keeps the user with this provider if it stepped in for a busy one."""
        self._release()
        if self._failures is not None:
            self._failures.settle(attempt.candidate, attempt.adaptation, attempt.resort)
        before = takewhile(lambda candidate: candidate is not attempt.candidate, self.queue.candidates)
        if self.spec.user is not None and any(candidate.provider.id in self.queue.busy for candidate in before):
            self.recorder.keep_user(self.spec.user, attempt.candidate.provider.id)

    def exhausted(self) -> ProviderError:
        """Returns the error of a request that no candidate answered."""
        return self.open_failures().exhausted()

    def close(self) -> None:
        """Cancels an attempt that is still in flight, and gives back its slot and a probe's lease."""
        if self._current is not None:
            self._current.cancel(lambda: used_by_prompt(self._messages))
        if self._failures is not None:
            self._failures.record_unsettled()
        self._release()
        self._admission.return_lease()

    def _start(self, admitted: Admitted, resort: LastResort | None = None) -> Attempt:
        self._current = Attempt(self, admitted, resort)
        return self._current

    def _release(self) -> None:
        if self._current is not None:
            self._current.release()
            self._current.slot.release()
            self._current = None


def _size(shape: RequestShape, messages: Sequence[ModelMessage]) -> tuple[int, int]:
    """Returns the estimated tokens of a request and the limit of its answer."""
    sent, limit = shape.size()
    return sent or estimate_tokens(messages), limit
