"""Pure routing rules: the shared state, its changes, and the order of providers that follows from it.

The same code decides on the local copy, in the embedded store and in Redis, so replicas cannot disagree about a rule,
only about how recent their copy is.

A provider is in one of three phases:

healthy    no cooldown is recorded
cooling    its cooldown has not ended
half-open  its cooldown has ended, and it has not answered since

All instants are seconds since the epoch by the replicas' own clocks, which are expected to agree within
`CLOCK_SKEW_S`; a clock that is ahead only probes that much earlier.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import takewhile
from typing import TypeVar

CLOCK_SKEW_S = 5.0
"""Tolerated difference between the clocks of two replicas: an operator's act counts as older only beyond it."""

_Entry = TypeVar("_Entry")


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
    """The force, and the cooldown of one provider: what an operator's act replaces."""

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


def forced(provider: str, now: float, duration_s: float) -> Change:
    """Forces a provider, unless a newer force was set at another replica while this one was disconnected."""
    return lambda routing: (
        routing
        if routing.force is not None and routing.force.since > now + CLOCK_SKEW_S
        else replace(routing, force=Force(provider, now, now + duration_s))
    )


def cleared(now: float) -> Change:
    """Clears the force and the preference, unless they are newer than this act; cooldowns stay."""

    def change(routing: Routing) -> Routing:
        force, preference = routing.force, routing.preference
        newest = now + CLOCK_SKEW_S
        return replace(
            routing,
            force=force if force is not None and force.since > newest else None,
            preference=preference if preference is not None and preference.since > newest else None,
        )

    return change


def preference_ended(now: float) -> Change:
    """Clears the preference, unless it is newer than this act."""

    def change(routing: Routing) -> Routing:
        preference = routing.preference
        is_newer = preference is not None and preference.since > now + CLOCK_SKEW_S
        return routing if preference is None or is_newer else replace(routing, preference=None)

    return change


def cooled(
    provider: str,
    reason: str,
    now: float,
    duration_s: float,
    reporter: str,
    words: str | None = None,
    fault: str | None = None,
) -> Change:
    """Sets a cooldown, after a failure or by an admin. Of two cooldowns the later end is kept."""

    def change(routing: Routing) -> Routing:
        until = now + duration_s
        standing = routing.cooldowns.get(provider)
        if standing is not None and standing.until >= until:
            cooldown = standing
        else:
            failing_since = standing.outage_since if standing is not None else None
            cooldown = Cooldown(provider, reason, now, until, reporter, failing_since, words, fault)
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
    """Applies an answer: ends the cooldown, and makes the provider preferred.

    Args:
        provider: its id.
        began: start of the request. A cooldown set after it stays, since it is newer evidence.
        now: end of the answer.
        ttl_s: how long a new preference lasts.
        priority: all provider ids by priority.
        prefer: whether the provider may become preferred; not after a force, the user's choice, or where another
            candidate could not take this particular request.
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
    """Ends a cooldown and a preference for a provider of lower priority, unless they are newer than this act.

    Knowledge about the provider's models is forgotten: the operator may have changed the server.
    """
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
            resting=_without_provider(routing.resting, provider),
            limits=_without_provider(routing.limits, provider),
        )

    return change


def removed(provider: str, now: float) -> Change:
    """Forgets everything about a provider that is no longer configured, unless it is newer than this act."""
    forget = reset(provider, now, ())
    newest = now + CLOCK_SKEW_S

    def change(routing: Routing) -> Routing:
        force, preference = routing.force, routing.preference
        if force is not None and force.provider == provider and force.since <= newest:
            force = None
        kept = preference is None or preference.provider != provider or preference.since > newest
        return replace(forget(routing), force=force, preference=preference if kept else None)

    return change


def find_overrides(routing: Routing, provider: str) -> OperatorOverrides:
    """Returns what an operator's act on a provider may replace."""
    return OperatorOverrides(routing.force, routing.cooldowns.get(provider))


def restored(provider: str, before: OperatorOverrides, after: OperatorOverrides, now: float) -> Change:
    """Undoes an operator's act: what it replaced holds again for the rest of its time.

    Nothing changes if the force or the provider's cooldown is not the one that the act left.
    """

    def change(routing: Routing) -> Routing:
        if find_overrides(routing, provider) != after:
            return routing
        force, cooldown = before.force, before.cooldown
        rest = _without(routing.cooldowns, provider)
        return replace(
            routing,
            force=force if force is not None and force.until > now else None,
            cooldowns=rest if cooldown is None else {**rest, provider: cooldown},
            probes=_without(routing.probes, provider),
        )

    return change


def probe_taken(provider: str, holder: str, now: float, lease_s: float) -> Change:
    """Takes the probe's lease, unless another request holds it or the provider is no longer half-open."""

    def change(routing: Routing) -> Routing:
        if routing.phase(provider, now) is not CircuitPhase.HALF_OPEN or routing.probing(provider, now):
            return routing
        return replace(routing, probes={**routing.probes, provider: Lease(provider, holder, now + lease_s)})

    return change


def probe_returned(provider: str, holder: str) -> Change:
    """Gives a lease back without an outcome, so that the next request may probe."""

    def change(routing: Routing) -> Routing:
        lease = routing.probes.get(provider)
        if lease is None or lease.holder != holder:
            return routing
        return replace(routing, probes=_without(routing.probes, provider))

    return change


def merged(shared: Routing, local: Routing) -> Routing:
    """Merges two copies that were disconnected: the newer force, the later end of each cooldown, rest and refusal."""
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
        resting=_later_ends(shared.resting, local.resting),
        limits={
            key: _merged_limits(shared.limits.get(key), local.limits.get(key))
            for key in {**local.limits, **shared.limits}
        },
    )


def _later_ends(shared: Mapping[str, RestingModel], local: Mapping[str, RestingModel]) -> Mapping[str, RestingModel]:
    later = {name: entry for name, entry in local.items() if name not in shared or shared[name].until < entry.until}
    return {**shared, **later}


def _merged_limits(shared: ModelLimits | None, local: ModelLimits | None) -> ModelLimits:
    """Returns what both copies know about a model: every refusal, and the length that holds for longer."""
    if shared is None or local is None:
        return shared or local or ModelLimits("", "")
    ends = {
        name: max(shared.refused.get(name, 0.0), local.refused.get(name, 0.0))
        for name in {**shared.refused, **local.refused}
    }
    newer = local if local.until > shared.until else shared
    return replace(newer, refused=ends)


def _without(entries: Mapping[str, _Entry], key: str) -> Mapping[str, _Entry]:
    return {name: entry for name, entry in entries.items() if name != key} if key in entries else entries


def _without_provider(entries: Mapping[str, _Entry], provider: str) -> Mapping[str, _Entry]:
    prefix = model_key(provider, "")
    return {name: entry for name, entry in entries.items() if not name.startswith(prefix)} if entries else entries
