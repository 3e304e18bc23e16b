"""The provider fallback service: who is asked next, and what each outcome changes."""

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from core.clock import Clock
from core.errors import (
    AllProvidersFailed,
    AnswerInterrupted,
    ContentRefused,
    ContextWindowExceeded,
    FailedAttempt,
    ProviderError,
    RequestRejected,
    UnknownProvider,
)
from core.settings import ProviderSettings
from services.llm import routing
from services.llm.outcomes import Fault, Outcome, classify
from services.llm.routing import Phase, Routing
from services.llm.state import SharedRouting

log = structlog.get_logger()

RETRY_PAUSE_S = (0.2, 0.3)
"""How long a hiccup is given before the same provider is tried again."""
LEASE_MARGIN_S = 5.0
"""A probe's lease outlives the longest answer by this, in case its holder dies."""
LEASE_WAIT_S = 0.3
"""How long the one request that would probe waits for Redis to grant the lease; without it, it does not probe."""
LATENCIES_KEPT = 200
ACKNOWLEDGE_S = 0.5
"""How long an admin's command waits until Redis has it; after that it is on its way."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A user's explicit choice: a provider, and one of its models or its default."""

    provider: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that a request may ask, with the model it would be asked for."""

    provider: ProviderSettings
    model: str
    by_order: bool = True
    """Whether it stands here by the rules alone, and not because somebody forced or picked it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The figures of the service: `PROVIDER_PREFERRED_TTL`, `PROVIDER_COOLDOWN` (seconds), `PROVIDER_MAX_HOPS`."""

    preferred_ttl_s: float = 1800.0
    cooldown_s: float = 300.0
    max_hops: int = 3


class ProviderState(StrEnum):
    """What an operator reads about a provider."""

    FORCED = "forced"
    PREFERRED = "preferred"
    HEALTHY = "healthy"
    PROBING = "probing"
    HALF_OPEN = "half_open"
    COOLING = "cooling"
    NOT_CONFIGURED = "not_configured"


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """One provider as `/provider` shows it; instants are seconds since the epoch, counts are of this replica."""

    provider: str
    kind: str
    models: tuple[str, ...]
    state: ProviderState
    until: float | None = None
    """When the force, the preference or the cooldown ends."""
    reason: str | None = None
    """Why it cools down or is not configured."""
    requests: int = 0
    failures: int = 0
    last_error: str | None = None
    first_output_s: tuple[float, ...] = ()
    """The most recent times to first output, oldest first."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The whole service: the providers in the order of the dict, and whether replicas see each other."""

    providers: tuple[ProviderStatus, ...]
    forced: str | None
    preferred: str | None
    shared: bool


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """The provider that is asked first is another one now; `reason` is None where it came back by recovering."""

    before: str
    after: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """A provider refuses the key, the account or the model's name."""

    provider: str
    reason: str


Listener = Callable[[LeaderChanged | Misconfigured], None]


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    failures: int = 0
    last_error: str | None = None
    first_output_s: deque[float] = field(default_factory=lambda: deque[float](maxlen=LATENCIES_KEPT))


