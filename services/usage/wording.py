"""Costs in words."""

from services.usage.accounts import Usage

LEAST_SHOWN = 0.0001
"""Dollars; less than that is not written out."""


def say_cost(usd: float) -> str:
    """An amount of dollars: cents where there are some, else as much as is worth showing."""
    if usd == 0:
        return "$0"
    if usd < LEAST_SHOWN:
        return f"<${LEAST_SHOWN:.4f}"
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}"


def say_count(count: int, noun: str) -> str:
    """So many of something, for operators."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def say_operators_cost(usage: Usage) -> str:
    """What some requests cost, for operators: never nothing where nobody knows."""
    if usage.unpriced == 0:
        return say_cost(usage.cost_usd)
    if usage.cost_usd == 0:
        return "no price known"
    return f"{say_cost(usage.cost_usd)} and {usage.unpriced} without a known price"
