"""Prometheus metrics of the providers, and one span per attempt, within the span of its turn."""

from collections.abc import Mapping
from functools import partial

from opentelemetry.trace import Tracer

from core.observability.metrics import Metrics
from core.observability.tracing import record_span
from services.llm.routing.events import (
    AttemptEnded,
    AttemptResult,
    LeaderChanged,
    LLMEvent,
    Misconfigured,
    ProviderNotice,
)
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.recorder import RequestMetrics
from services.llm.routing.state.shared_state import SharedRouting
from services.llm.routing.status import ProviderState, ProviderStatus

_COOLING = frozenset({ProviderState.COOLING})
_SERVING = frozenset({ProviderState.HEALTHY, ProviderState.PREFERRED, ProviderState.FORCED})


class ProviderMetrics:
    """Counts requests and notices of the fallback service, and reads gauges from its status when they are scraped."""

    def __init__(self, metrics: Metrics, fallback: LLMProviderFallback, shared: SharedRouting) -> None:
        self._fallback = fallback
        self._switches = metrics.counter(
            "provider_switches", "Changes of the provider that is asked first", ("provider", "cause")
        )
        self._misconfigured = metrics.counter(
            "provider_misconfigured", "Rejections of a key, an account or a model's name", ("provider",)
        )
        self._register_gauges(metrics, shared)
        for provider in fallback.providers:
            # Create the series at start, so that a provider's first failure is an increase and not a new series.
            for cause in ("failure", "recovery"):
                self._switches.labels(provider.id, cause)
            self._misconfigured.labels(provider.id)
        fallback.recorder.metrics = RequestMetrics(metrics, fallback.providers)
        fallback.recorder.listen(self.count_notice)

    def count_notice(self, event: ProviderNotice) -> None:
        """Counts a change of the leader, or a misconfigured provider."""
        match event:
            case LeaderChanged(after=after, reason=reason):
                self._switches.labels(after, "recovery" if reason is None else "failure").inc()
            case Misconfigured(provider=provider):
                self._misconfigured.labels(provider).inc()
            case _:
                # Outages are counted by the results of their attempts.
                pass

    def _register_gauges(self, metrics: Metrics, shared: SharedRouting) -> None:
        def configured() -> list[ProviderStatus]:
            statuses = self._fallback.get_provider_status().providers
            return [each for each in statuses if each.state is not ProviderState.NOT_CONFIGURED]

        def in_states(states: frozenset[ProviderState]) -> dict[str, float]:
            return {each.provider: float(each.state in states) for each in configured()}

        metrics.reading(
            "provider_cooling", "1 while a provider cools down", lambda: in_states(_COOLING), label="provider"
        )
        metrics.reading(
            "provider_serving", "1 while a provider is healthy, preferred or forced", lambda: in_states(_SERVING),
            label="provider",
        )  # fmt: skip
        metrics.reading(
            "provider_in_flight",
            "Requests of this replica in flight at a provider",
            lambda: {each.provider: float(each.in_flight) for each in configured()},
            label="provider",
        )
        metrics.reading(
            "routing_shared", "1 while this replica shares the providers' state through Redis",
            lambda: float(shared.connected),
        )  # fmt: skip
        metrics.reading(
            "routing_changes_waiting", "Changes of the providers' state that are not written to Redis yet",
            lambda: float(shared.pending),
        )  # fmt: skip


class CapabilityMetrics:
    """Counts the requests of the capabilities beside chat, and reads their health."""

    def __init__(self, metrics: Metrics, fallbacks: Mapping[str, LLMProviderFallback]) -> None:
        self._requests = metrics.counter(
            "capability_requests", "Requests beside chat by result", ("capability", "provider", "result")
        )
        for capability, fallback in fallbacks.items():
            for provider in fallback.providers:
                self._requests.labels(capability, provider.id, AttemptResult.ANSWERED)
            fallback.recorder.watch(partial(self._note, capability))

        def read_cooling() -> dict[str, float]:
            return {
                f"{capability}/{each.provider}": float(each.state is ProviderState.COOLING)
                for capability, fallback in fallbacks.items()
                for each in fallback.get_provider_status().providers
                if each.state is not ProviderState.NOT_CONFIGURED
            }

        metrics.reading(
            "capability_cooling", "1 while a provider cools down for a capability beside chat", read_cooling,
            label="capability",
        )  # fmt: skip

    def _note(self, capability: str, event: LLMEvent) -> None:
        if isinstance(event, AttemptEnded):
            self._requests.labels(capability, event.provider, event.result).inc()


_NOT_FAILED = frozenset({AttemptResult.ANSWERED, AttemptResult.CANCELLED})


class AttemptSpans:
    """Records attempts as spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def note(self, event: LLMEvent) -> None:
        """Records the span of an attempt that has ended."""
        if not isinstance(event, AttemptEnded):
            return
        attributes: dict[str, str | float] = {
            "understudy.provider": event.provider,
            "understudy.model": event.model,
            "understudy.context": event.purpose,
            "understudy.result": event.result.value,
        }
        if event.fault is not None:
            attributes["understudy.fault"] = event.fault.value
        if event.first_output_s is not None:
            attributes["understudy.first_output_s"] = round(event.first_output_s, 6)
        record_span(
            self._tracer,
            f"attempt {event.provider}",
            int(event.began * 1e9),
            event.seconds,
            attributes,
            failed=event.result not in _NOT_FAILED,
        )