class LLMProviderFallback:
    """Orders the providers for each request and learns from what became of it.

    Args:
        providers: all of `AVAILABLE_PROVIDERS`, in its order; those that lack something are never asked.
        shared: the state that all replicas share.
        clock: the time.
        rules: the figures.
    """

    def __init__(
        self, providers: Sequence[ProviderSettings], shared: SharedRouting, clock: Clock, rules: Rules | None = None
    ) -> None:
        self._all: Mapping[str, ProviderSettings] = {provider.id: provider for provider in providers}
        self._usable = tuple(provider.id for provider in providers if provider.missing is None)
        self._shared = shared
        self._clock = clock
        self._rules = rules or Rules()
        self._tallies = {provider.id: _Tally() for provider in providers}
        self._leases = 0
        self._listeners: list[Listener] = []

    @property
    def rules(self) -> Rules:
        """The figures of the service."""
        return self._rules

    @property
    def providers(self) -> tuple[ProviderSettings, ...]:
        """The providers that can be asked, by priority."""
        return tuple(self._all[provider] for provider in self._usable)

    def listen(self, listener: Listener) -> None:
        """Tell `listener` when the leader changes or a provider turns out to be misconfigured; it must not block."""
        self._listeners.append(listener)

    async def begin(
        self,
        context: str,
        choice: ModelChoice | None = None,
        *,
        fits: Callable[[Candidate], bool] | None = None,
    ) -> "Attempts":
        """The candidates for one request.

        Args:
            context: what the request is for, for the log: `chat`, `moderation`.
            choice: the user's explicit choice, if any.
            fits: whether a candidate can take this request as it is (sees its images, say). Those that cannot come
                last, unless somebody forced or picked them.

        Raises:
            AllProvidersFailed: no provider is configured.
        """
        now = self._clock.time()
        state = self._shared.routing
        picked = choice.provider if choice is not None else None
        holder: str | None = None
        probe = routing.probe_due(state, self._usable, now, choice=picked) if state.cooldowns else None
        if probe is not None and (fits is None or fits(self._candidate(probe, choice))):
            holder = await self._take_probe(probe, now)
            state = self._shared.routing
        order = routing.order(state, self._usable, now, choice=picked, probe=probe if holder is not None else None)
        fixed = {state.forced(now), picked}
        candidates = [self._candidate(provider, choice, by_order=provider not in fixed) for provider in order]
        if fits is not None:
            candidates.sort(key=lambda candidate: candidate.by_order and not fits(candidate))
        if not candidates:
            raise AllProvidersFailed(())
        passed_over = fits is not None and [c.provider.id for c in candidates] != order
        lease = (probe, holder) if probe is not None and holder is not None else None
        return Attempts(self, candidates, context, lease, passed_over=passed_over)

    async def force_provider(self, provider: str, duration_seconds: float = 1800) -> None:
        """Ask this provider first, even in cooldown, for so many seconds.

        Raises:
            UnknownProvider: it is not configured.
        """
        self._known(provider)
        await self._act(routing.forced(provider, self._clock.time(), duration_seconds))

    async def clear_cache(self) -> None:
        """Forget the force and the preference, so that the priority order is in force; cooldowns stay."""
        await self._act(routing.cleared(self._clock.time()))

    async def cool_down(self, provider: str, duration_seconds: float, by: str) -> None:
        """Ask this provider last for so many seconds, because an admin says so."""
        self._known(provider)
        now = self._clock.time()
        await self._act(routing.cooled(provider, "set by an admin", now, duration_seconds, by))

    async def reset(self, provider: str) -> None:
        """End a provider's cooldown; a preference for one that stands below it ends too."""
        self._known(provider)
        await self._act(routing.reset(provider, self._usable))

    async def report_provider_failure(self, provider: str, error: BaseException, context: str) -> None:
        """Count a failure that a caller saw; it cools the provider down where the error is the provider's fault.

        Raises:
            UnknownProvider: it is not in AVAILABLE_PROVIDERS.
        """
        self._known(provider)
        outcome = classify(error, self._rules.cooldown_s)
        self.failed(provider, outcome, context)
        await self._shared.commit(lambda state: state, ACKNOWLEDGE_S)

    async def report_provider_success(self, provider: str, context: str) -> None:
        """Count an answer that a caller got; the first after a change makes the provider the preferred one.

        Raises:
            UnknownProvider: it is not in AVAILABLE_PROVIDERS.
        """
        self._known(provider)
        self.succeeded(provider, context, began=self._clock.time(), prefer=True)
        await self._shared.commit(lambda state: state, ACKNOWLEDGE_S)

    def get_provider_status(self) -> ServiceStatus:
        """The state of every provider, by the local copy."""
        now = self._clock.time()
        state = self._shared.routing
        statuses = tuple(self._status(provider, state, now) for provider in self._all.values())
        return ServiceStatus(statuses, state.forced(now), state.preferred(now), self._shared.connected)

    def failed(self, provider: str, outcome: Outcome, context: str) -> None:
        """Apply an outcome: the local copy changes at once, Redis soon after."""
        tally = self._tallies[provider]
        tally.requests += 1
        log.warning(
            "provider.failed",
            provider=provider,
            fault=outcome.fault.value,
            reason=outcome.reason,
            cooldown_s=outcome.cooldown_s,
            context=context,
        )
        if outcome.cooldown_s is None:
            return
        tally.failures += 1
        tally.last_error = outcome.reason
        before = self._leader()
        now = self._clock.time()
        known = self._shared.routing.cooldowns.get(provider)
        self._shared.apply(routing.cooled(provider, outcome.reason, now, outcome.cooldown_s, self._shared.replica))
        if outcome.fault is Fault.MISCONFIGURED and (known is None or known.reason != outcome.reason):
            # Once: many requests may fail at the same time, and so does each probe until somebody acts.
            self._tell(Misconfigured(provider, outcome.reason))
        after = self._leader()
        if before != after and before is not None and after is not None:
            log.warning("provider.switched", before=before, after=after, reason=outcome.reason)
            self._tell(LeaderChanged(before, after, outcome.reason))

    def succeeded(
        self, provider: str, context: str, *, began: float, prefer: bool, first_output_s: float | None = None
    ) -> None:
        """Apply an answer; without I/O where it changes nothing, which is the ordinary case."""
        tally = self._tallies[provider]
        tally.requests += 1
        if first_output_s is not None:
            tally.first_output_s.append(first_output_s)
        before = self._leader()
        now = self._clock.time()
        ttl_s = self._rules.preferred_ttl_s
        self._shared.apply(routing.proven(provider, began, now, ttl_s, self._usable, prefer=prefer))
        after = self._leader()
        if before != after and before is not None and after is not None:
            log.info("provider.recovered", before=before, after=after, context=context)
            self._tell(LeaderChanged(before, after, None))

    async def pause(self) -> None:
        """Wait before a provider that had a hiccup is tried again."""
        await self._clock.sleep(random.uniform(*RETRY_PAUSE_S))  # noqa: S311 - jitter, not a secret

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._clock.time()

    def leads(self, provider: str) -> bool:
        """Whether no healthy provider stands above this one."""
        return routing.leads(self._shared.routing, provider, self._usable, self._clock.time())

    def release(self, provider: str, holder: str) -> None:
        """Give a probe's lease back without a verdict."""
        self._shared.apply(routing.probe_returned(provider, holder))

    async def _take_probe(self, provider: str, now: float) -> str | None:
        self._leases += 1
        holder = f"{self._shared.replica}:{self._leases}"
        lease_s = self._all[provider].timeout_s + LEASE_MARGIN_S
        granted = False
        try:
            granted = await self._shared.commit(routing.probe_taken(provider, holder, now, lease_s), LEASE_WAIT_S)
        finally:
            if not granted:
                self.release(provider, holder)
        lease = self._shared.routing.probes.get(provider)
        if lease is None or lease.holder != holder:
            return None
        log.info("provider.probed", provider=provider)
        return holder

    async def _act(self, change: routing.Change) -> None:
        await self._shared.commit(change, ACKNOWLEDGE_S)

    def _known(self, provider: str) -> None:
        if provider not in self._all:
            raise UnknownProvider(provider, tuple(self._all))

    def _candidate(self, provider: str, choice: ModelChoice | None, *, by_order: bool = True) -> Candidate:
        settings = self._all[provider]
        picked = choice.model if choice is not None and choice.provider == provider else None
        return Candidate(settings, picked or settings.default_model, by_order)

    def _leader(self) -> str | None:
        """Who is asked first by the rules; a half-open provider leads again only when it has proven itself."""
        state = self._shared.routing
        return next(iter(routing.order(state, self._usable, self._clock.time())), None)

    def _tell(self, event: LeaderChanged | Misconfigured) -> None:
        for listener in self._listeners:
            listener(event)

    def _status(self, provider: ProviderSettings, state: Routing, now: float) -> ProviderStatus:
        tally = self._tallies[provider.id]
        cooldown = state.cooldowns.get(provider.id)
        until: float | None = None
        reason: str | None = None
        if provider.missing is not None:
            name, reason = ProviderState.NOT_CONFIGURED, provider.missing
        elif state.forced(now) == provider.id and state.force is not None:
            name, until = ProviderState.FORCED, state.force.until
        elif cooldown is not None and state.phase(provider.id, now) is Phase.COOLING:
            name, until, reason = ProviderState.COOLING, cooldown.until, cooldown.reason
        elif cooldown is not None:
            probing = state.probing(provider.id, now)
            name, reason = (ProviderState.PROBING if probing else ProviderState.HALF_OPEN), cooldown.reason
        elif state.preferred(now) == provider.id and state.preference is not None:
            name, until = ProviderState.PREFERRED, state.preference.until
        else:
            name = ProviderState.HEALTHY
        return ProviderStatus(
            provider.id,
            provider.kind.value,
            tuple(provider.models),
            name,
            until,
            reason,
            tally.requests,
            tally.failures,
            tally.last_error,
            tuple(tally.first_output_s),
        )


