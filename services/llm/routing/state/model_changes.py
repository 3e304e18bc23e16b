"""Changes of the state of single models: rests while their provider is healthy, and refused capabilities.

Like `changes.py`, each is a pure function from state to state.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

from services.llm.request import Capability
from services.llm.routing.state.rules import Change, ModelLimits, RestingModel, Routing, model_key

MAX_MODELS = 200
"""Models that are remembered; of more, the entries that end first are dropped."""


class _Ends(Protocol):
    @property
    def until(self) -> float: ...


_Entry = TypeVar("_Entry", bound=_Ends)


def rested(provider: str, model: str, reason: str, now: float, duration_s: float, reporter: str) -> Change:
    """Lets a model rest. Of two rests the later end is kept."""
    key = model_key(provider, model)

    def change(routing: Routing) -> Routing:
        until = now + duration_s
        standing = routing.resting.get(key)
        if standing is not None and standing.until >= until:
            return routing
        entry = RestingModel(provider, model, reason, now, until, reporter)
        return replace(routing, resting=_bounded({**routing.resting, key: entry}, now))

    return change


def woken(provider: str, model: str, began: float) -> Change:
    """Ends a model's rest after an answer to a request that began later."""
    key = model_key(provider, model)

    def change(routing: Routing) -> Routing:
        entry = routing.resting.get(key)
        if entry is None or entry.since > began:
            return routing
        return replace(routing, resting={name: kept for name, kept in routing.resting.items() if name != key})

    return change


def capabilities_refused(
    provider: str, model: str, capabilities: frozenset[Capability], now: float, duration_s: float
) -> Change:
    """Remembers that a model refuses capabilities."""
    key = model_key(provider, model)

    def change(routing: Routing) -> Routing:
        limits = routing.limits.get(key) or ModelLimits(provider, model)
        standing = {name: until for name, until in limits.refused.items() if until > now}
        refused = {**standing, **{each.value: max(now + duration_s, standing.get(each, 0.0)) for each in capabilities}}
        return replace(routing, limits=_bounded_limits({**routing.limits, key: replace(limits, refused=refused)}, now))

    return change


def length_learned(
    provider: str, model: str, max_input: int, window: int | None, now: float, duration_s: float
) -> Change:
    """Remembers the longest request that is sent to a model; a limit that holds is only lowered."""
    key = model_key(provider, model)

    def change(routing: Routing) -> Routing:
        limits = routing.limits.get(key) or ModelLimits(provider, model)
        if limits.until > now:
            smallest = min(max_input, limits.max_input or max_input)
            learned = replace(limits, max_input=smallest, window=window or limits.window, until=now + duration_s)
        else:
            learned = replace(limits, max_input=max_input, window=window, until=now + duration_s)
        return replace(routing, limits=_bounded_limits({**routing.limits, key: learned}, now))

    return change


def _bounded(entries: Mapping[str, _Entry], now: float) -> Mapping[str, _Entry]:
    current = sorted(
        ((name, entry) for name, entry in entries.items() if entry.until > now), key=lambda item: item[1].until
    )
    return dict(current[-MAX_MODELS:])


def _bounded_limits(entries: Mapping[str, ModelLimits], now: float) -> Mapping[str, ModelLimits]:
    def end(limits: ModelLimits) -> float:
        return max(limits.until, *limits.refused.values(), 0.0)

    current = sorted(
        ((name, entry) for name, entry in entries.items() if end(entry) > now), key=lambda item: end(item[1])
    )
    return dict(current[-MAX_MODELS:])
