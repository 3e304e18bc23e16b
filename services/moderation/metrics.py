"""What is counted of moderation, over all groups: no label names one."""

from dataclasses import asdict

from core.observability.metrics import Metrics
from services.moderation.records.counts import Counts

COUNTED = ("seen", "judged", "asked", "acted", "carded", "undone", "unjudged")
"""Tokens and cost are in the figures of the providers."""


class ModerationMetrics:
    """Counts what `/moderation stats` tells of one group, for all of them.

    Args:
        metrics: where it is shown.
    """

    def __init__(self, metrics: Metrics) -> None:
        counter = metrics.counter(
            "moderation_messages", "Messages of moderated groups by what became of them", ("what",)
        )
        # Each from the start, so that a rate can be told of the first one.
        self._counters = {what: counter.labels(what) for what in COUNTED}

    def count(self, more: Counts) -> None:
        """Add to the figures."""
        for name, value in asdict(more).items():
            if value and name in self._counters:
                self._counters[name].inc(value)
