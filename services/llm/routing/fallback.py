"""The provider fallback service: who is asked next, and what each outcome changes."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog
from pydantic_ai.messages import ModelMessage

from core.clock import Clock
from core.config.settings import ProviderSettings
from core.errors import AllProvidersFailed, ConsentNeeded, UnknownProvider
from services.llm.request import Candidate, ModelChoice, RequestSpec
from services.llm.routing import rules as routing
from services.llm.routing.attempts import HALF_OPEN, Attempts, Route, RoutingLimits
from services.llm.routing.events import LLMEvent, Probed, Watcher
from services.llm.routing.load_shedding import LoadShedding
from services.llm.routing.outcomes import Fault, Outcome, classify_report
from services.llm.routing.shared_state import SharedRouting
from services.llm.routing.status import ServiceStatus, Tally, provider_status
from services.llm.usage.report import RequestReport, UsageMeter

log = structlog.get_logger()

RETRY_PAUSE_S = (0.2, 0.3)
"""How long a hiccup is given before the same provider is tried again."""
LEASE_MARGIN_S = 5.0
"""A probe's lease outlives the longest answer by this, in case its holder dies."""
LEASE_WAIT_S = 0.3
"""How long the one request that would probe waits for Redis to grant the lease; without it, it does not probe."""
OPENING_AT_ONCE = 200
"""Requests of this process that wait for their first output at the same time; further ones wait for their turn before
any deadline runs. A thousand that began at one instant, after an outage say, would keep the process from hearing the
answers in time, and the providers would be blamed for that."""
ACKNOWLEDGE_S = 0.5
"""How long an admin's command waits until Redis has it; after that it is on its way."""


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


