"""Parses JSON of the Bot API: integers that fit no column count as absent."""

from typing import Any

from core.bounded_json import parse_json

SMALLEST_INTEGER = -(2**63)
LARGEST_INTEGER = 2**63 - 1
_LONGEST_INTEGER = 20
"""Characters of the smallest 64-bit integer. Python refuses to convert one of thousands, and with it the whole body."""


def parse_api_json(body: str | bytes) -> Any:  # noqa: ANN401 - any JSON
    """Returns the value of a JSON text; an integer beyond 64 bits becomes None.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    return parse_json(body, parse_int=_parse_integer)


def _parse_integer(digits: str) -> int | None:
    if len(digits) > _LONGEST_INTEGER:
        return None
    number = int(digits)
    return number if SMALLEST_INTEGER <= number <= LARGEST_INTEGER else None
