"""The rules of who is asked next, without I/O: a state, what changes it, and the order it implies.

Every function here is pure. The same code decides for the local copy, for the embedded store and for
Redis, so that replicas cannot disagree about a rule, only about how recent their copy is.

A provider is in one of three phases:

healthy    no cooldown is recorded
cooling    its cooldown has not ended
half-open  its cooldown has ended, and nobody has proven since that it works again

All instants are seconds since the epoch by the replicas' own clocks, which are expected to agree to
within `CLOCK_SKEW_S`; a clock that is ahead only probes that much earlier.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import takewhile
from typing import TypeVar

CLOCK_SKEW_S = 5.0
"""How far apart the clocks of two replicas may be: what an admin did is only older than something else if it is older
by more."""

_Entry = TypeVar("_Entry")


class CircuitPhase(StrEnum):
    """What the circuit breaker of a provider says."""

    HEALTHY = "healthy"
    COOLING = "cooling"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Force:
    """An admin wants this provider to come first until then."""

    provider: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Preferred:
    """The provider that was the first to answer after a change; its life is fixed, later answers do not prolong it."""

    provider: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Cooldown:
    """Why and until when a provider is asked last, and who said so (a replica's id or an admin)."""

    provider: str
    reason: str
    since: float
    until: float
    reporter: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to probe a half-open provider, held by one request of all replicas."""

    provider: str
    holder: str
    until: float


@dataclass(frozen=True, slots=True)
class Routing:
    """All that replicas share about providers."""

    force: Force | None = None
    preference: Preferred | None = None
    cooldowns: Mapping[str, Cooldown] = field(default_factory=dict[str, Cooldown])
    probes: Mapping[str, Lease] = field(default_factory=dict[str, Lease])

    def phase(self, provider: str, now: float) -> CircuitPhase:
        """The phase of a provider at that instant."""
        cooldown = self.cooldowns.get(provider)
        if cooldown is None:
            return CircuitPhase.HEALTHY
        return CircuitPhase.COOLING if cooldown.until > now else CircuitPhase.HALF_OPEN

    def forced(self, now: float) -> str | None:
        """The provider that an admin forced, while the force lasts."""
        return self.force.provider if self.force is not None and self.force.until > now else None

    def preferred(self, now: float) -> str | None:
        """The preferred provider, while the preference lasts and the provider is healthy."""
        preference = self.preference
        if preference is None or preference.until <= now or preference.provider in self.cooldowns:
            return None
        return preference.provider

    def probing(self, provider: str, now: float) -> bool:
        """Whether some request is probing the provider right now."""
        lease = self.probes.get(provider)
        return lease is not None and lease.until > now


Change = Callable[[Routing], Routing]
"""A step from one state to the next; it may be applied again to a newer state that another replica wrote."""


def order(
    routing: Routing,
    providers: Sequence[str],
    now: float,
    *,
    choice: str | None = None,
    stay: str | None = None,
    probe: str | None = None,
) -> list[str]:
    """All of `providers` in the order in which a request asks them.

    Args:
        routing: the state.
        providers: the ids that may serve, by priority.
        now: the instant, seconds since the epoch.
        choice: the provider that the user picked, if any.
        stay: the provider that the user was moved to because another one was busy, if any.
        probe: the half-open provider whose lease this request holds, if any.
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
    """The half-open provider that the next request should probe, or None.

    Only a provider that would be asked first if it were healthy is worth a probe, one at a time; and where nobody
    is healthy, all try it anyway.
    """
    if routing.forced(now) in providers or choice in providers:
        return None
    preferred = routing.preferred(now)
    if preferred not in providers:
        # A replica with other settings may prefer somebody whom this one does not know.
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
    """Whether no healthy provider stands above this one.

    Only then does an answer of it say who should be asked first. One that began before a preference ran out, or before
    an admin cleared it, would otherwise renew it, and under load there is always such a one: the priority order would
    never come back.
    """
    above = takewhile(lambda other: other != provider, priority)
    return all(routing.phase(other, now) is not CircuitPhase.HEALTHY for other in above)


def forced(provider: str, now: float, duration_s: float) -> Change:
    """An admin forces a provider, unless another replica was told something newer while this one was cut off."""
    return lambda routing: (
        routing
        if routing.force is not None and routing.force.since > now + CLOCK_SKEW_S
        else replace(routing, force=Force(provider, now, now + duration_s))
    )


def cleared(now: float) -> Change:
    """An admin clears the force and the preference, but none that is newer than this; cooldowns stay."""

    def change(routing: Routing) -> Routing:
        force, preference = routing.force, routing.preference
        newest = now + CLOCK_SKEW_S
        return replace(
            routing,
            force=force if force is not None and force.since > newest else None,
            preference=preference if preference is not None and preference.since > newest else None,
        )

    return change


def cooled(provider: str, reason: str, now: float, duration_s: float, reporter: str) -> Change:
    """A provider failed, or an admin rests it. A cooldown that is already set keeps the later end of the two."""

    def change(routing: Routing) -> Routing:
        until = now + duration_s
        standing = routing.cooldowns.get(provider)
        if standing is not None and standing.until >= until:
            cooldown = standing
        else:
            cooldown = Cooldown(provider, reason, now, until, reporter)
        preference = routing.preference
        if preference is not None and preference.provider == provider:
            preference = None
        return replace(
            routing,
            preference=preference,
            cooldowns={**routing.cooldowns, provider: cooldown},
            probes=_without(routing.probes, provider),
        )

    return change


def proven(provider: str, began: float, now: float, ttl_s: float, priority: Sequence[str], *, prefer: bool) -> Change:
    """A provider answered.

    Args:
        provider: its id.
        began: when the request began. A cooldown set after that instant stands: it knows something newer.
        now: when the answer was complete.
        ttl_s: how long a new preference lasts.
        priority: all provider ids in their order.
        prefer: whether the answer says something about the order; an answer by force, by the user's choice or
            because another candidate could not take this particular request does not.
    """
    rank = {name: place for place, name in enumerate(priority)}

    def change(routing: Routing) -> Routing:
        cooldown = routing.cooldowns.get(provider)
        if cooldown is not None and cooldown.since > began:
            return routing
        preference = routing.preference
        standing = routing.preferred(now)
        if prefer and provider in rank and (standing is None or rank[provider] < rank.get(standing, len(rank))):
            preference = Preferred(provider, now, now + ttl_s)
        if cooldown is None and preference is routing.preference:
            return routing
        return replace(
            routing,
            preference=preference,
            cooldowns=_without(routing.cooldowns, provider),
            probes=_without(routing.probes, provider),
        )

    return change


def reset(provider: str, now: float, priority: Sequence[str]) -> Change:
    """An admin ends a cooldown, and a preference for somebody below in the order; neither if it is newer than this."""
    above = set(priority[: priority.index(provider) + 1]) if provider in priority else set[str]()
    newest = now + CLOCK_SKEW_S

    def change(routing: Routing) -> Routing:
        cooldown, preference = routing.cooldowns.get(provider), routing.preference
        if cooldown is not None and cooldown.since > newest:
            return routing
        if preference is not None and preference.provider not in above and preference.since <= newest:
            preference = None
        return replace(
            routing,
            preference=preference,
            cooldowns=_without(routing.cooldowns, provider),
            probes=_without(routing.probes, provider),
        )

    return change


def probe_taken(provider: str, holder: str, now: float, lease_s: float) -> Change:
    """A request takes the lease, unless somebody holds it or the provider is no longer half-open."""

    def change(routing: Routing) -> Routing:
        if routing.phase(provider, now) is not CircuitPhase.HALF_OPEN or routing.probing(provider, now):
            return routing
        return replace(routing, probes={**routing.probes, provider: Lease(provider, holder, now + lease_s)})

    return change


def probe_returned(provider: str, holder: str) -> Change:
    """A request gives its lease back without a verdict, so that the next one may probe."""

    def change(routing: Routing) -> Routing:
        lease = routing.probes.get(provider)
        if lease is None or lease.holder != holder:
            return routing
        return replace(routing, probes=_without(routing.probes, provider))

    return change


def merged(shared: Routing, local: Routing) -> Routing:
    """What two copies that could not see each other know together: the newer force, the later end of each cooldown."""
    forces = [force for force in (shared.force, local.force) if force is not None]
    cooldowns = dict(shared.cooldowns)
    for provider, cooldown in local.cooldowns.items():
        if provider not in cooldowns or cooldowns[provider].until < cooldown.until:
            cooldowns[provider] = cooldown
    return Routing(
        force=max(forces, key=lambda force: force.since, default=None),
        preference=shared.preference or local.preference,
        cooldowns=cooldowns,
        probes={**local.probes, **shared.probes},
    )


def _without(entries: Mapping[str, _Entry], key: str) -> Mapping[str, _Entry]:
    return {name: entry for name, entry in entries.items() if name != key} if key in entries else entries
