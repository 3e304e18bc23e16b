"""What is counted of moderation: the same as the statistics of the groups, for all of them together."""

from datetime import timedelta

from core.db.database import Database
from core.observability.metrics import Metrics
from services.moderation.metrics import COUNTED, ModerationMetrics
from services.moderation.records.counts import KEPT, Counts, Statistics
from tests.support.clock import ManualClock
from tests.support.web_client import Page


async def test_each_figure_is_counted_once_for_all_groups(database: Database, clock: ManualClock) -> None:
    metrics = Metrics()
    statistics = Statistics(database, clock, ModerationMetrics(metrics).count)
    await statistics.count(-100, Counts(seen=3, judged=2, asked=1, acted=1))
    await statistics.count(-200, Counts(seen=1, carded=1, undone=1, unjudged=1))
    await statistics.count(-200, Counts())
    figures = Page(200, {}, metrics.exposition()[0].decode()).figures
    counted = {what: figures[f"understudy_moderation_messages_total{{what={what}}}"] for what in COUNTED}
    assert counted == {"seen": 4, "judged": 2, "asked": 1, "acted": 1, "carded": 1, "undone": 1, "unjudged": 1}
    # A group's own figures are its own.
    assert (await statistics.of(-100, 1)).seen == 3


async def test_figures_are_kept_for_more_than_a_year(database: Database, clock: ManualClock) -> None:
    """Otherwise a row a day for each group would stay for ever."""
    statistics = Statistics(database, clock)
    for _ in range(2):
        await statistics.count(-100, Counts(seen=1))
        clock.shift(timedelta(days=1).total_seconds())
    clock.shift((KEPT - timedelta(days=1)).total_seconds())
    await statistics.forget_old()
    assert (await statistics.of(-100, 10_000)).seen == 1
