"""Clamps instants of the shared state to the longest that can have been set.

Instants are by the clock of the replica that wrote them. One with a clock hours ahead leaves an entry that began in
the future. It is moved to now with the duration that it was written with, and no entry ends later than its kind allows.
The clamped state is written back, so that an entry ends for all replicas even while it is read again and again.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

from core.durations import LONGEST_S
from services.llm.routing.state.changes import CLOCK_SKEW_S
from services.llm.routing.state.rules import (
    Cooldown,
    Force,
    Lease,
    ModelLimits,
    Preferred,
    RestingModel,
    Routing,
)

SET_BY_ADMIN = "set by an admin"
"""The reason of a cooldown that an operator set, for up to `LONGEST_S`."""

_Span = TypeVar("_Span", Force, Preferred, Cooldown, RestingModel)


@dataclass(frozen=True, slots=True)
class InstantBounds:
    """The longest durations of shared entries, in seconds.

    Args:
        cooldown_s: longest cooldown after a failure; a server's `Retry-After` is followed for up to an hour.
        operator_s: longest force or cooldown by an operator.
        preferred_s: `PROVIDER_PREFERRED_TTL`.
        lease_s: longest lease of a probe.
        learned_s: longest retention of a model's refusals.
    """

    cooldown_s: float = 3600.0
    operator_s: float = LONGEST_S
    preferred_s: float = 1800.0
    lease_s: float = 660.0
    learned_s: float = 24 * 3600.0


def clamped(routing: Routing, now: float, bounds: InstantBounds) -> Routing:
    """Returns the state with every instant within its bound; the same object where nothing changes."""
    force, preference = routing.force, routing.preference
    cooldowns = {name: _clamp_cooldown(each, now, bounds) for name, each in routing.cooldowns.items()}
    probes = {name: _clamp_lease(each, now, bounds) for name, each in routing.probes.items()}
    bounded = replace(
        routing,
        force=force and _clamp_span(force, now, bounds.operator_s),
        preference=preference and _clamp_span(preference, now, bounds.preferred_s),
        cooldowns=cooldowns,
        probes=probes,
        resting={name: _clamp_span(each, now, bounds.cooldown_s) for name, each in routing.resting.items()},
        limits={name: _clamp_limits(each, now, bounds.learned_s) for name, each in routing.limits.items()},
    )
    return routing if bounded == routing else bounded


def _clamp_cooldown(cooldown: Cooldown, now: float, bounds: InstantBounds) -> Cooldown:
    is_operators = cooldown.reason == SET_BY_ADMIN
    return _clamp_span(cooldown, now, bounds.operator_s if is_operators else bounds.cooldown_s)


def _clamp_span(entry: _Span, now: float, longest_s: float) -> _Span:
    ahead_s = entry.since - now
    if ahead_s > CLOCK_SKEW_S:
        entry = replace(entry, since=now, until=entry.until - ahead_s)
    return replace(entry, until=_earlier(entry.until, now, longest_s))


def _clamp_lease(lease: Lease, now: float, bounds: InstantBounds) -> Lease:
    return replace(lease, until=_earlier(lease.until, now, bounds.lease_s))


def _clamp_limits(limits: ModelLimits, now: float, longest_s: float) -> ModelLimits:
    refused = {name: _earlier(end, now, longest_s) for name, end in limits.refused.items()}
    return replace(limits, refused=refused, until=_earlier(limits.until, now, longest_s))


def _earlier(end: float, now: float, longest_s: float) -> float:
    """Returns an end that is no further away than `longest_s`; clocks that differ by seconds change nothing."""
    return end if end <= now + longest_s + CLOCK_SKEW_S else now + longest_s
