"""Prometheus metrics of moderation: sums over all groups, without a group label."""

from dataclasses import asdict

from core.observability.metrics import Metrics
from services.moderation.records.counts import Counts

COUNTED = ("seen", "judged", "asked", "acted", "carded", "undone", "unjudged")
"""Tokens and cost are among the provider metrics."""


class ModerationMetrics:
    """Sums the counters of `/moderation stats` over all groups."""

    def __init__(self, metrics: Metrics) -> None:
        counter = metrics.counter(
            "moderation_messages", "Messages of moderated groups by what became of them", ("what",)
        )
        # Created at start with value 0, so that a rate includes the first event.
        self._counters = {what: counter.labels(what) for what in COUNTED}

    def count(self, more: Counts) -> None:
        """Adds to the counters."""
        for name, value in asdict(more).items():
            if value and name in self._counters:
                self._counters[name].inc(value)
