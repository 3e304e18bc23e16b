"""Provider status for operators, from the shared state and this replica's counts."""

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from core.config.settings import ProviderSettings
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.state.rules import CircuitPhase, Cooldown, ModelLimits, RestingModel, Routing, active_limits

LATENCIES_KEPT = 200


class ProviderState(StrEnum):
    """The state of a provider, as shown to operators."""

    FORCED = "forced"
    PREFERRED = "preferred"
    HEALTHY = "healthy"
    PROBING = "probing"
    HALF_OPEN = "half_open"
    COOLING = "cooling"
    NOT_CONFIGURED = "not_configured"


_FAILING = frozenset(
    {ProviderState.COOLING, ProviderState.HALF_OPEN, ProviderState.PROBING, ProviderState.NOT_CONFIGURED}
)


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """One provider, as `/provider` shows it. Instants are seconds since the epoch; counts are of this replica."""

    provider: str
    kind: str
    models: tuple[str, ...]
    state: ProviderState
    until: float | None = None
    """The end of the force, the preference or the cooldown."""
    reason: str | None = None
    """The reason for a cooldown or a missing configuration."""
    requests: int = 0
    failures: int = 0
    last_error: str | None = None
    last_words: str | None = None
    """The server's message about the last error."""
    first_output_s: tuple[float, ...] = ()
    """The most recent times to first output, oldest first."""
    in_flight: int = 0
    """Requests of this replica in flight."""
    resting: tuple[RestingModel, ...] = ()
    """Models that rest although the provider is healthy."""
    limits: tuple[ModelLimits, ...] = ()
    """Refusals of its models, and the windows that it named."""
    limit: int | None = None
    """Maximum of concurrent requests over all replicas; None for no limit."""
    fault: Fault | None = None
    """The kind of the failure that began the cooldown; None for an operator's, or if it is not known."""


def percentile_95(seconds: Sequence[float]) -> float:
    """Returns the 95th percentile of at least one value, within the smallest and the largest one."""
    return seconds[0] if len(seconds) == 1 else statistics.quantiles(seconds, n=20, method="inclusive")[-1]


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """All providers by priority, and whether the state is shared through Redis."""

    providers: tuple[ProviderStatus, ...]
    forced: str | None
    preferred: str | None
    shared: bool

    def as_dict(self) -> dict[str, object]:
        """Returns the first two providers, the preferred one, and the health of each, as JSON values."""
        configured = [each.provider for each in self.providers if each.state is not ProviderState.NOT_CONFIGURED]
        return {
            "primary_provider": configured[0] if configured else None,
            "fallback_provider": configured[1] if configured[1:] else None,
            "preferred_provider": self.forced or self.preferred,
            "provider_health": {
                each.provider: {
                    "healthy": each.state not in _FAILING,
                    "configured": each.state is not ProviderState.NOT_CONFIGURED,
                    "available": each.state not in {ProviderState.COOLING, ProviderState.NOT_CONFIGURED},
                }
                for each in self.providers
            },
        }


@dataclass(slots=True)
class ProviderCounts:
    """This replica's counts for one provider since its start."""

    requests: int = 0
    failures: int = 0
    last_error: str | None = None
    last_words: str | None = None
    first_output_s: deque[float] = field(default_factory=lambda: deque[float](maxlen=LATENCIES_KEPT))


def provider_status(
    provider: ProviderSettings, counts: ProviderCounts, state: Routing, now: float, in_flight: int = 0
) -> ProviderStatus:
    """Returns the status of one provider at `now`, in seconds since the epoch."""
    cooldown = state.cooldowns.get(provider.id)
    until: float | None = None
    reason: str | None = None
    if provider.missing is not None:
        name, reason = ProviderState.NOT_CONFIGURED, provider.missing
    elif state.forced(now) == provider.id and state.force is not None:
        name, until = ProviderState.FORCED, state.force.until
    elif cooldown is not None and state.phase(provider.id, now) is CircuitPhase.COOLING:
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
        counts.requests,
        counts.failures,
        counts.last_error,
        counts.last_words if counts.last_words is not None or cooldown is None else cooldown.words,
        tuple(counts.first_output_s),
        in_flight,
        resting=tuple(entry for entry in state.resting.values() if entry.provider == provider.id and entry.until > now),
        limits=active_limits(state, provider.id, now),
        limit=provider.max_concurrency,
        fault=None if cooldown is None else _known_fault(cooldown),
    )


def _known_fault(cooldown: Cooldown) -> Fault | None:
    """Returns the kind of a failure, unless a newer version wrote one that this one does not know."""
    return next((fault for fault in Fault if fault.value == cooldown.fault), None)