class Attempts:
    """One request on its way from candidate to candidate.

    Iterate it for the next candidate; say `await failed(error)` or `succeeded()` for each, and `close()` at the end
    whatever happened: an outcome that nobody reported (a cancelled request) blames nobody.
    """

    def __init__(
        self,
        service: LLMProviderFallback,
        candidates: Sequence[Candidate],
        context: str,
        lease: tuple[str, str] | None,
        *,
        passed_over: bool,
    ) -> None:
        self._service = service
        self._candidates = candidates
        self._context = context
        self._lease = lease
        self._passed_over = passed_over
        self._current = candidates[0]
        self._began = service.time()
        self._retries = 0
        self._again = False
        self._failed: list[tuple[FailedAttempt, Fault]] = []
        self.overflowed: Candidate | None = None
        """The last candidate whose context window was too small."""

    def __iter__(self) -> Iterator[Candidate]:
        for candidate in self._candidates:
            if len(self._failed) == self._service.rules.max_hops:
                return
            self._current = candidate
            self._retries = candidate.provider.retries
            self._again = True
            while self._again:
                self._again = False
                self._began = self._service.time()
                yield candidate

    @property
    def failures(self) -> tuple[FailedAttempt, ...]:
        """Those who were tried and did not answer, in order."""
        return tuple(attempt for attempt, _ in self._failed)

    async def failed(self, error: Exception) -> None:
        """The current candidate failed before its first output. Returns where the next one should be tried.

        Raises:
            ContentRefused: its filter refused.
            RequestRejected: the request is at fault.
            Exception: `error` itself, where it is a bug of ours.
        """
        provider = self._current.provider
        outcome = classify(error, self._service.rules.cooldown_s)
        if not outcome.try_next:
            raise self._surfaced(outcome, error)
        if outcome.fault is Fault.HICCUP and self._retries > 0:
            self._retries -= 1
            self._again = True
            log.info("provider.retried", provider=provider.id, reason=outcome.reason, context=self._context)
            await self._service.pause()
            return
        self._passed_over = self._passed_over or outcome.cooldown_s is None
        if outcome.fault is Fault.CONTEXT_WINDOW:
            self.overflowed = self._current
        self._failed.append((FailedAttempt(provider.id, self._current.model, outcome.reason), outcome.fault))
        self._service.failed(provider.id, outcome, self._context)

    def broke_off(self, error: Exception) -> ProviderError | Exception:
        """The current candidate failed after its first output: the error to raise in place of `error`."""
        outcome = classify(error, self._service.rules.cooldown_s)
        if not outcome.try_next:
            return self._surfaced(outcome, error)
        cut = Outcome(outcome.fault, outcome.reason, self._service.rules.cooldown_s)
        self._service.failed(self._current.provider.id, cut, self._context)
        return AnswerInterrupted(self._current.provider.id, outcome.reason)

    def refused(self, reason: str) -> ContentRefused:
        """The current candidate's filter ended the answer: the error to raise."""
        log.info("provider.refused", provider=self._current.provider.id, context=self._context)
        return ContentRefused(self._current.provider.id, reason)

    def succeeded(self, first_output_s: float | None = None) -> None:
        """The current candidate answered in full."""
        self._service.succeeded(
            self._current.provider.id,
            self._context,
            began=self._began,
            prefer=self._current.by_order and not self._passed_over and self._service.leads(self._current.provider.id),
            first_output_s=first_output_s,
        )

    def skip(self) -> None:
        """The current candidate could not have taken this request."""
        self._passed_over = True

    def exhausted(self) -> ProviderError:
        """Nobody is left: the error to raise."""
        if any(fault is Fault.CONTEXT_WINDOW for _, fault in self._failed):
            return ContextWindowExceeded(self.failures)
        log.error(
            "provider.all_failed",
            context=self._context,
            tried=[{"provider": attempt.provider, "reason": attempt.reason} for attempt in self.failures],
        )
        return AllProvidersFailed(self.failures)

    def close(self) -> None:
        """The request is over; a probe without a verdict gives its lease back."""
        if self._lease is not None:
            self._service.release(*self._lease)
            self._lease = None

    def _surfaced(self, outcome: Outcome, error: Exception) -> Exception:
        provider = self._current.provider.id
        log.info("provider.surfaced", provider=provider, fault=outcome.fault.value, reason=outcome.reason)
        match outcome.fault:
            case Fault.REFUSED:
                surfaced: Exception = ContentRefused(provider, outcome.reason)
            case Fault.REJECTED:
                surfaced = RequestRejected(provider, outcome.reason)
            case _:
                return error
        surfaced.__cause__ = error
        return surfaced
