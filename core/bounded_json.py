"""Parses JSON from outside: nesting is bounded, and every fault of a text is a ValueError.

Python's parser raises RecursionError for deep nesting, from a depth that differs between its versions; a value that it
still accepts can end the next function that walks it.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

MAX_DEPTH = 100
"""Levels of arrays and objects. Telegram's updates and providers' answers have about twenty."""


def parse_json(text: str | bytes, *, parse_int: Callable[[str], object] | None = None) -> Any:  # noqa: ANN401 - any JSON
    """Returns the value of a JSON text.

    Args:
        text: the text; bytes are UTF-8, UTF-16 or UTF-32.
        parse_int: converts integers; by default `int`.

    Raises:
        ValueError: it is not JSON, or nested more than `MAX_DEPTH` levels deep.
    """
    try:
        value = json.loads(text, parse_int=parse_int)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    brackets = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if brackets > MAX_DEPTH and _is_deep(value):
        raise ValueError("the JSON is nested too deeply")
    return value


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _members(outer) if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _members(value: object) -> Iterable[object]:
    match value:
        case dict():
            return cast("Mapping[str, object]", value).values()
        case list():
            return cast("list[object]", value)
        case _:
            return ()
