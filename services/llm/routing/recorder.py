"""Records outcomes of requests: counts, cooldowns, the preferred provider, and events for metrics and notices."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog
from prometheus_client import Counter, Histogram

from core.clock import Clock
from core.config.providers import ProviderSettings
from core.errors import FailedAttempt
from core.observability.metrics import OTHER, Metrics
from services.llm.request import UNCHANGED, Adaptation, Candidate, Capability, RequestSpec
from services.llm.routing.affinity import ProviderAffinity
from services.llm.routing.events import (
    AnswersAgain,
    AttemptEnded,
    AttemptResult,
    LeaderChanged,
    LLMEvent,
    Misconfigured,
    NoProviderAnswers,
    NoticeListener,
    Probed,
    ProviderNotice,
    Shed,
    Watcher,
)
from services.llm.routing.faults.outcomes import MISCONFIGURED_COOLDOWN_S, Outcome
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.faults.refusals import KNOWN_WORDS, KnownWords
from services.llm.routing.roster import ProviderRoster
from services.llm.routing.state import changes, model_changes, rules
from services.llm.routing.state.shared_state import SharedRouting
from services.llm.routing.status import ProviderCounts
from services.llm.routing.timing import RoutingLimits, RoutingTiming
from services.llm.usage import RequestReport, UsageMeter

log = structlog.get_logger()

HALF_OPEN_RANK = 1.0
"""The health rank of a provider that has not answered since its cooldown."""


_FOR_OPERATORS = frozenset({Fault.MISCONFIGURED, Fault.MODEL_GONE, Fault.UNCLEAR})


@dataclass(frozen=True, slots=True)
class _ModelMetrics:
    """The metrics of one model. They are looked up once, since the library looks labels up under a lock."""

    results: Mapping[AttemptResult, Counter]
    first_output: Histogram
    answer: Histogram


class RequestMetrics:
    """Prometheus metrics of requests.

    Args:
        providers: providers whose series exist from the start, so that a first failure is an increase and not a new
            series.
    """

    def __init__(self, metrics: Metrics, providers: Sequence[ProviderSettings]) -> None:
        by_model = ("provider", "model")
        self._metrics = metrics
        self._requests = metrics.counter("provider_requests", "Requests to providers by result", (*by_model, "result"))
        self._failures = metrics.counter("provider_failures", "Failed requests, by outcome", ("provider", "outcome"))
        self._first_output = metrics.histogram(
            "first_output_seconds", "Time from asking a provider to its first output", by_model
        )
        self._answer = metrics.histogram(
            "answer_seconds", "Time from asking a provider to the end of its answer", by_model
        )
        self._probes = metrics.counter("provider_probes", "Probes of providers whose cooldown has ended", ("provider",))
        self._shed = metrics.counter(
            "provider_shed", "Requests passed on, their provider being at its limit", ("provider",)
        )
        self._by_model: dict[tuple[str, str], _ModelMetrics] = {}
        for provider in providers:
            self._of_model(provider.id, provider.default_model)
            for counter in (self._probes, self._shed):
                counter.labels(provider.id)

    def count(self, event: LLMEvent) -> None:
        """Counts an event of a request."""
        match event:
            case AttemptEnded():
                of_model = self._of_model(event.provider, event.model)
                of_model.results[event.result].inc()
                if event.fault is not None:
                    self._failures.labels(event.provider, event.fault).inc()
                if event.result is AttemptResult.ANSWERED:
                    of_model.answer.observe(event.seconds)
                    if event.first_output_s is not None:
                        of_model.first_output.observe(event.first_output_s)
            case Shed(provider):
                self._shed.labels(provider).inc()
            case Probed(provider):
                self._probes.labels(provider).inc()

    def _of_model(self, provider: str, model: str) -> _ModelMetrics:
        labels = (provider, model if (provider, model) in self._metrics.models else OTHER)
        known = self._by_model.get(labels)
        if known is None:
            known = self._by_model[labels] = _ModelMetrics(
                results={result: self._requests.labels(*labels, result) for result in AttemptResult},
                first_output=self._first_output.labels(*labels),
                answer=self._answer.labels(*labels),
            )
        return known


class OutcomeRecorder:
    """Applies outcomes to this replica's copy of the routing state, which is written to Redis in the background.

    Args:
        roster: the configured providers. Outcomes of requests that began with other settings are not recorded.
        words: the words by which refusals are recognised.
    """

    def __init__(
        self,
        roster: ProviderRoster,
        shared: SharedRouting,
        clock: Clock,
        limits: RoutingLimits,
        timing: RoutingTiming,
        affinity: ProviderAffinity,
        meter: UsageMeter | None,
        *,
        words: KnownWords = KNOWN_WORDS,
    ) -> None:
        self.limits = limits
        self.timing = timing
        self.words = words
        self.clock = clock
        self.counts = defaultdict[str, ProviderCounts](ProviderCounts)
        self.metrics: RequestMetrics | None = None
        """Counts the events of requests; None where the process has no metrics of them."""
        self._roster = roster
        self._shared = shared
        self._affinity = affinity
        self._meter = meter
        self._is_outage = False
        """True after a request that no provider answered, until the next answer."""
        self._listeners: list[NoticeListener] = []
        self._watchers: list[Watcher] = []
        self._order = roster.usable
        self._standing = rules.find_standing_order(shared.routing, roster.usable, clock.time())
        roster.on_change(self._follow_roster)

    def listen(self, listener: NoticeListener) -> None:
        """Registers a callback for changes of the leader and for misconfigured providers. It must not block."""
        self._listeners.append(listener)

    def watch(self, watcher: Watcher) -> None:
        """Registers a callback for the events of every request. It runs within the request and must be fast."""
        self._watchers.append(watcher)

    def health_rank(self, provider: str) -> float:
        """Returns a sort key: 0 while healthy, `HALF_OPEN_RANK` after a cooldown, its end during one."""
        cooldown = self._shared.routing.cooldowns.get(provider)
        if cooldown is None:
            return 0.0
        return cooldown.until if cooldown.until > self.clock.time() else HALF_OPEN_RANK

    def standing_order(self) -> rules.StandingOrder:
        """Returns the order of the providers as of now; the rules are applied once as long as nothing changes."""
        known, now = self._standing, self.clock.time()
        routing, usable = self._shared.routing, self._roster.usable
        if known.routing is not routing or known.providers is not usable or not known.since <= now < known.until:
            known = self._standing = rules.find_standing_order(routing, usable, now)
        return known

    def leads(self, provider: str) -> bool:
        """Returns whether no healthy provider has a higher priority."""
        return provider in self.standing_order().leaders

    def failed(self, settings: ProviderSettings, outcome: Outcome, purpose: str) -> None:
        """Records a failure. The local copy changes at once, Redis soon after."""
        cooldown_s = self._note_failure(settings, outcome, purpose)
        if cooldown_s is None:
            return
        provider, now = settings.id, self.clock.time()
        before = self._leader()
        known = self._shared.routing.cooldowns.get(provider)
        replica = self._shared.replica
        fault = outcome.fault.value
        self._shared.apply(changes.cooled(provider, outcome.reason, now, cooldown_s, replica, outcome.words, fault))
        if outcome.fault in _FOR_OPERATORS and (known is None or known.reason != outcome.reason):
            # Notify once: concurrent requests fail together, and each probe fails until an operator acts.
            self._notify(Misconfigured(provider, outcome.reason, outcome.words))
        after = self._leader()
        if before != after and before is not None and after is not None and after not in self._shared.routing.cooldowns:
            log.warning("provider.switched", before=before, after=after, reason=outcome.reason)
            self._notify(LeaderChanged(before, after, outcome.reason))

    def model_failed(self, candidate: Candidate, outcome: Outcome, purpose: str, *, is_listed: bool) -> None:
        """Records a failure that is one model's fault: the model rests, and its provider stays healthy.

        Args:
            is_listed: whether operators configured the model; a model that only a user picked is not their concern.
        """
        provider, model = candidate.provider.id, candidate.model
        rest_s = self._note_failure(candidate.provider, outcome, purpose, model)
        if rest_s is None:
            return
        known = self._shared.routing.resting.get(rules.model_key(provider, model))
        now = self.clock.time()
        self._shared.apply(model_changes.rested(provider, model, outcome.reason, now, rest_s, self._shared.replica))
        if is_listed and outcome.fault in _FOR_OPERATORS and (known is None or known.reason != outcome.reason):
            self._notify(Misconfigured(provider, f"{model}: {outcome.reason}", outcome.words))

    def _note_failure(
        self, settings: ProviderSettings, outcome: Outcome, purpose: str, model: str | None = None
    ) -> float | None:
        """Counts and logs a failure; returns the cooldown of its provider or model, None for none."""
        provider = settings.id
        if not self._is_current(settings):
            log.info("provider.former_failed", provider=provider, reason=outcome.reason, purpose=purpose)
            return None
        log.warning(
            "provider.failed" if model is None else "provider.model_failed",
            provider=provider,
            **({} if model is None else {"model": model}),
            fault=outcome.fault.value,
            reason=outcome.reason,
            words=outcome.words,
            cooldown_s=outcome.cooldown_s,
            purpose=purpose,
        )
        counts = self.counts[provider]
        counts.requests += 1
        if outcome.cooldown_s is not None:
            counts.failures += 1
            counts.last_error, counts.last_words = outcome.reason, outcome.words
        return outcome.cooldown_s

    def pass_over(self, provider: str, models: Sequence[str]) -> None:
        """Lets models rest that are missing in their provider's list; its next configured one is the default."""
        now = self.clock.time()
        for model in models:
            reason = "not in the model list"
            self._shared.apply(
                model_changes.rested(provider, model, reason, now, MISCONFIGURED_COOLDOWN_S, self._shared.replica)
            )

    def capabilities_refused(
        self, candidate: Candidate, capabilities: frozenset[Capability], *, is_guess: bool
    ) -> None:
        """Remembers that a model refuses capabilities."""
        provider, model = candidate.provider.id, candidate.model
        log.info("provider.capability_refused", provider=provider, model=model, capabilities=sorted(capabilities))
        for_s = self.timing.guessed_s if is_guess else self.timing.learned_s
        self._shared.apply(model_changes.capabilities_refused(provider, model, capabilities, self.clock.time(), for_s))

    def length_learned(self, candidate: Candidate, max_input: int, window: int | None) -> None:
        """Remembers the longest request that a model takes, in estimated tokens, and its window in its own tokens."""
        provider, model = candidate.provider.id, candidate.model
        log.info("provider.window_learned", provider=provider, model=model, window=window, max_input=max_input)
        self._shared.apply(
            model_changes.length_learned(provider, model, max_input, window, self.clock.time(), self.timing.learned_s)
        )

    def adaptation(self, candidate: Candidate) -> Adaptation:
        """Returns the changes that a model is known to need."""
        routing = self._shared.routing
        if not routing.limits:
            return UNCHANGED
        return rules.adaptation(routing, candidate.provider.id, candidate.model, self.clock.time())

    def known_adaptation(self, candidate: Candidate, spec: RequestSpec) -> Adaptation:
        """Returns the changes that a model is known to need, except those that a request does not allow."""
        known = self.adaptation(candidate)
        if known is UNCHANGED:
            return known
        refused = frozenset(each for each in known.without if spec.requires(each))
        return replace(known, without=known.without - refused) if refused else known

    def is_resting(self, provider: str, model: str) -> bool:
        """Returns whether a model rests."""
        routing = self._shared.routing
        return bool(routing.resting) and rules.is_resting(routing, provider, model, self.clock.time())

    def model_answered(self, candidate: Candidate, began: float) -> None:
        """Ends the rest of a model that answered all the same."""
        if self._shared.routing.resting:
            self._shared.apply(model_changes.woken(candidate.provider.id, candidate.model, began))

    def succeeded(
        self,
        settings: ProviderSettings,
        purpose: str,
        *,
        began: float,
        prefer: bool,
        first_output_s: float | None = None,
    ) -> None:
        """Records an answer. Does no I/O where it changes nothing, which is the ordinary case."""
        if not self._is_current(settings):
            return
        provider = settings.id
        counts = self.counts[provider]
        counts.requests += 1
        if first_output_s is not None:
            counts.first_output_s.append(first_output_s)
        if self._is_outage:
            self._note_end_of_outage(provider)
        self._prove(provider, purpose, began=began, prefer=prefer)

    def opened(self, settings: ProviderSettings, purpose: str, *, began: float, prefer: bool) -> None:
        """Records the first output of an answer: a provider that was not healthy is healthy now, at every replica."""
        if settings.id in self._shared.routing.cooldowns and self._is_current(settings):
            self._prove(settings.id, purpose, began=began, prefer=prefer)

    def _is_current(self, settings: ProviderSettings) -> bool:
        """Returns whether a provider still has the settings with which a request began."""
        return self._roster.all.get(settings.id) == settings

    def _prove(self, provider: str, purpose: str, *, began: float, prefer: bool) -> None:
        if provider in self.standing_order().proven[prefer]:
            return
        before = self._leader()
        state, now = self._shared.routing, self.clock.time()
        usable = self._roster.usable
        self._shared.apply(changes.proven(provider, began, now, self.limits.preferred_ttl_s, usable, prefer=prefer))
        if self._shared.routing is state:
            return
        if all(name in state.cooldowns for name in usable):
            self._note_end_of_outage(provider)
        after = self._leader()
        if before != after and before is not None and after is not None:
            log.info("provider.recovered", before=before, after=after, purpose=purpose)
            self._notify(LeaderChanged(before, after, None))

    def all_failed(self, attempts: tuple[FailedAttempt, ...]) -> None:
        """Records that no provider answered a request."""
        self._is_outage = True
        self._notify(NoProviderAnswers(attempts))

    def _note_end_of_outage(self, provider: str) -> None:
        self._is_outage = False
        self._notify(AnswersAgain(provider))

    def keep_user(self, user: str, provider: str) -> None:
        """Routes a user to this provider for some minutes, since it answered in place of a busy one."""
        log.info("provider.stepped_in", provider=provider)
        self._affinity.begin(user, provider)

    def publish(self, event: LLMEvent) -> None:
        """Counts an event of a request, and passes it to the watchers."""
        if self.metrics is not None:
            self.metrics.count(event)
        for watcher in self._watchers:
            watcher(event)

    def count(self, report: RequestReport) -> None:
        """Reports the usage of a request that is over."""
        if self._meter is not None:
            self._meter.count(report)

    def _follow_roster(self) -> None:
        for provider in set(self.counts) - set(self._roster.all):
            del self.counts[provider]
        before, after = self._order, self._roster.usable
        self._order = after
        if [each for each in before if each in after] != [each for each in after if each in before]:
            # At every replica: one that follows late may have made a provider of the former order preferred again.
            self._shared.apply(changes.preference_ended(self.clock.time()))

    def _leader(self) -> str | None:
        """Returns the provider that is asked first by the rules, without a probe."""
        return next(iter(self.standing_order().order), None)

    def _notify(self, event: ProviderNotice) -> None:
        for listener in self._listeners:
            listener(event)
