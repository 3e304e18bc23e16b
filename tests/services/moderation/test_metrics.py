"""What is counted of moderation: the same as the statistics of the groups, for all of them together."""

from core.database import Database
from core.telemetry import Metrics
from services.moderation.figures import Figures, Statistics
from services.moderation.metrics import COUNTED, ModerationMetrics
from tests.support.clock import ManualClock
from tests.support.web_client import Page


async def test_each_figure_is_counted_once_for_all_groups(database: Database, clock: ManualClock) -> None:
    metrics = Metrics()
    statistics = Statistics(database, clock, ModerationMetrics(metrics).count)
    await statistics.count(-100, Figures(seen=3, judged=2, asked=1, acted=1))
    await statistics.count(-200, Figures(seen=1, carded=1, undone=1, unjudged=1))
    await statistics.count(-200, Figures())
    figures = Page(200, {}, metrics.exposition()[0].decode()).figures
    counted = {what: figures[f"understudy_moderation_messages_total{{what={what}}}"] for what in COUNTED}
    assert counted == {"seen": 4, "judged": 2, "asked": 1, "acted": 1, "carded": 1, "undone": 1, "unjudged": 1}
    # A group's own figures are its own.
    assert (await statistics.of(-100, 1)).seen == 3
