"""Moderation counters: stored per group and day, exported as sums over all groups."""

from datetime import timedelta

import pytest

from core.db.database import Database
from core.observability.metrics import Metrics
from services.moderation.records.counts import COUNTED, RETENTION, Counts, DailyCounts, ModerationMetrics
from tests.support.clock import ManualClock
from tests.support.web_client import Page

pytestmark = pytest.mark.integration


async def test_metrics_sum_counts_of_all_groups(database: Database, clock: ManualClock) -> None:
    metrics = Metrics()
    counts = DailyCounts(database, clock, ModerationMetrics(metrics).count)
    await counts.add(-100, Counts(seen=3, judged=2, asked=1, acted=1))
    await counts.add(-200, Counts(seen=1, carded=1, undone=1, unjudged=1))
    await counts.add(-200, Counts())
    samples = Page(200, {}, metrics.exposition()[0].decode()).samples
    counted = {what: samples[f"understudy_moderation_messages_total{{what={what}}}"] for what in COUNTED}
    assert counted == {"seen": 4, "judged": 2, "asked": 1, "acted": 1, "carded": 1, "undone": 1, "unjudged": 1}
    # Stored counts are per group.
    assert (await counts.total(-100, 1)).seen == 3


async def test_counts_expire_after_retention(database: Database, clock: ManualClock) -> None:
    counts = DailyCounts(database, clock)
    for _ in range(2):
        await counts.add(-100, Counts(seen=1))
        clock.shift(timedelta(days=1).total_seconds())
    clock.shift((RETENTION - timedelta(days=1)).total_seconds())
    await counts.delete_expired()
    assert (await counts.total(-100, 10_000)).seen == 1
