"""What an operator reads about the providers, and the counts of this replica behind it."""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from core.config.settings import ProviderSettings
from services.llm.routing.rules import CircuitPhase, Routing

LATENCIES_KEPT = 200


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
    in_flight: int = 0
    """Requests that it is at work on."""
    limit: int | None = None
    """How many of all replicas it takes at once, None for any number."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The whole service: the providers in the order of the dict, and whether replicas see each other."""

    providers: tuple[ProviderStatus, ...]
    forced: str | None
    preferred: str | None
    shared: bool


@dataclass(slots=True)
class Tally:
    """What this replica counted of one provider."""

    requests: int = 0
    failures: int = 0
    last_error: str | None = None
    first_output_s: deque[float] = field(default_factory=lambda: deque[float](maxlen=LATENCIES_KEPT))


def provider_status(
    provider: ProviderSettings, tally: Tally, state: Routing, now: float, in_flight: int = 0
) -> ProviderStatus:
    """The status of one provider.

    Args:
        provider: its settings.
        tally: what was counted of it.
        state: what replicas share.
        now: the instant, seconds since the epoch.
        in_flight: how many requests it is at work on.
    """
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
        tally.requests,
        tally.failures,
        tally.last_error,
        tuple(tally.first_output_s),
        in_flight,
        provider.max_concurrency,
    )
