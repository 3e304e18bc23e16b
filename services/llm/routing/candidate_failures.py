"""The failures of one candidate: it is asked again, with a changed request or after a pause, or blamed.

Made with the first failure of an attempt.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

import structlog
from pydantic_ai.exceptions import ModelConnectionError

from core.clock import draw_pause_s
from core.errors import AnswerInterrupted, ContentRefused, ProviderError
from services.llm.request import Adaptation, Capability
from services.llm.routing.events import AttemptResult
from services.llm.routing.faults.outcomes import Outcome, classify
from services.llm.routing.faults.reasons import AnswerGivenUp, EmptyAnswer, provider_message
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.request_failures import RequestFailures
from services.llm.server_words import find_server_words, mask_quotes, mask_secrets
from services.llm.usage import NOTHING, RequestEnd, TokenUse

if TYPE_CHECKING:
    from services.llm.routing.attempts import Attempt

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


class CandidateFailures:
    """Handles the failures of one attempt.

    Args:
        attempt: asks the candidate.
        request: the failures of its request.
    """

    def __init__(self, attempt: "Attempt", request: RequestFailures) -> None:
        self._attempt = attempt
        self._request = request
        self._recorder = request.recorder
        self._recourse = request.recourse
        self._candidate = attempt.candidate
        self._purpose = request.spec.purpose
        self._retries_left = attempt.candidate.provider.retries
        self._adaptations_left = MAX_ADAPTATIONS
        self._suspect: _Suspect | None = None

    async def failed(self, error: Exception) -> None:
        """Records a failure before the first output; see `Attempt.failed`."""
        outcome = self._classify(error)
        adaptation = self._adapt(outcome)
        if adaptation is not None:
            self._ask_again(adaptation, outcome)
            return
        attempt = self._attempt
        if not outcome.try_next:
            attempt.report(RequestEnd.REFUSED if outcome.fault is Fault.REFUSED else RequestEnd.FAILED, NOTHING)
            raise self._surface(outcome, error)
        if outcome.fault is Fault.HICCUP and self._retries_left > 0 and await self._pause_before_retry(outcome):
            return
        self._suspect = self._find_suspect(outcome)
        if self._suspect is not None:
            without = attempt.adaptation.without | {self._suspect.capability}
            self._ask_again(replace(attempt.adaptation, without=without), outcome)
            return
        used = TokenUse(error.usage) if isinstance(error, EmptyAnswer | AnswerGivenUp) else NOTHING
        attempt.report(RequestEnd.FAILED, used, is_failure=outcome.cooldown_s is not None)
        attempt.end(AttemptResult.FAILED, outcome.fault)
        self._request.note(self._candidate, attempt.adaptation, outcome)
        self._blame(outcome, error)

    def broke_off(self, error: Exception, used: TokenUse) -> ProviderError | Exception:
        """Records a failure after the first output; see `Attempt.broke_off`."""
        outcome, attempt = self._read(error), self._attempt
        is_failure = outcome.fault not in {Fault.REFUSED, Fault.OURS}
        attempt.report(RequestEnd.INTERRUPTED, used, is_failure=is_failure)
        if not is_failure:
            return self._surface(outcome, error)
        attempt.end(AttemptResult.INTERRUPTED, outcome.fault)
        self._request.settle(self._candidate, attempt.adaptation, attempt.resort)
        cooled = self._recourse.judge(replace(outcome, cooldown_s=self._recorder.limits.cooldown_s))
        self._request.blame(self._candidate, cooled)
        return AnswerInterrupted(self._candidate.provider.id, outcome.reason)

    def learn_from_answer(self) -> None:
        """Remembers that the model refuses the part of the request without which it has answered."""
        if self._suspect is not None:
            refused = frozenset({self._suspect.capability})
            self._recourse.learn_refused(self._candidate, refused, is_guess=self._suspect.is_guess)

    def _adapt(self, outcome: Outcome) -> Adaptation | None:
        """Returns the request as this candidate may take it; None if another one is to be asked."""
        if self._adaptations_left == 0:
            return None
        recourse, candidate, current = self._recourse, self._candidate, self._attempt.adaptation
        match outcome.fault:
            case Fault.CAPABILITY:
                return recourse.without_refused(candidate, current, outcome)
            case Fault.CONTEXT_WINDOW:
                is_larger_left = self._request.is_larger_window_left(candidate, outcome.window)
                return recourse.shortened(candidate, current, outcome, is_larger_left=is_larger_left)
            case _:
                return None

    def _find_suspect(self, outcome: Outcome) -> _Suspect | None:
        """Returns the part of the request that may be the cause of a failure, and is left out of the next try.

        If that one is answered, the provider does not cool down.
        """
        capability = self._recourse.suspect(self._attempt.adaptation, outcome) if self._adaptations_left else None
        # An internal error may have passed meanwhile.
        return _Suspect(capability, is_guess=outcome.is_internal) if capability is not None else None

    def _ask_again(self, adaptation: Adaptation, outcome: Outcome) -> None:
        self._adaptations_left -= 1
        self._attempt.report(RequestEnd.FAILED, NOTHING)
        log.info(
            "provider.request_adapted",
            provider=self._candidate.provider.id,
            model=self._candidate.model,
            reason=outcome.reason,
            without=sorted(adaptation.without),
            max_input=adaptation.max_input,
            purpose=self._purpose,
        )
        self._attempt.adaptation = adaptation
        self._attempt.ask_again(outcome.fault)

    def _blame(self, outcome: Outcome, error: Exception) -> None:
        """Blames a failure on the provider, or on one of its models."""
        if outcome.fault is Fault.UNCLEAR:
            return
        of_model = self._request.is_pick(self._candidate)
        if of_model or outcome.is_of_one_model:
            is_reachable = not (isinstance(error, ModelConnectionError) and error.phase == "connect")
            has_another = is_reachable and self._request.queue_other_model(self._candidate)
            of_model = of_model or has_another
        self._request.record(self._candidate, outcome, of_model=of_model)

    async def _pause_before_retry(self, outcome: Outcome) -> bool:
        """Waits, and returns whether to ask the same candidate again.

        It is not asked again if another request has seen it fail meanwhile, unless it is the last candidate.
        """
        provider = self._candidate.provider.id
        self._retries_left -= 1
        self._attempt.state = AttemptState.PAUSED
        await self._recorder.clock.sleep(draw_pause_s(*self._recorder.timing.retry_pause_s))
        has_failed_since = self._recorder.health_rank(provider) > self._attempt.rank_when_asked
        if has_failed_since and self._attempt.has_candidates_left:
            self._attempt.state = AttemptState.IN_FLIGHT
            return False
        log.info("provider.retried", provider=provider, reason=outcome.reason, purpose=self._purpose)
        self._attempt.ask_again(outcome.fault)
        return True

    def _classify(self, error: Exception) -> Outcome:
        outcome = self._recourse.judge(self._read(error))
        current = self._attempt.adaptation
        if outcome.capability is Capability.TOOL_CHOICE and Capability.TOOL_CHOICE in current.without:
            # Without the choice it says the same: it means the tools.
            outcome = replace(outcome, capability=Capability.TOOLS)
        if outcome.capability is not None and not self._recourse.can_be_meant(current, outcome.capability):
            # The words mislead: the request has no such part, or it was left out already.
            return replace(outcome, fault=Fault.UNCLEAR, capability=None)
        return outcome

    def _read(self, error: Exception) -> Outcome:
        """Classifies an error, and adds the server's words except where they may quote the prompt."""
        key = self._candidate.provider.api_key
        outcome = classify(error, self._recorder.limits.cooldown_s, self._recorder.words)
        # Words about the key, the account or the model are no quote, at any status.
        is_about_account = outcome.fault in {Fault.MISCONFIGURED, Fault.MODEL_GONE, Fault.LOADING}
        # Operators need the words of an unclear refusal where another provider's answer proves this one's fault; that
        # of a capability becomes unclear where the request has none to leave out.
        is_wanted = is_about_account or outcome.fault in {Fault.UNCLEAR, Fault.CAPABILITY}
        words = find_server_words(error, key, is_own_prompt=is_wanted)
        if words is not None:
            # Any error may echo the request.
            words = mask_quotes(words, self._request.messages)
        # The reason holds a code of the server's, and some put the key there.
        reason = mask_secrets(outcome.reason, [key.get_secret_value()]) if key is not None else outcome.reason
        return replace(outcome, reason=reason, words=words)

    def _surface(self, outcome: Outcome, error: Exception) -> Exception:
        """Records that no other candidate is asked; returns the error that ends the request."""
        provider = self._candidate.provider
        log.info("provider.surfaced", provider=provider.id, fault=outcome.fault.value, reason=outcome.reason)
        self._attempt.end(AttemptResult.SURFACED, outcome.fault)
        if outcome.fault is not Fault.REFUSED:
            return error
        known = [provider.api_key.get_secret_value()] if provider.api_key is not None else []
        refusal = ContentRefused(provider.id, mask_secrets(provider_message(error) or "", known) or outcome.reason)
        refusal.__cause__ = error
        return refusal
