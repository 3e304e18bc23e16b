"""The provider fallback service: the order of candidates for each request, and the status of the providers."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile

import structlog
from pydantic_ai.messages import ModelMessage

from core.clock import Clock
from core.config.providers import ProviderSettings
from core.errors import AllProvidersFailed, ConsentNeeded
from core.redis.guard import RedisPatience
from services.llm.request import Candidate, RequestSpec
from services.llm.routing.admission.budget_guard import BudgetGuard, NoBudgets
from services.llm.routing.admission.concurrency import LoadShedding, SharedLimits
from services.llm.routing.admission.probes import ProbeLeases
from services.llm.routing.admission.request_admission import CandidateQueue, ProviderGate
from services.llm.routing.attempts import Attempts
from services.llm.routing.control import ProviderControl
from services.llm.routing.faults.refusals import KNOWN_WORDS, KnownWords
from services.llm.routing.recorder import OutcomeRecorder
from services.llm.routing.recourse import RequestShape
from services.llm.routing.roster import ProviderRoster
from services.llm.routing.state import rules
from services.llm.routing.state.clock_bounds import SET_BY_ADMIN
from services.llm.routing.state.rules import Routing
from services.llm.routing.state.shared_state import SharedRouting
from services.llm.routing.status import ServiceStatus, provider_status
from services.llm.routing.timing import RoutingLimits, RoutingTiming
from services.llm.usage import UsageMeter

log = structlog.get_logger()


class LLMProviderFallback:
    """Orders the providers for each request.

    `recorder` learns the outcomes and tells its listeners, `control` changes the state for operators.

    Args:
        providers: all of `AVAILABLE_PROVIDERS`, by priority; those with missing settings are never asked.
        shared: the state that all replicas share.
        shedding: limits concurrent requests per provider; by default this replica applies the limits alone.
        meter: receives the usage of each request.
        words: the words by which refusals are recognised.
        budgets: reserves the cost of each request before it is made.
    """

    def __init__(  # noqa: PLR0913 - the services that all requests share
        self,
        providers: Sequence[ProviderSettings],
        shared: SharedRouting,
        clock: Clock,
        limits: RoutingLimits | None = None,
        shedding: LoadShedding | None = None,
        meter: UsageMeter | None = None,
        timing: RoutingTiming | None = None,
        words: KnownWords = KNOWN_WORDS,
        *,
        budgets: BudgetGuard | None = None,
    ) -> None:
        self.roster = ProviderRoster(providers)
        self._shared = shared
        self._clock = clock
        self._shedding = shedding or LoadShedding(None, "", clock)
        timing = timing or RoutingTiming()
        self.recorder = OutcomeRecorder(
            self.roster,
            shared,
            clock,
            limits or RoutingLimits(),
            timing,
            self._shedding.affinity,
            meter,
            words=words,
        )
        self.control = ProviderControl(self.roster, shared, clock, timing, self.recorder)
        self._probes = ProbeLeases(self.roster, shared, clock, timing, self.recorder)
        self._limits = SharedLimits(
            self._shedding.limiter,
            defaultdict(partial(ProviderGate, timing.max_opening)),
            self._probes,
            timing.opening_patience_s,
            budgets or NoBudgets(),
        )

    @property
    def providers(self) -> tuple[ProviderSettings, ...]:
        """The providers that can be asked, by priority."""
        return self.roster.providers

    def usable_ids(self) -> tuple[str, ...]:
        """Returns the ids of the providers that can be asked now, by priority."""
        return self.roster.usable

    def replace_providers(self, providers: Sequence[ProviderSettings]) -> None:
        """Applies these providers to new requests; those in flight finish with the old ones."""
        self.roster.replace(providers)
        log.info("provider.replaced", providers=list(self.roster.all), usable=list(self.roster.usable))

    async def begin(
        self,
        spec: RequestSpec,
        *,
        messages: Sequence[ModelMessage] = (),
        fits: Callable[[Candidate], bool] | None = None,
        window: Callable[[Candidate], int | None] | None = None,
        shape: RequestShape | None = None,
    ) -> Attempts:
        """Returns the attempts of one request.

        Args:
            spec: the request.
            messages: the request; its tokens are estimated where the provider reports no usage.
            fits: returns whether a candidate can take this request as it is (its images, for example). Candidates
                that cannot come last, unless they were forced or chosen.
            window: returns a candidate's context window in tokens, None where it is unknown.
            shape: the contents of the request, as far as a model may refuse them.

        Raises:
            AllProvidersFailed: no provider is configured.
            ConsentNeeded: only remote ones are, and `spec` excludes them.
        """
        roster = self.roster
        allowed = [name for name in roster.usable if self._allowed_models(spec, name)]
        usable = [name for name in allowed if not (spec.local_only and roster.all[name].remote)]
        is_withheld = len(usable) < len(allowed)
        patience = RedisPatience()
        kept = await self._kept_provider(spec, usable, patience)
        standing = self.recorder.standing_order()
        chosen = spec.choice.provider if spec.choice is not None else None
        probe = self._find_probe(spec, usable, kept, fits)
        is_free = chosen is None and kept is None and probe is None
        if is_free and tuple(usable) == standing.providers:
            order = list(standing.order)
        else:
            order = rules.order(standing.routing, usable, self._clock.time(), choice=chosen, stay=kept, probe=probe)
        fits = self._with_required(spec, fits)
        fixed = {standing.forced, chosen}
        candidates = [self._candidate(name, spec, by_order=name not in fixed) for name in order]
        if fits is not None:
            candidates = [replace(each, misfit=each.by_order and not fits(each)) for each in candidates]
            candidates.sort(key=lambda candidate: candidate.misfit)
        if not candidates:
            raise ConsentNeeded if is_withheld else AllProvidersFailed(())
        is_reordered = fits is not None and [each.provider.id for each in candidates] != order
        queue = CandidateQueue(
            self.recorder, candidates, probe, fits, is_reordered=is_reordered, is_withheld=is_withheld
        )
        return Attempts(self.recorder, self._limits, queue, spec, messages, window or _unknown_window, shape, patience)

    async def force_provider(self, provider: str, duration_seconds: float = 1800) -> None:
        """Puts a provider first for `duration_seconds`, even during a cooldown.

        Raises:
            UnknownProvider: it is not configured.
        """
        await self.control.force(provider, duration_seconds)

    async def clear_cache(self) -> None:
        """Ends the force and the preference, so that the priority order applies; cooldowns stay."""
        await self.control.clear()

    async def report_provider_failure(self, provider: str, error: BaseException, context: str) -> None:
        """Records a failure that a caller saw. It cools the provider down unless the fault is the caller's.

        Raises:
            UnknownProvider: it is not in AVAILABLE_PROVIDERS.
        """
        await self.control.report_failure(provider, error, context)

    async def report_provider_success(self, provider: str, context: str) -> None:
        """Records an answer that a caller got. The first one after a change makes the provider preferred.

        Raises:
            UnknownProvider: it is not in AVAILABLE_PROVIDERS.
        """
        await self.control.report_success(provider, context)

    def local_failure(self, candidate: Candidate, failed: Collection[str]) -> str | None:
        """Returns the local provider that a remote candidate replaces; None where none failed.

        An operator's force, a user's choice and a cooldown that an operator set are decisions, not failures. A provider
        that failed in earlier requests has a cooldown until it answers.

        Args:
            candidate: the one that answers.
            failed: ids of the providers that failed in this request.
        """
        if not candidate.provider.remote or not candidate.by_order:
            return None
        earlier = {each.id for each in takewhile(lambda each: each.id != candidate.provider.id, self.providers)}
        for each in self.providers:
            has_failed = each.id in failed or (each.id in earlier and _has_failed(each.id, self._shared.routing))
            if not each.remote and has_failed:
                return each.id
        return None

    def outage_since(self, provider: str) -> float | None:
        """Returns the instant of a provider's first failure since its last answer; None while it is healthy."""
        cooldown = self._shared.routing.cooldowns.get(provider)
        return None if cooldown is None else cooldown.outage_since

    def order(self) -> tuple[str, ...]:
        """Returns the ids of the usable providers in the order of the next request, without a user's choice."""
        now = self._clock.time()
        return tuple(rules.order(self._shared.routing, self.roster.usable, now))

    def get_provider_status(self) -> ServiceStatus:
        """Returns the state of every provider, from the local copy."""
        now = self._clock.time()
        state = self._shared.routing
        counts, in_flight = self.recorder.counts, self._shedding.limiter.in_flight
        statuses = tuple(
            provider_status(provider, counts[provider.id], state, now, in_flight[provider.id])
            for provider in self.roster.all.values()
        )
        return ServiceStatus(statuses, state.forced(now), state.preferred(now), self._shared.connected)

    def _find_probe(
        self, spec: RequestSpec, usable: Sequence[str], kept: str | None, fits: Callable[[Candidate], bool] | None
    ) -> str | None:
        """Returns the half-open provider that a request probes.

        A user who is kept with a provider is not sent to probe another one.
        """
        state = self._shared.routing
        if not state.cooldowns:
            return None
        chosen = spec.choice.provider if spec.choice is not None else None
        probe = rules.probe_due(state, usable, self._clock.time(), choice=chosen if chosen in usable else kept)
        return probe if probe is None or fits is None or fits(self._candidate(probe, spec)) else None

    def _with_required(
        self, spec: RequestSpec, fits: Callable[[Candidate], bool] | None
    ) -> Callable[[Candidate], bool] | None:
        """Returns a check that also keeps models last that refuse a requirement of the request."""
        if not spec.required or not self._shared.routing.limits:
            return fits

        def fits_all(candidate: Candidate) -> bool:
            is_refused = bool(spec.required & self.recorder.adaptation(candidate).without)
            return not is_refused and (fits is None or fits(candidate))

        return fits_all

    async def _kept_provider(self, spec: RequestSpec, usable: Sequence[str], patience: RedisPatience) -> str | None:
        """Returns the provider that stepped in for a busy one when this user was last answered, if it is healthy."""
        if not self.roster.has_limits or spec.user is None or not usable[1:]:
            return None
        kept = await self._shedding.affinity.provider_for(spec.user, patience)
        return kept if kept in usable and kept not in self._shared.routing.cooldowns else None

    def _allowed_models(self, spec: RequestSpec, provider: str) -> Sequence[str]:
        """Returns the models of a provider that a request may ask, the user's choice included."""
        models = self.roster.all[provider].models
        if not spec.models and not spec.is_pinned:
            return models
        choice = spec.choice
        picked = (choice.model,) if choice is not None and choice.provider == provider and choice.model else ()
        return [model for model in dict.fromkeys((*models, *picked)) if spec.allows(provider, model)]

    def _candidate(self, provider: str, spec: RequestSpec, *, by_order: bool = True) -> Candidate:
        settings, choice = self.roster.all[provider], spec.choice
        model = choice.model if choice is not None and choice.provider == provider else None
        if model is not None and (model == settings.default_model or not self.recorder.is_resting(provider, model)):
            return Candidate(settings, model, by_order)
        return Candidate(settings, self._default_model(settings.id, self._allowed_models(spec, provider)), by_order)

    def _default_model(self, provider: str, models: Sequence[str]) -> str:
        """Returns the first of the models that is not known to be missing; the first if all are."""
        if models[1:] and self._shared.routing.resting:
            awake = (model for model in models if not self.recorder.is_resting(provider, model))
            return next(awake, models[0])
        return models[0]


def _unknown_window(_: Candidate) -> None:
    return None


def _has_failed(provider: str, routing: Routing) -> bool:
    cooldown = routing.cooldowns.get(provider)
    return cooldown is not None and cooldown.reason != SET_BY_ADMIN
