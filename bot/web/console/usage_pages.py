"""The page of usage: requests, tokens and cost by provider, their plots over time, and the same as CSV."""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Final, TypeVar

import structlog
from aiohttp import web

from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.responses import done, download, to_csv, undo_path
from bot.web.console.plots import Plot, draw_plot, first_output_median
from bot.web.server import HttpRoute
from core.errors import StorageError
from services.admin.undo import BudgetAct
from services.history.figures import Period, Series
from services.llm.routing.admission.budget_guard import BudgetKind
from services.usage.totals import UsageTotal

log = structlog.get_logger()
T = TypeVar("T")

PERIODS: Final = {1: Period.DAY, 7: Period.MONTH, 30: Period.MONTH, 365: Period.YEAR}
"""Days that the page offers, each with the period of the history that has them."""
GROUPS: Final = ("provider", "model", "purpose")


class UsagePages:
    """Shows usage."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session themselves."""
        page, act = self._frame.page, self._frame.act
        return (
            page("/usage", self.usage),
            *self._frame.file("/usage.csv", self.usage_csv, "usage"),
            *self._frame.file("/budgets.csv", self.budgets_csv, "usage"),
            act("/budgets", self.set_budget),
        )

    async def set_budget(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Sets the budget of a user or a chat."""
        form = {name: str(value).strip().lower() for name, value in (await request.post()).items()}
        kind, amount = form.get("kind", ""), form.get("amount", "")
        change = None
        if kind in {BudgetKind.USER.value, BudgetKind.CHAT.value}:
            change = await self._frame.parts.budgets.set_limit(
                BudgetKind(kind), form.get("owner", ""), amount, session.actor_id
            )
        if change is None:
            return await self.usage(request, session, fields=form)
        owner = form.get("owner", "")
        kept = BudgetAct(owner_kind=BudgetKind(kind), owner=owner, before=change.before, after=change.after)
        return done(
            "budget-set",
            change.name,
            page="usage",
            undo=undo_path(await self._frame.parts.undoable.keep(kept, change.audit_id)),
        )

    async def budgets_csv(self, _request: web.Request, _session: OperatorSession) -> web.Response:
        """Returns the budgets of today as CSV."""
        budgets = self._frame.parts.budgets
        found = [(name or "all", state) for name, state in await budgets.list_configured()] + await budgets.list_set()
        lines = [
            (name, "" if state.limit_usd is None else f"{state.limit_usd:.6f}", f"{state.spent_usd:.6f}")
            for name, state in found
        ]
        return download(to_csv(("budget", "limit_usd", "spent_usd"), lines), "text/csv", "budgets.csv")

    async def usage(
        self, request: web.Request, session: OperatorSession, *, fields: Mapping[str, str] | None = None
    ) -> web.Response:
        """Returns requests, tokens and cost by provider, and the budgets of today.

        Args:
            fields: those of a form that cannot be read.
        """
        days, group = _chosen(request)
        by_provider = group == GROUPS[0]
        budgets = self._frame.parts.budgets
        # A part that the database does not answer in time takes no other part of the page.
        rows = await _known(self._read(days, group))
        series = await _known(self._series(days))
        order = [each.id for each in self._frame.parts.configuration.current.providers]
        return self._frame.render(
            request,
            session,
            "usage.html",
            status=HTTPStatus.OK if fields is None else HTTPStatus.UNPROCESSABLE_ENTITY,
            fields=fields,
            budgets=await _known(budgets.list_configured()),
            own_budgets=await _known(budgets.list_set()),
            title="web-usage",
            page="usage",
            rows=None if rows is None else sorted(rows.items(), key=lambda row: -row[1].requests),
            total=_total((rows or {}).values()),
            group=group,
            groups=GROUPS,
            days=days,
            periods=list(PERIODS),
            zone=self._frame.parts.totals.zone_name,
            measured={name: series.total(name) for name in rows or ()} if series is not None and by_provider else {},
            by_provider=by_provider,
            plots=self._plots(request, series, order) if series is not None else None,
        )

    async def usage_csv(self, request: web.Request, _session: OperatorSession) -> web.Response:
        """Returns the same as CSV."""
        days, group = _chosen(request)
        rows = await self._read(days, group)
        names = (group, "requests", "failures", "input_tokens", "output_tokens", "cost_usd", "unpriced")
        lines: list[Sequence[object]] = []
        suffix = "" if group == GROUPS[0] else f"-by-{group}"
        for name, total in sorted(rows.items()):
            figures = (total.requests, total.failures, total.input_tokens, total.output_tokens)
            lines.append([name, *figures, f"{total.cost_usd:.6f}", total.unpriced])
        return download(to_csv(names, lines), "text/csv", f"usage-{days}-days{suffix}.csv")

    async def _read(self, days: int, group: str) -> Mapping[str, UsageTotal]:
        """Returns the usage of a period by provider, model or purpose."""
        totals = self._frame.parts.totals
        read = {"provider": totals.by_provider, "model": totals.by_model, "purpose": totals.by_purpose}[group]
        return await read(totals.today - timedelta(days=days - 1))

    async def _series(self, days: int) -> Series:
        """Returns the history of so many days."""
        series = await self._frame.parts.history.read(PERIODS[days])
        kept = days * 86_400 // series.step_s
        points = {name: each[-kept:] for name, each in series.points.items()}
        return replace(series, instants=series.instants[-kept:], points=points)

    def _plots(self, request: web.Request, series: Series, order: Sequence[str]) -> list[tuple[str, Plot | None]]:
        draw = partial(draw_plot, series, order, zone=self._frame.parts.settings.zone)
        return [
            ("web-requests", draw(lambda point: float(point.requests), show=_count)),
            ("web-failed", draw(lambda point: float(point.failures), show=_count)),
            ("web-cost", draw(lambda point: point.cost_usd, show=_cost)),
            (
                "web-first-output",
                draw(
                    first_output_median,
                    show=lambda value: self._frame.text(request, "web-seconds", seconds=f"{value:g}"),
                ),
            ),
        ]


def _chosen(request: web.Request) -> tuple[int, str]:
    """Returns the days and the grouping that the address asks for."""
    text, by = request.query.get("days", ""), request.query.get("by", "")
    return int(text) if text in {str(days) for days in PERIODS} else 1, by if by in GROUPS else GROUPS[0]


async def _known(reading: Awaitable[T]) -> T | None:
    """Awaits a query; returns None while the database does not answer."""
    try:
        return await reading
    except StorageError as error:
        log.warning("console.part_unavailable", error=str(error))
        return None


def _total(rows: Iterable[UsageTotal]) -> UsageTotal:
    """Returns the sum of rows."""
    return UsageTotal(*(sum(figures) for figures in zip(*(astuple(row) for row in rows), strict=True)))


def _cost(value: float) -> str:
    return f"${value:,.10g}"


def _count(value: float) -> str:
    return f"{value:,.10g}"
