"""Encodes the routing state as hash fields.

`force`, `preferred`; `cooldown:` and `probe:` with a provider; `resting:` and `limits:` with a provider and a model.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from services.llm.routing.state.rules import Cooldown, Force, Lease, ModelLimits, Preferred, RestingModel, Routing

_Entry = TypeVar("_Entry", Force, Preferred, Cooldown, Lease, RestingModel, ModelLimits)

_FORCE = TypeAdapter(Force)
_PREFERENCE = TypeAdapter(Preferred)
_COOLDOWN = TypeAdapter(Cooldown)
_LEASE = TypeAdapter(Lease)
_RESTING = TypeAdapter(RestingModel)
_LIMITS = TypeAdapter(ModelLimits)
_PREFIXES = ("cooldown:", "probe:", "resting:", "limits:")


def is_routing_field(field: str) -> bool:
    """Returns whether this version writes the field; fields of a newer version are left alone."""
    return field in {"force", "preferred"} or field.startswith(_PREFIXES)


def encode_routing(routing: Routing) -> dict[str, str]:
    """Returns the fields of a state."""
    entries: dict[str, Force | Preferred | Cooldown | Lease | RestingModel | ModelLimits | None] = {
        "force": routing.force,
        "preferred": routing.preference,
        **{f"cooldown:{provider}": cooldown for provider, cooldown in routing.cooldowns.items()},
        **{f"probe:{provider}": lease for provider, lease in routing.probes.items()},
        **{f"resting:{model}": entry for model, entry in routing.resting.items()},
        **{f"limits:{model}": entry for model, entry in routing.limits.items()},
    }
    return {name: json.dumps(asdict(entry)) for name, entry in entries.items() if entry is not None}


def decode_routing(fields: Mapping[str, str]) -> tuple[Routing, frozenset[str]]:
    """Returns the state, and the names of the fields that cannot be decoded."""
    unreadable: set[str] = set()

    def read(adapter: TypeAdapter[_Entry], field: str) -> _Entry | None:
        try:
            return adapter.validate_json(fields[field])
        except ValidationError:
            unreadable.add(field)
            return None

    def read_all(adapter: TypeAdapter[_Entry], prefix: str) -> dict[str, _Entry]:
        entries = {field.removeprefix(prefix): read(adapter, field) for field in fields if field.startswith(prefix)}
        return {provider: entry for provider, entry in entries.items() if entry is not None}

    routing = Routing(
        force=read(_FORCE, "force") if "force" in fields else None,
        preference=read(_PREFERENCE, "preferred") if "preferred" in fields else None,
        cooldowns=read_all(_COOLDOWN, "cooldown:"),
        probes=read_all(_LEASE, "probe:"),
        resting=read_all(_RESTING, "resting:"),
        limits=read_all(_LIMITS, "limits:"),
    )
    return routing, frozenset(unreadable)
