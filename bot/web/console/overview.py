"""The overview: the answering provider and the reason, cost, and faults."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from aiohttp import web

from bot.operators.formatting import format_cost
from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import PENDING, Frame
from bot.web.console.frame.navigation import MOST_COUNTED
from bot.web.console.frame.provider_views import ProviderView, read_views
from bot.web.console.plots import Plot, Spark, Timeline, draw_plot, draw_spark, draw_timeline, first_output_median
from bot.web.server import HttpRoute
from core.errors import StorageError
from services.history.figures import Period, Series, join_points

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sparks:
    """Figures of all providers in the last 24 hours, and their times to first output in the last hour."""

    requests: Spark
    failures: Spark
    cost: Spark
    first_output: Spark
    median_s: float | None
    p95_s: float | None


@dataclass(frozen=True, slots=True)
class DayFigures:
    """The graphics of a series of the last 24 hours, for this order of providers."""

    series: Series
    order: Sequence[str]
    sparks: Sparks
    first_output: Plot | None


class OverviewPage:
    """Shows the state of everything on one page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._drawn: DayFigures | None = None

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The route. It checks the session itself."""
        return (self._frame.page("", self.overview),)

    async def overview(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the page of the answering provider, the figures of today, and the faults that need an operator."""
        views = await read_views(self._frame.parts)
        timeline = await self._timeline()
        pending, day = request[PENDING], await self._draw_day()
        order = {name: rank for rank, name in enumerate(self._frame.parts.fallback.order())}
        chain = sorted(views, key=lambda view: (view.is_over_cap, order.get(view.id, len(order))))
        today = [view.today for view in views if view.today is not None]
        return self._frame.render(
            request,
            session,
            "overview.html",
            title="web-overview",
            page="overview",
            views=views,
            force_undo=await self._frame.find_force_undo(views),
            chain=chain,
            first=next((view for view in chain if view.id in order and not view.is_over_cap), None),
            shared=self._frame.parts.admin.status.shared,
            requests=sum(each.requests for each in today),
            failures=sum(each.failures for each in today),
            cost=format_cost(sum(each.cost_usd for each in today)),
            unpriced=sum(each.unpriced for each in today),
            has_figures=bool(today) or not views,
            timeline=timeline,
            work=self._work(views),
            sparks=None if day is None else day.sparks,
            first_output=None if day is None else day.first_output,
            failover_spark=draw_spark([] if timeline is None else timeline.failovers),
            max_hops=self._frame.parts.settings.provider_max_hops,
            most=MOST_COUNTED,
            needs=sum(view.needs_attention for view in views) + bool(pending.letters) + bool(pending.cards),
        )

    def _work(self, views: Sequence[ProviderView]) -> tuple[int, int]:
        """Returns the messages at work in this process and those that wait; without Telegram, the requests."""
        queue = self._frame.parts.daemon.work
        if queue is None:
            return sum(view.status.in_flight for view in views), 0
        return queue.running, queue.waiting

    async def _timeline(self) -> Timeline | None:
        """Returns the states of the last 24 hours; None while the database does not answer."""
        parts = self._frame.parts
        now = parts.clock.time()
        try:
            spans = await parts.states.read_day()
        except StorageError as error:
            log.warning("console.history_unavailable", error=str(error))
            return None
        order = [each.id for each in parts.configuration.current.providers]
        return draw_timeline(spans, order, now, parts.settings.zone)

    def _sparks(self, series: Series) -> Sparks:
        """Returns the lines of the figures of the last 24 hours."""
        points = series.combined()
        latest = join_points(points[-4:])
        return Sparks(
            requests=draw_spark([point.requests for point in points]),
            failures=draw_spark([point.failures for point in points]),
            cost=draw_spark([point.cost_usd for point in points]),
            first_output=draw_spark([point.first_output_s(0.5) or 0.0 for point in points]),
            median_s=latest.first_output_s(0.5),
            p95_s=latest.first_output_s(0.95),
        )

    async def _draw_day(self) -> DayFigures | None:
        """Returns the figures of the last 24 hours; None while the database does not answer."""
        parts = self._frame.parts
        try:
            series = await parts.history.read(Period.DAY)
        except StorageError:
            return None
        order = tuple(each.id for each in parts.configuration.current.providers)
        # Every operator who looks has the same series, which is read anew every few seconds only.
        if self._drawn is None or self._drawn.series is not series or self._drawn.order != order:
            plot = draw_plot(series, order, first_output_median, "{:g}".format, parts.settings.zone)
            self._drawn = DayFigures(series, order, self._sparks(series), plot)
        return self._drawn