class LLMProviderFallback:
    """Orders the providers for each request and learns from what became of it.

    Args:
        providers: all of `AVAILABLE_PROVIDERS`, in its order; those that lack something are never asked.
        shared: the state that all replicas share.
        clock: the time.
        rules: the figures.
        shedding: how many requests each provider takes at once, and who was moved because of that; by default this
            replica keeps to the limits by itself.
        meter: counts what each request used.
    """

    def __init__(
        self,
        providers: Sequence[ProviderSettings],
        shared: SharedRouting,
        clock: Clock,
        rules: RoutingLimits | None = None,
        shedding: LoadShedding | None = None,
        meter: UsageMeter | None = None,
    ) -> None:
        self._all: Mapping[str, ProviderSettings] = {provider.id: provider for provider in providers}
        self._usable = tuple(provider.id for provider in providers if provider.missing is None)
        self._shared = shared
        self._clock = clock
        self._rules = rules or RoutingLimits()
        self._shedding = shedding or LoadShedding(None, "", clock)
        self._meter = meter
        self._sheds = any(self._all[provider].max_concurrency is not None for provider in self._usable)
        self._tallies = {provider.id: Tally() for provider in providers}
        self.opening = asyncio.Semaphore(OPENING_AT_ONCE)
        """To be held from a request's beginning to its first output."""
        self._leases = 0
        self._listeners: list[Listener] = []
        self._watchers: list[Watcher] = []

    @property
    def rules(self) -> RoutingLimits:
        """The figures of the service."""
        return self._rules

    @property
    def providers(self) -> tuple[ProviderSettings, ...]:
        """The providers that can be asked, by priority."""
        return tuple(self._all[provider] for provider in self._usable)

    def listen(self, listener: Listener) -> None:
        """Tell `listener` when the leader changes or a provider turns out to be misconfigured; it must not block."""
        self._listeners.append(listener)

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` of everything that happens to requests; it must be quick, since each request waits for it."""
        self._watchers.append(watcher)

    async def begin(
        self,
        spec: RequestSpec,
        *,
        messages: Sequence[ModelMessage] = (),
        fits: Callable[[Candidate], bool] | None = None,
        window: Callable[[Candidate], int | None] | None = None,
    ) -> Attempts:
        """Return the candidates for one request, in order.

        Args:
            spec: the request.
            messages: what is sent; its tokens are estimated where the provider reports no usage.
            fits: returns whether a candidate can take this request as it is (its images, for example). Candidates
                that cannot come last, unless they were forced or chosen.
            window: returns a candidate's context window in tokens, None where it is unknown.

        Raises:
            AllProvidersFailed: no provider is configured.
            ConsentNeeded: only remote ones are.
        """
        user, choice = spec.user, spec.choice
        usable = [provider for provider in self._usable if not (spec.local_only and self._all[provider].remote)]
        stay = await self._shedding.stays.of(user) if self._sheds and user is not None and usable[1:] else None
        now = self._clock.time()
        state = self._shared.routing
        if stay not in usable or state.phase(stay, now) is not routing.CircuitPhase.HEALTHY:
            stay = None
        withheld = len(usable) < len(self._usable)
        picked = choice.provider if choice is not None else None
        holder: str | None = None
        probe = self._probe_due(state, usable, now, picked, stay)
        if probe is not None and (fits is None or fits(self._candidate(probe, choice))):
            holder = await self._take_probe(probe, now)
            state = self._shared.routing
        granted = probe if holder is not None else None
        order = routing.order(state, usable, now, choice=picked, stay=stay, probe=granted)
        fixed = {state.forced(now), picked}
        candidates = [self._candidate(provider, choice, by_order=provider not in fixed) for provider in order]
        if fits is not None:
            candidates = [replace(each, misfit=each.by_order and not fits(each)) for each in candidates]
            candidates.sort(key=lambda candidate: candidate.misfit)
        if not candidates:
            raise ConsentNeeded if withheld else AllProvidersFailed(())
        passed_over = fits is not None and [c.provider.id for c in candidates] != order
        lease = (probe, holder) if probe is not None and holder is not None else None
        route = Route(tuple(candidates), lease, passed_over=passed_over, withheld=withheld)
        return Attempts(self, self._shedding.slots, route, spec, messages, window or _unknown_window)

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
        await self._act(routing.reset(provider, self._clock.time(), self._usable))

    async def report_provider_failure(self, provider: str, error: BaseException, context: str) -> None:
        """Count a failure that a caller saw; it cools the provider down unless it is the caller's own.

        Raises:
            UnknownProvider: it is not in AVAILABLE_PROVIDERS.
        """
        self._known(provider)
        outcome = classify_report(error, self._rules.cooldown_s)
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
        in_flight = self._shedding.slots.in_flight
        statuses = tuple(
            provider_status(provider, self._tallies[provider.id], state, now, in_flight(provider.id))
            for provider in self._all.values()
        )
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
        state, now = self._shared.routing, self._clock.time()
        ttl_s = self._rules.preferred_ttl_s
        self._shared.apply(routing.proven(provider, began, now, ttl_s, self._usable, prefer=prefer))
        if self._shared.routing is state:
            return
        before, after = self._leader(state), self._leader()
        if before != after and before is not None and after is not None:
            log.info("provider.recovered", before=before, after=after, context=context)
            self._tell(LeaderChanged(before, after, None))

    async def pause(self) -> None:
        """Wait before a provider that had a hiccup is tried again."""
        await self._clock.sleep(random.uniform(*RETRY_PAUSE_S))  # noqa: S311 - jitter, not a secret

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._clock.time()

    def doubt(self, provider: str) -> float:
        """What speaks against asking it: 0 while healthy, more the later its cooldown ends, `HALF_OPEN` after that."""
        cooldown = self._shared.routing.cooldowns.get(provider)
        if cooldown is None:
            return 0.0
        return cooldown.until if cooldown.until > self._clock.time() else HALF_OPEN

    def leads(self, provider: str) -> bool:
        """Whether no healthy provider stands above this one."""
        return routing.leads(self._shared.routing, provider, self._usable, self._clock.time())

    def moved(self, speaker: str, provider: str) -> None:
        """Somebody was answered by this provider because one before it was busy."""
        log.info("provider.stepped_in", provider=provider)
        self._shedding.stays.begin(speaker, provider)

    def note(self, happening: LLMEvent) -> None:
        """Tell whoever watches what happened to a request."""
        for watcher in self._watchers:
            watcher(happening)

    def count(self, report: RequestReport) -> None:
        """A request to a provider is over."""
        if self._meter is not None:
            self._meter.count(report)

    def release(self, provider: str, holder: str) -> None:
        """Give a probe's lease back without a verdict."""
        self._shared.apply(routing.probe_returned(provider, holder))

    @staticmethod
    def _probe_due(
        state: routing.Routing, usable: Sequence[str], now: float, picked: str | None, stay: str | None
    ) -> str | None:
        if not state.cooldowns:
            return None
        # Who stays somewhere is not sent elsewhere to find something out.
        return routing.probe_due(state, usable, now, choice=picked if picked in usable else stay)

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
        self.note(Probed(provider))
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

    def _leader(self, state: routing.Routing | None = None) -> str | None:
        """Who is asked first by the rules, in that state or now; one that is half-open must prove itself first."""
        state = state or self._shared.routing
        return next(iter(routing.order(state, self._usable, self._clock.time())), None)

    def _tell(self, event: LeaderChanged | Misconfigured) -> None:
        for listener in self._listeners:
            listener(event)


def _unknown_window(_: Candidate) -> None:
    return None
