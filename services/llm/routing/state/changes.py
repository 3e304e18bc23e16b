"""Changes of the shared state: an act or an outcome, as a pure function from state to state.

Each may be applied again to a newer state, so each defines its effect on entries newer than itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from services.llm.routing.state.rules import (
    Change,
    CircuitPhase,
    Cooldown,
    Force,
    Lease,
    ModelLimits,
    OperatorOverrides,
    Preferred,
    RestingModel,
    Routing,
    find_overrides,
    model_key,
)

CLOCK_SKEW_S = 5.0
"""Tolerated difference between the clocks of two replicas: an operator's act counts as older only beyond it."""

_Entry = TypeVar("_Entry")


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
        provider: id of the provider.
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


def restored(provider: str, before: OperatorOverrides, after: OperatorOverrides, now: float) -> Change:
    """Undoes an operator's act: the overrides that it replaced hold again for the rest of their time.

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
    """Merges two copies of a model's entry: every refusal, and the length that holds for longer."""
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
