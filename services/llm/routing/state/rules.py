"""Pure routing rules: the shared state, and the order of providers and the limits of models that follow from it.

The same code decides on the local copy, in the embedded store and in Redis, so replicas cannot disagree about a rule,
only about how recent their copy is.

A provider is in one of three phases:

healthy    no cooldown is recorded
cooling    its cooldown has not ended
half-open  its cooldown has ended, and it has not answered since

All instants are seconds since the epoch by the replicas' own clocks, which are expected to agree within
`changes.CLOCK_SKEW_S`; a clock that is ahead only probes that much earlier.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import takewhile

from services.llm.request import UNCHANGED, Adaptation, Capability


class CircuitPhase(StrEnum):
    """The state of a provider's circuit breaker."""

    HEALTHY = "healthy"
    COOLING = "cooling"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Force:
    """A provider that an admin put first until `until`."""

    provider: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Preferred:
    """The provider that answered first after a change. Later answers do not extend its time."""

    provider: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A period in which a provider is asked last.

    Args:
        reporter: a replica's id or an admin.
        failing_since: begin of an earlier cooldown, where the provider has not answered since; None for the first.
        words: the server's own, without secrets; only operators see them.
        fault: the kind of the failure; None for an operator's act, and in entries of an earlier version.
    """

    provider: str
    reason: str
    since: float
    until: float
    reporter: str
    failing_since: float | None = None
    words: str | None = None
    fault: str | None = None

    @property
    def outage_since(self) -> float:
        """The instant of the first failure since the provider's last answer."""
        return self.since if self.failing_since is None else self.failing_since


@dataclass(frozen=True, slots=True)
class OperatorOverrides:
    """The overrides that an operator's act replaces: the force, and the cooldown of one provider."""

    force: Force | None
    cooldown: Cooldown | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to probe a half-open provider, held by one request over all replicas."""

    provider: str
    holder: str
    until: float


@dataclass(frozen=True, slots=True)
class RestingModel:
    """A model that is not asked for a while although its provider is healthy."""

    provider: str
    model: str
    reason: str
    since: float
    until: float
    reporter: str


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """The limits of a model, learned from refusals.

    Args:
        refused: the end of each refused capability's entry.
        window: the context window that the server named, in tokens.
        max_input: the longest request that is sent, in estimated tokens.
        until: the end of the entries about length.
    """

    provider: str
    model: str
    refused: Mapping[str, float] = field(default_factory=dict[str, float])
    window: int | None = None
    max_input: int | None = None
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Routing:
    """The state of the providers that replicas share. Models are keyed by `model_key`."""

    force: Force | None = None
    preference: Preferred | None = None
    cooldowns: Mapping[str, Cooldown] = field(default_factory=dict[str, Cooldown])
    probes: Mapping[str, Lease] = field(default_factory=dict[str, Lease])
    resting: Mapping[str, RestingModel] = field(default_factory=dict[str, RestingModel])
    limits: Mapping[str, ModelLimits] = field(default_factory=dict[str, ModelLimits])

    def phase(self, provider: str, now: float) -> CircuitPhase:
        """Returns the phase of a provider at `now`."""
        cooldown = self.cooldowns.get(provider)
        if cooldown is None:
            return CircuitPhase.HEALTHY
        return CircuitPhase.COOLING if cooldown.until > now else CircuitPhase.HALF_OPEN

    def forced(self, now: float) -> str | None:
        """Returns the forced provider, while the force lasts."""
        return self.force.provider if self.force is not None and self.force.until > now else None

    def preferred(self, now: float) -> str | None:
        """Returns the preferred provider, while the preference lasts and the provider is healthy."""
        preference = self.preference
        if preference is None or preference.until <= now or preference.provider in self.cooldowns:
            return None
        return preference.provider

    def probing(self, provider: str, now: float) -> bool:
        """Returns whether a request holds the probe's lease."""
        lease = self.probes.get(provider)
        return lease is not None and lease.until > now


def model_key(provider: str, model: str) -> str:
    """Returns the key of a model; ids of providers hold no slash."""
    return f"{provider}/{model}"


Change = Callable[[Routing], Routing]
"""A change of the state. It may be applied again to a newer state that another replica wrote."""


def order(
    routing: Routing,
    providers: Sequence[str],
    now: float,
    *,
    choice: str | None = None,
    stay: str | None = None,
    probe: str | None = None,
) -> list[str]:
    """Returns all of `providers` in the order in which a request asks them.

    Args:
        routing: the state.
        providers: the ids that may serve, by priority.
        now: seconds since the epoch.
        choice: the provider that the user chose.
        stay: the provider that stepped in for a busy one when this user was last answered.
        probe: the half-open provider for which this request holds the lease.
    """
    phases = {provider: routing.phase(provider, now) for provider in providers}
    healthy = [p for p in providers if phases[p] is CircuitPhase.HEALTHY or p == probe]
    half_open = [p for p in providers if phases[p] is CircuitPhase.HALF_OPEN and p != probe]
    cooling = sorted(
        (p for p in providers if phases[p] is CircuitPhase.COOLING and p != probe),
        key=lambda p: routing.cooldowns[p].until,
    )
    first = (routing.forced(now), choice, stay, probe, routing.preferred(now))
    return list(dict.fromkeys(p for p in (*first, *healthy, *half_open, *cooling) if p in phases))


