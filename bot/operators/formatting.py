"""Costs and counts for operators, in English."""

from services.usage.totals import UsageTotal

LEAST_SHOWN = 0.0001
"""US dollars; smaller amounts are shown as less than this."""


def format_cost(usd: float) -> str:
    """Formats US dollars: cents from one dollar on, else four decimals."""
    if usd == 0:
        return "$0"
    if usd < LEAST_SHOWN:
        return f"<${LEAST_SHOWN:.4f}"
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.4f}"


def format_count(count: int, noun: str) -> str:
    """Formats a count with its noun, in the plural where needed."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_operator_cost(usage: UsageTotal) -> str:
    """Formats the cost of some requests; an unknown price never counts as zero."""
    if usage.unpriced == 0:
        return format_cost(usage.cost_usd)
    if usage.cost_usd == 0:
        return "no price known"
    return f"{format_cost(usage.cost_usd)} and {usage.unpriced} without a known price"
