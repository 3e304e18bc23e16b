"""Durations as people write and read them: `90s`, `10m`, `2h`."""

import math
import re

_UNITS_S = {"s": 1, "m": 60, "h": 3600}
_WRITTEN = re.compile(r"([0-9]{1,6})([smh]?)", re.IGNORECASE)

LONGEST_S = 7 * 24 * 3600.0
"""A week; anything that should hold longer belongs in the configuration."""


def parse_duration(text: str) -> float | None:
    """Parses `90s`, `10m`, `2h` or a plain number of minutes.

    Returns:
        Seconds from 1 to `LONGEST_S`, or None for anything else.
    """
    written = _WRITTEN.fullmatch(text.strip())
    if written is None:
        return None
    seconds = float(int(written[1]) * _UNITS_S[written[2].lower() or "m"])
    return seconds if 1 <= seconds <= LONGEST_S else None


def format_duration(seconds: float) -> str:
    """Formats seconds in at most two units, rounded up: `45s`, `4m 20s`, `2h 5m`."""
    whole = max(0, math.ceil(seconds))
    if whole < _UNITS_S["m"]:
        return f"{whole}s"
    if whole < _UNITS_S["h"]:
        parts = (whole // 60, "m", whole % 60, "s")
    else:
        minutes = math.ceil(whole / 60)
        parts = (minutes // 60, "h", minutes % 60, "m")
    return f"{parts[0]}{parts[1]}" + (f" {parts[2]}{parts[3]}" if parts[2] else "")
