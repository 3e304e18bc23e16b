"""Costs, counts and instants for operators, in their language."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo

from core.durations import format_duration
from core.i18n import Texts
from services.usage.totals import UsageTotal

LEAST_SHOWN = 0.0001
"""US dollars; smaller amounts are shown as less than this."""


class Wording:
    """Texts in one language.

    Args:
        language: an IETF tag; None for English.
    """

    def __init__(self, texts: Texts, language: str | None = None) -> None:
        self._texts = texts
        self.language = language

    def get(self, key: str, /, **arguments: str | float) -> str:
        """Returns a formatted text."""
        return self._texts.get(key, self.language, **arguments)

    def duration(self, seconds: float) -> str:
        """Formats seconds in at most two units, rounded up: `4m 20s`."""
        parts = format_duration(seconds).split()
        return " ".join(self.get(f"unit-{part[-1]}", number=part[:-1]) for part in parts)

    def until(self, until: float, now: float, zone: tzinfo = UTC) -> str:
        """Formats an instant and the time until then: `until 14:05 UTC (4m 20s left)`."""
        # Rounded up like the time left: at the displayed minute it is over.
        instant = datetime.fromtimestamp(math.ceil(until / 60) * 60, zone)
        same_day = instant.date() == datetime.fromtimestamp(now, zone).date()
        shown = instant.strftime("%H:%M %Z" if same_day else "%Y-%m-%d %H:%M %Z")
        return self.get("operator-until", time=shown, left=self.duration(until - now))

    def requests(self, count: int, failures: int) -> str:
        """Formats a number of requests, and how many of them failed."""
        return self.get("operator-requests", count=count, failures=failures)

    def cost(self, usage: UsageTotal) -> str:
        """Formats the cost of some requests; an unknown price never counts as zero."""
        if usage.unpriced == 0:
            return format_cost(usage.cost_usd)
        if usage.cost_usd == 0:
            return self.get("operator-no-price")
        return self.get("operator-partly-priced", cost=format_cost(usage.cost_usd), unpriced=usage.unpriced)

    def join(self, items: Sequence[str]) -> str:
        """Joins words: `a, b and c`."""
        if len(items) <= 1:
            return "".join(items)
        return self.get("operator-and", first=", ".join(items[:-1]), last=items[-1])


def format_cost(usd: float) -> str:
    """Formats US dollars: cents from one dollar on, else four decimals."""
    if usd == 0:
        return "$0"
    if usd < LEAST_SHOWN:
        return f"<${LEAST_SHOWN:.4f}"
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.4f}"