def probe_due(routing: Routing, providers: Sequence[str], now: float, *, choice: str | None = None) -> str | None:
    """Returns the half-open provider that the next request should probe, or None.

    Only a provider that would be asked first if it were healthy is probed, one at a time. Where no provider is healthy,
    every request asks it anyway.
    """
    if routing.forced(now) in providers or choice in providers:
        return None
    preferred = routing.preferred(now)
    if preferred not in providers:
        # A replica with other settings may prefer a provider that is unknown here.
        preferred = None
    for provider in providers:
        if provider == preferred:
            return None
        phase = routing.phase(provider, now)
        if phase is CircuitPhase.HALF_OPEN:
            return None if routing.probing(provider, now) else provider
        if phase is CircuitPhase.HEALTHY and preferred is None:
            return None
    return None


def leads(routing: Routing, provider: str, priority: Sequence[str], now: float) -> bool:
    """Returns whether no healthy provider has a higher priority.

    Only then may an answer make the provider preferred. An answer that began before a preference expired or was cleared
    would otherwise renew it, and under load there always is one: the priority order would never return.
    """
    above = takewhile(lambda other: other != provider, priority)
    return all(routing.phase(other, now) is not CircuitPhase.HEALTHY for other in above)


def is_proven(routing: Routing, provider: str, now: float, *, prefer: bool) -> bool:
    """Returns whether an answer changes nothing: the provider is healthy, and preferred if the answer may make it so.

    This is the ordinary case, in which no change needs to be built.
    """
    return provider not in routing.cooldowns and (not prefer or routing.preferred(now) == provider)


@dataclass(frozen=True, slots=True)
class StandingOrder:
    """The rules as they apply to requests without a choice, until the state or the providers change or an entry ends.

    Args:
        providers: the ids that may serve, by priority.
        since: the instant of which the rules were applied.
        until: the end of the first entry that ends.
        order: the providers in the order in which a request asks them.
        forced: the provider that an admin put first.
        leaders: the providers without a healthy one of higher priority.
        proven: the providers whose answer changes nothing, by whether it may make its provider preferred.
    """

    routing: Routing
    providers: tuple[str, ...]
    since: float
    until: float
    order: tuple[str, ...]
    forced: str | None
    leaders: frozenset[str]
    proven: Mapping[bool, frozenset[str]]


def find_standing_order(routing: Routing, providers: tuple[str, ...], now: float) -> StandingOrder:
    """Applies the rules to requests without a choice."""
    ends = [entry.until for entry in (routing.force, routing.preference, *routing.cooldowns.values()) if entry]
    return StandingOrder(
        routing,
        providers,
        since=now,
        until=min((end for end in ends if end > now), default=math.inf),
        order=tuple(order(routing, providers, now)),
        forced=routing.forced(now),
        leaders=frozenset(each for each in providers if leads(routing, each, providers, now)),
        proven={
            prefer: frozenset(each for each in providers if is_proven(routing, each, now, prefer=prefer))
            for prefer in (False, True)
        },
    )


def find_overrides(routing: Routing, provider: str) -> OperatorOverrides:
    """Returns the overrides that an operator's act on a provider may replace."""
    return OperatorOverrides(routing.force, routing.cooldowns.get(provider))


def is_resting(routing: Routing, provider: str, model: str, now: float) -> bool:
    """Returns whether a model rests."""
    entry = routing.resting.get(model_key(provider, model))
    return entry is not None and entry.until > now


def adaptation(routing: Routing, provider: str, model: str, now: float) -> Adaptation:
    """Returns the changes to a request that a model is known to need."""
    limits = routing.limits.get(model_key(provider, model))
    if limits is None:
        return UNCHANGED
    known = set(Capability)
    without = frozenset(Capability(name) for name, until in limits.refused.items() if name in known and until > now)
    if limits.until <= now:
        return Adaptation(without) if without else UNCHANGED
    return Adaptation(without, limits.max_input, limits.window)


def active_limits(routing: Routing, provider: str, now: float) -> tuple[ModelLimits, ...]:
    """Returns the knowledge about a provider's models, without the entries that have ended."""
    current = (_current(limits, now) for limits in routing.limits.values() if limits.provider == provider)
    return tuple(limits for limits in current if limits.refused or limits.window or limits.max_input)


def _current(limits: ModelLimits, now: float) -> ModelLimits:
    refused = {name: until for name, until in limits.refused.items() if until > now}
    if limits.until > now:
        return replace(limits, refused=refused)
    return replace(limits, refused=refused, window=None, max_input=None)
