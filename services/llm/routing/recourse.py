"""Changes of one request that may help after a failure: without a capability, shorter, or with another model.

It also holds the evidence about unclear refusals. A refusal that no known words explain may be the fault of the request
or of the provider: another candidate is asked with the same request. If that one answers, the first was at fault and
cools down; if it refuses too, the request is at fault.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from services.llm.request import DEFAULT_MAX_TOKENS, Adaptation, Candidate, Capability, RequestSpec
from services.llm.routing.faults.outcomes import Outcome
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.faults.refusals import SMALLEST_WINDOW
from services.llm.routing.recorder import OutcomeRecorder

REFUSALS_FOR_A_VERDICT = 2
"""So many candidates that refuse the same request prove that the request is at fault."""
SHORTEST_SHARE = 4
"""A named window leads to no shorter limit than this part of it; no tokens are so much shorter than estimated."""
_SETTINGS = frozenset({Capability.SETTINGS})
TOOL_USE = frozenset({Capability.TOOLS, Capability.TOOL_CHOICE})


class RequestShape(Protocol):
    """The contents of a request, as far as a model may refuse them."""

    def uses(self) -> frozenset[Capability]:
        """Returns the capabilities that the request needs."""
        ...

    def has_earlier_turns(self) -> bool:
        """Returns whether something can be left out before the newest turn."""
        ...

    def smaller(self, current: Adaptation, outcome: Outcome) -> tuple[int, bool]:
        """Returns the limit of a smaller request, in estimated tokens, and whether the request can get smaller."""
        ...

    def size(self) -> tuple[int, int]:
        """Returns the estimated tokens of the request, 0 if unknown, and the limit of the answer."""
        ...


class Indivisible:
    """The shape of a request of which nothing can be left out."""

    def uses(self) -> frozenset[Capability]:
        """Returns no capabilities."""
        return frozenset()

    def has_earlier_turns(self) -> bool:
        """Returns False."""
        return False

    def smaller(self, current: Adaptation, outcome: Outcome) -> tuple[int, bool]:
        """Returns that nothing can be left out."""
        del current, outcome
        return 0, False

    def size(self) -> tuple[int, int]:
        """Returns the usual limit of an answer."""
        return 0, DEFAULT_MAX_TOKENS


@dataclass(frozen=True, slots=True)
class LastResort:
    """An attempt that is made after every candidate has failed.

    Args:
        learned: the capabilities that its answer proves to be refused.
        is_other_model: the request is unchanged, and asked of another model of the same provider.
    """

    candidate: Candidate
    adaptation: Adaptation
    learned: frozenset[Capability] = field(default_factory=frozenset[Capability])
    is_other_model: bool = False


class Recourse:
    """The changes that are left to one request after its failures, and the evidence of its answers about refusals.

    Args:
        fits: returns whether a candidate can take the request as it is.
    """

    def __init__(
        self, recorder: OutcomeRecorder, spec: RequestSpec, shape: RequestShape, fits: Callable[[Candidate], bool]
    ) -> None:
        self._recorder = recorder
        self._spec = spec
        self._shape = shape
        self._fits = fits
        self._unclear: list[tuple[Candidate, Outcome]] = []
        self._last_resorts: deque[LastResort] = deque()
        self._structured: set[tuple[str, str]] = set()
        """Candidates with an unclear refusal that may be about the structure of the answer."""
        self._loading: dict[tuple[str, str], Candidate] = {}

    @property
    def is_request_at_fault(self) -> bool:
        """True if as many candidates refused the request as a verdict takes."""
        suspected = {_key(candidate) for candidate, outcome in self._unclear if outcome.may_be_request}
        return len(suspected) >= REFUSALS_FOR_A_VERDICT

    @property
    def unclear(self) -> Sequence[tuple[Candidate, Outcome]]:
        """The candidates with an unsettled refusal."""
        return self._unclear

    @property
    def loading(self) -> Candidate | None:
        """The first candidate with a server that loads its model."""
        return next(iter(self._loading.values()), None)

    def judge(self, outcome: Outcome) -> Outcome:
        """Returns the outcome without a cooldown where the request itself may have caused it, as no chat would."""
        if outcome.is_late:
            is_proof = not self._spec.is_long
        else:
            is_about_contents = outcome.is_internal or outcome.fault in {Fault.UNCLEAR, Fault.UNREADABLE}
            is_proof = not (is_about_contents and self._spec.unusual)
        return outcome if is_proof or outcome.cooldown_s is None else replace(outcome, cooldown_s=None)

    def learn_refused(self, candidate: Candidate, capabilities: frozenset[Capability], *, is_guess: bool) -> None:
        """Remembers that a model refuses capabilities, as far as the request used them as a chat does.

        A guess from a request with unusual parts may be about any of them.
        """
        unusual = self._spec.unusual
        learned = capabilities - unusual
        if learned and not (is_guess and unusual):
            self._recorder.capabilities_refused(candidate, learned, is_guess=is_guess)

    def next_resort(self) -> LastResort | None:
        """Returns the next attempt after all candidates have failed; None if there is none."""
        while self._last_resorts:
            resort = self._last_resorts.popleft()
            # Settings that one server rejects another accepts, as does another model: if two refuse, it is the request.
            is_about_one = resort.learned == _SETTINGS or resort.is_other_model
            if not (is_about_one and self.is_request_at_fault):
                return resort
        return None

    def without_refused(self, candidate: Candidate, current: Adaptation, outcome: Outcome) -> Adaptation | None:
        """Returns the request without the capability that the model refuses; None if it cannot be left out.

        The refusal is remembered in any case, so that the next request is right at once.
        """
        capability = outcome.capability
        if capability is None or not self.can_be_meant(current, capability):
            return None
        self.learn_refused(candidate, frozenset({capability}), is_guess=False)
        if self._spec.requires(capability):
            return None
        return replace(current, without=current.without | {capability})

    def suspect(self, current: Adaptation, outcome: Outcome) -> Capability | None:
        """Returns the part of the request that the same candidate is asked without; None if there is none.

        A server that stumbles over the schema of a verdict may serve chats all the same. One that cannot read OGG/Opus
        says so in words of its own, or stumbles too.
        """
        for capability, is_suspect in (
            (Capability.STRUCTURED_OUTPUT, outcome.is_internal),
            (Capability.OPUS, outcome.is_internal or outcome.fault is Fault.UNCLEAR),
        ):
            if is_suspect and self.can_be_meant(current, capability) and not self._spec.requires(capability):
                return capability
        return None

    def can_be_meant(self, current: Adaptation, capability: Capability) -> bool:
        """Returns whether a request used a capability, so that a refusal of it makes sense."""
        return capability in self._shape.uses() and capability not in current.without

    def shortened(
        self, candidate: Candidate, current: Adaptation, outcome: Outcome, *, is_larger_left: bool
    ) -> Adaptation | None:
        """Returns a smaller request for the same model; None if nothing can be left out or a larger window is left.

        Args:
            is_larger_left: a candidate with a larger window comes next. The smaller request is a last resort then.
        """
        limit, is_smaller = self._shape.smaller(current, outcome)
        if is_smaller or outcome.window is not None:
            # A request that should have fitted into the named window was refused for more than its length, such as
            # the answer that it asks for: that must not cost later ones their history. Nor must a count that stays the
            # same however short the request gets.
            shortest = (outcome.window or SMALLEST_WINDOW) // SHORTEST_SHARE
            learned = max(limit, shortest // SHORTEST_SHARE if outcome.sent else shortest)
            if self._spec.is_whole:
                # Another program's text may be much denser than a conversation.
                learned = max(learned, (outcome.window or 0) // 2)
            self._recorder.length_learned(candidate, learned, outcome.window)
        if not is_smaller:
            return None
        smaller = replace(current, max_input=limit, window=outcome.window or current.window)
        if is_larger_left:
            self._last_resorts.append(LastResort(candidate, smaller))
            return None
        return smaller

    def note_failure(self, candidate: Candidate, current: Adaptation, outcome: Outcome) -> None:
        """Remembers a failure that leaves something to try."""
        key = _key(candidate)
        if outcome.fault is Fault.LOADING:
            self._loading.setdefault(key, candidate)
        else:
            self._loading.pop(key, None)
        if outcome.fault in {Fault.HICCUP, Fault.DOWN} and outcome.is_internal and not self._last_resorts:
            self._last_resorts.extend(self._without_tools(candidate, current))
        if outcome.fault is Fault.UNREADABLE and outcome.cooldown_s is not None and not self._last_resorts:
            self._last_resorts.extend(self._unstreamed(candidate, current))
        if outcome.fault is Fault.UNCLEAR and all(key != _key(other) for other, _ in self._unclear):
            if not self._unclear:
                self._last_resorts.extend(self._reductions(candidate, current))
                self._last_resorts.extend(self._other_model(candidate))
            self._unclear.append((candidate, outcome))
            if self.can_be_meant(current, Capability.STRUCTURED_OUTPUT):
                self._structured.add(key)

    def settle(
        self, candidate: Candidate, adaptation: Adaptation, resort: LastResort | None
    ) -> list[tuple[Candidate, Outcome]]:
        """Draws the conclusions from an answer; returns the candidates that were at fault for their refusal.

        One that was asked for a structure may serve chats all the same: it is asked in words next time, and does not
        cool down. An answer to a reduced request proves that the model refuses the part left out, and nothing about the
        others.
        """
        unclear, self._unclear = self._unclear, []
        self._last_resorts.clear()
        if resort is not None and not resort.is_other_model:
            if adaptation == resort.adaptation:
                # One that had to be changed further was refused for something else.
                self.learn_refused(candidate, resort.learned, is_guess=True)
            return []
        return [
            (other, replace(outcome, cooldown_s=self._blame(other)))
            for other, outcome in unclear
            if _key(other) != _key(candidate)
        ]

    def _blame(self, candidate: Candidate) -> float | None:
        """Returns the cooldown of a candidate that was at fault for its refusal."""
        if self._spec.unusual:
            return None
        if _key(candidate) not in self._structured:
            return self._recorder.limits.cooldown_s
        self.learn_refused(candidate, frozenset({Capability.STRUCTURED_OUTPUT}), is_guess=True)
        return None

    def take_unsettled(self) -> list[tuple[Candidate, Outcome]]:
        """Removes and returns the candidates with an unsettled refusal."""
        unclear, self._unclear = self._unclear, []
        return unclear

    def _reductions(self, candidate: Candidate, current: Adaptation) -> list[LastResort]:
        """Returns the requests that a lone candidate may take: without tools, settings, earlier turns."""
        optional = frozenset(
            each for each in self._shape.uses() if not self._spec.requires(each) and each not in current.without
        )
        reductions: list[LastResort] = []
        tools = optional & (TOOL_USE | {Capability.WEB_SEARCH})
        if tools:
            reductions.append(
                LastResort(candidate, replace(current, without=current.without | tools), tools & {Capability.TOOLS})
            )
        settings = optional & _SETTINGS
        if settings:
            reductions.append(LastResort(candidate, replace(current, without=current.without | settings), settings))
        rest = optional - tools - settings - {Capability.STREAMING}
        if rest or self._shape.has_earlier_turns():
            bare = replace(current, without=current.without | optional, is_newest_turn=self._shape.has_earlier_turns())
            reductions.append(LastResort(candidate, bare, rest & {Capability.SYSTEM_ROLE}))
        return reductions

    def _other_model(self, candidate: Candidate) -> list[LastResort]:
        """Returns the request to the provider's next listed model: its answer proves which model was at fault."""
        model = self.find_other_model(candidate, {candidate.model})
        if model is None:
            return []
        other = replace(candidate, model=model)
        return [LastResort(other, self._recorder.known_adaptation(other, self._spec), is_other_model=True)]

    def find_other_model(self, candidate: Candidate, tried: Collection[str]) -> str | None:
        """Returns the next listed model of a candidate's provider that may be asked; None if there is none.

        One that can take the request as it is comes before one that cannot see its pictures, for example.
        """
        provider = candidate.provider
        allowed = [
            model
            for model in provider.models
            if model not in tried
            and self._spec.allows(provider.id, model)
            and not self._recorder.is_resting(provider.id, model)
        ]
        return min(allowed, key=lambda model: not self._fits(replace(candidate, model=model)), default=None)

    def _unstreamed(self, candidate: Candidate, current: Adaptation) -> list[LastResort]:
        """Returns the request for an answer at once, from a server whose stream had none in it.

        Some send the head of a stream before they look at the request, and then can only break off: the refusal of a
        request that is too long has no other way to be read.
        """
        streaming = Capability.STREAMING
        if not self.can_be_meant(current, streaming) or self._spec.requires(streaming):
            return []
        unstreamed = replace(current, without=current.without | {streaming})
        return [LastResort(candidate, unstreamed, frozenset({streaming}))]

    def _without_tools(self, candidate: Candidate, current: Adaptation) -> list[LastResort]:
        """Returns the request without tools, for a server whose internal error they may cause.

        Its answer proves nothing: the error may have passed meanwhile.
        """
        tools = frozenset(
            each
            for each in self._shape.uses() & TOOL_USE
            if not self._spec.requires(each) and each not in current.without
        )
        return [LastResort(candidate, replace(current, without=current.without | tools))] if tools else []


def _key(candidate: Candidate) -> tuple[str, str]:
    return candidate.provider.id, candidate.model
