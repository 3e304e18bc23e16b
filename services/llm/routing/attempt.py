"""One candidate that is asked: its state, its changes and retries, and the record of its outcome."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

import structlog
from pydantic_ai.exceptions import ModelConnectionError

from core.clock import draw_pause_s
from core.errors import AnswerInterrupted, ContentRefused, ProviderError
from services.llm.request import Adaptation, Capability
from services.llm.routing.admission.request_admission import Admitted
from services.llm.routing.events import AttemptEnded, AttemptResult
from services.llm.routing.faults.failures import read_failure, to_surfaced
from services.llm.routing.faults.outcomes import Outcome
from services.llm.routing.faults.reasons import AnswerGivenUp, EmptyAnswer
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.recourse import LastResort
from services.llm.usage import NOTHING, RequestEnd, RequestReport, TokenUse

if TYPE_CHECKING:
    from services.llm.routing.attempts import Attempts

log = structlog.get_logger()

MAX_ADAPTATIONS = 12
"""Changes of a request for one candidate: six capabilities, and halvings of its length."""


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


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A part of the request that was left out, and whether an answer without it proves that only as a guess."""

    capability: Capability
    is_guess: bool


class Attempt:
    """One candidate that is asked, with its retry after a hiccup. Exactly one outcome is recorded.

    Args:
        request: the request that the attempt belongs to.
        admitted: the candidate; its place is held until the first output, over a retry too, its slot until the attempt
            has ended and the request moves on.
        resort: set where every candidate has failed before.
    """

    def __init__(self, request: "Attempts", admitted: Admitted, resort: LastResort | None = None) -> None:
        candidate = self.candidate = admitted.candidate
        self.slot = admitted.slot
        self.resort = resort
        self._place = admitted.place
        self._reservation = admitted.reservation
        self.adaptation = request.recourse.known_adaptation(candidate) if resort is None else resort.adaptation
        """The changes with which the request is sent."""
        self._adaptations_left = MAX_ADAPTATIONS
        self._suspect: _Suspect | None = None
        self._request = request
        self._recorder = request.recorder
        self._purpose = request.spec.purpose
        self._loop = asyncio.get_running_loop()
        self._retries_left = candidate.provider.retries
        self._rank_when_asked = self._recorder.health_rank(candidate.provider.id)
        self.begin()

    def begin(self) -> None:
        """Starts the clock of a request that is sent now."""
        self._state = AttemptState.IN_FLIGHT
        self._began = self._recorder.clock.time()
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
    def may_be_empty_at(self) -> frozenset[str]:
        """Finish reasons after which an answer without text is the caller's own doing."""
        return self._request.spec.may_be_empty_at

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
        self._suspect = self._find_suspect(outcome)
        if self._suspect is not None:
            self._ask_again(
                replace(self.adaptation, without=self.adaptation.without | {self._suspect.capability}), outcome
            )
            return
        used = TokenUse(error.usage) if isinstance(error, EmptyAnswer | AnswerGivenUp) else NOTHING
        self._report(RequestEnd.FAILED, used, is_failure=outcome.cooldown_s is not None)
        self._end(AttemptResult.FAILED, outcome.fault)
        self._request.note_failure(self, outcome)
        self._blame(outcome, error)

    def _adapt(self, outcome: Outcome) -> Adaptation | None:
        """Returns the request as this candidate may take it; None if another one is to be asked."""
        if self._adaptations_left == 0:
            return None
        recourse, candidate = self._request.recourse, self.candidate
        match outcome.fault:
            case Fault.CAPABILITY:
                return recourse.without_refused(candidate, self.adaptation, outcome)
            case Fault.CONTEXT_WINDOW:
                is_larger_left = self._request.queue.is_larger_window_left(candidate, outcome.window)
                return recourse.shortened(candidate, self.adaptation, outcome, is_larger_left=is_larger_left)
            case _:
                return None

    def _find_suspect(self, outcome: Outcome) -> _Suspect | None:
        """Returns the part of the request that may be the cause of a failure, and is left out of the next try.

        If that one is answered, the provider does not cool down.
        """
        capability = self._request.recourse.suspect(self.adaptation, outcome) if self._adaptations_left else None
        # An internal error may have passed meanwhile.
        return _Suspect(capability, is_guess=outcome.is_internal) if capability is not None else None

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
        """Blames a failure on the provider, or on one of its models."""
        if outcome.fault is Fault.UNCLEAR:
            return
        candidate = self.candidate
        of_model = self._request.is_pick(candidate)
        if of_model or outcome.is_of_one_model:
            is_reachable = not (isinstance(error, ModelConnectionError) and error.phase == "connect")
            has_another = is_reachable and self._request.queue_other_model(candidate)
            of_model = of_model or has_another
        self._request.record_failure(candidate, outcome, of_model=of_model)

    async def _pause_before_retry(self, outcome: Outcome) -> bool:
        """Waits, and returns whether to ask the same candidate again.

        It is not asked again if another request has seen it fail meanwhile, unless it is the last candidate.
        """
        provider = self.candidate.provider.id
        self._retries_left -= 1
        self._state = AttemptState.PAUSED
        await self._recorder.clock.sleep(draw_pause_s(*self._recorder.timing.retry_pause_s))
        if self._recorder.health_rank(provider) > self._rank_when_asked and self.has_candidates_left:
            self._state = AttemptState.IN_FLIGHT
            return False
        log.info("provider.retried", provider=provider, reason=outcome.reason, purpose=self._purpose)
        self._publish(AttemptResult.RETRIED, outcome.fault)
        self._state = AttemptState.RETRY_DUE
        return True

    def broke_off(self, error: Exception, used: TokenUse) -> ProviderError | Exception:
        """Records a failure after the first output; returns the error to raise in place of `error`."""
        outcome = self._read(error)
        is_failure = outcome.fault not in {Fault.REFUSED, Fault.OURS}
        self._report(RequestEnd.INTERRUPTED, used, is_failure=is_failure)
        if not is_failure:
            return self._surface(outcome, error)
        self._end(AttemptResult.INTERRUPTED, outcome.fault)
        self._request.settle_evidence(self)
        provider = self.candidate.provider
        cooled = self._request.recourse.judge(replace(outcome, cooldown_s=self._recorder.limits.cooldown_s))
        self._request.blame(self.candidate, cooled)
        return AnswerInterrupted(provider.id, outcome.reason)

    def refused(self, reason: str, used: TokenUse) -> ContentRefused:
        """Records that the provider's filter ended the answer; returns the error to raise."""
        provider = self.candidate.provider.id
        self._report(RequestEnd.REFUSED, used)
        log.info("provider.refused", provider=provider, purpose=self._purpose)
        self._end(AttemptResult.SURFACED, Fault.REFUSED)
        return ContentRefused(provider, reason)

    def opened(self) -> None:
        """Records the first output of a stream: the cooldown of a provider that was probed ends here."""
        self._place.leave()
        self._recorder.opened(self.candidate.provider, self._purpose, began=self._began, prefer=self._is_vote)

    def succeeded(self, first_output_s: float, used: TokenUse) -> None:
        """Records a complete answer."""
        provider = self.candidate.provider
        if self._state is AttemptState.IN_FLIGHT:
            self._publish(AttemptResult.ANSWERED, first_output_s=first_output_s)
        self._report(RequestEnd.ANSWERED, used, first_output_s=first_output_s)
        self._state = AttemptState.ENDED
        if self._suspect is not None:
            refused = frozenset({self._suspect.capability})
            self._request.recourse.learn_refused(self.candidate, refused, is_guess=self._suspect.is_guess)
        self._request.note_answer(self)
        self._recorder.model_answered(self.candidate, self._began)
        self._recorder.succeeded(
            provider, self._purpose, began=self._began, prefer=self._is_vote, first_output_s=first_output_s
        )

    def malformed(self, reason: str, took_s: float, used: TokenUse) -> None:
        """Records a complete answer of the wrong shape: the provider is healthy, and the next candidate is asked."""
        provider = self.candidate.provider.id
        log.info("provider.malformed_answer", provider=provider, reason=reason, purpose=self._purpose)
        self.succeeded(took_s, used)
        self._request.note_failure(self, Outcome(Fault.UNREADABLE, reason))

    def release(self) -> None:
        """Gives back the place, and the part of the reservation that was not used."""
        self._place.leave()
        if self._reservation is not None:
            self._reservation.settle()

    def skip(self) -> None:
        """Moves on to the next candidate without recording an outcome: this one was not asked, or it refused."""
        self._state = AttemptState.ENDED
        self._request.queue.is_reordered = True

    def cancel(self, used: Callable[[], TokenUse]) -> None:
        """Records that the consumer stopped reading: report usage, leave provider health unchanged.

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
        is_first = self.candidate.by_order and not self._request.queue.is_reordered
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

    def _report(
        self, end: RequestEnd, used: TokenUse, *, is_failure: bool = False, first_output_s: float | None = None
    ) -> None:
        if self._state is not AttemptState.IN_FLIGHT:
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

    def _classify(self, error: Exception) -> Outcome:
        outcome = self._request.recourse.judge(self._read(error))
        if outcome.capability is Capability.TOOL_CHOICE and Capability.TOOL_CHOICE in self.adaptation.without:
            # Without the choice it says the same: it means the tools.
            outcome = replace(outcome, capability=Capability.TOOLS)
        if outcome.capability is not None and not self._request.recourse.can_be_meant(
            self.adaptation, outcome.capability
        ):
            # The words mislead: the request has no such part, or it was left out already.
            return replace(outcome, fault=Fault.UNCLEAR, capability=None)
        return outcome

    def _read(self, error: Exception) -> Outcome:
        key, cooldown_s = self.candidate.provider.api_key, self._recorder.limits.cooldown_s
        return read_failure(error, cooldown_s, self._recorder.words, key, self._request.messages)

    def _surface(self, outcome: Outcome, error: Exception) -> Exception:
        provider = self.candidate.provider
        log.info("provider.surfaced", provider=provider.id, fault=outcome.fault.value, reason=outcome.reason)
        self._end(AttemptResult.SURFACED, outcome.fault)
        return to_surfaced(error, outcome, provider)
