"""Lengths of time as people write and read them."""

import math
import re

from services.usage.totals import UsageTotal

_UNITS_S = {"s": 1, "m": 60, "h": 3600}
_WRITTEN = re.compile(r"([0-9]{1,6})([smh]?)", re.IGNORECASE)

LONGEST_S = 7 * 24 * 3600.0
"""A week: what is meant to hold longer belongs into the configuration."""


def parse_duration(text: str) -> float | None:
    """Seconds of `90s`, `10m`, `2h` or a plain number of minutes; None where it is nothing like that.

    It is at least a second and at most `LONGEST_S`.
    """
    written = _WRITTEN.fullmatch(text.strip())
    if written is None:
        return None
    seconds = float(int(written[1]) * _UNITS_S[written[2].lower() or "m"])
    return seconds if 1 <= seconds <= LONGEST_S else None


def format_duration(seconds: float) -> str:
    """Such as `45s`, `4m 20s`, `2h 5m`: two units are as much as anybody reads; rounded up."""
    whole = max(0, math.ceil(seconds))
    if whole < _UNITS_S["m"]:
        return f"{whole}s"
    if whole < _UNITS_S["h"]:
        parts = (whole // 60, "m", whole % 60, "s")
    else:
        minutes = math.ceil(whole / 60)
        parts = (minutes // 60, "h", minutes % 60, "m")
    return f"{parts[0]}{parts[1]}" + (f" {parts[2]}{parts[3]}" if parts[2] else "")


LEAST_SHOWN = 0.0001
"""Dollars; less than that is not written out."""


def format_cost(usd: float) -> str:
    """An amount of dollars: cents where there are some, else as much as is worth showing."""
    if usd == 0:
        return "$0"
    if usd < LEAST_SHOWN:
        return f"<${LEAST_SHOWN:.4f}"
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}"


def format_count(count: int, noun: str) -> str:
    """So many of something, for operators."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_operator_cost(usage: UsageTotal) -> str:
    """What some requests cost, for operators: never nothing where nobody knows."""
    if usage.unpriced == 0:
        return format_cost(usage.cost_usd)
    if usage.cost_usd == 0:
        return "no price known"
    return f"{format_cost(usage.cost_usd)} and {usage.unpriced} without a known price"
