"""The routing state as the fields of a hash: `force`, `preferred`, and a `cooldown:` and a `probe:` a provider."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from services.llm.routing.rules import Cooldown, Force, Lease, Preferred, Routing

_Entry = TypeVar("_Entry", Force, Preferred, Cooldown, Lease)

_FORCE = TypeAdapter(Force)
_PREFERENCE = TypeAdapter(Preferred)
_COOLDOWN = TypeAdapter(Cooldown)
_LEASE = TypeAdapter(Lease)


def is_routing_field(field: str) -> bool:
    """Whether a field is one that this version writes; those of a newer one are left alone."""
    return field in {"force", "preferred"} or field.startswith(("cooldown:", "probe:"))


def encode_routing(routing: Routing) -> dict[str, str]:
    """The fields that say all that there is to say."""
    entries: dict[str, Force | Preferred | Cooldown | Lease | None] = {
        "force": routing.force,
        "preferred": routing.preference,
        **{f"cooldown:{provider}": cooldown for provider, cooldown in routing.cooldowns.items()},
        **{f"probe:{provider}": lease for provider, lease in routing.probes.items()},
    }
    return {name: json.dumps(asdict(entry)) for name, entry in entries.items() if entry is not None}


def decode_routing(fields: Mapping[str, str]) -> tuple[Routing, frozenset[str]]:
    """What the fields of the hash say, and the names of those that nobody can read."""
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
    )
    return routing, frozenset(unreadable)
