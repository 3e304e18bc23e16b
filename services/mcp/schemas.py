"""Validates the JSON schemas of servers: a schema that a provider's conversion rejects would fail every turn.

The conversions of pydantic-ai recurse, inline references and raise on invalid schemas.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

from pydantic_ai import InlineDefsJsonSchemaTransformer
from pydantic_ai.profiles.openai import OpenAIJsonSchemaTransformer

from core.bounded_json import parse_json

DEEPEST = 32
"""Maximum nesting; the conversions recurse several calls per level."""
MOST_VALUES = 4_000
"""Maximum number of values after references are inlined: a few short definitions that refer to each other expand to
thousands."""


@lru_cache(maxsize=512)
def find_schema_fault(text: str) -> str | None:
    """Returns why a schema, as JSON text, cannot be offered to models; None if it can. Cached: servers repeat them."""
    from pydantic_ai.profiles.google import GoogleJsonSchemaTransformer

    try:
        schema = cast("dict[str, Any]", parse_json(text))  # Any: JSON
        if schema.get("type") != "object":
            return "its arguments are not an object"
        if not _is_shallow(schema) or _count_values(schema, schema, {}) > MOST_VALUES:
            return "its schema is too large"
        for conversion in (InlineDefsJsonSchemaTransformer, OpenAIJsonSchemaTransformer, GoogleJsonSchemaTransformer):
            conversion(schema).walk()
    except Exception:  # noqa: BLE001 - whatever a conversion raises, it would raise in every turn
        return "its schema is not valid"
    return None


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from cast("dict[str, object]", value).values()
    elif isinstance(value, list):
        yield from cast("list[object]", value)


def _is_shallow(schema: object) -> bool:
    level = [schema]
    for _ in range(DEEPEST):
        level = [child for value in level for child in _children(value)]
        if not level:
            return True
    return False


def _count_values(value: object, schema: Mapping[str, Any], known: dict[str, int]) -> int:
    """Counts the values of a schema whose local references are inlined; a definition that names itself counts once."""
    count = 1
    reference = cast("dict[str, object]", value).get("$ref") if isinstance(value, dict) else None
    if isinstance(reference, str):
        if reference not in known:
            known[reference] = 0
            known[reference] = _count_values(_resolve(schema, reference), schema, known)
        count += known[reference]
    return count + sum(_count_values(child, schema, known) for child in _children(cast("object", value)))


def _resolve(schema: Mapping[str, Any], reference: str) -> object:
    node: object = schema
    for name in reference.split("/")[1:]:
        node = cast("dict[str, object]", node).get(name) if isinstance(node, dict) else None
    return node
