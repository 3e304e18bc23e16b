"""Pages of the console: states of the services, filled into templates."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web

from bot.operators.formatting import format_cost
from bot.web.console.access import OperatorSession
from bot.web.console.frame import CONFIG_SAVED, Frame
from bot.web.console.plots import Spark, Timeline, draw_spark, draw_timeline
from bot.web.console.provider_form import KINDS, ModelCatalogue, ProviderForm, default_base_url
from bot.web.console.responses import download
from bot.web.console.settings_view import setting_views
from bot.web.console.views import ProviderFacts, ProviderView, provider_views
from bot.web.server import HttpRoute
from core.config.providers import ProviderSettings, variable_prefix
from core.durations import format_duration
from core.errors import StorageError
from services.admin.audit import AuditEntry, AuditKind
from services.admin.configuration import LISTED
from services.history.figures import Period, join_points
from services.llm.models.inspection import AspectReport
from services.moderation.records.incidents import BATCH

log = structlog.get_logger()

FORCE_CHOICES: Final = (1800, 7200, 86400)
"""Durations that the page offers for a force, in seconds."""
AUDIT_ROWS: Final = 50
MOST_COUNTED: Final = 100


@dataclass(frozen=True, slots=True)
class Sparks:
    """Figures of all providers in the last 24 hours, and their times to first output in the last hour."""

    requests: Spark
    failures: Spark
    cost: Spark
    first_output: Spark
    median_s: float | None
    p95_s: float | None


class ConsolePages:
    """Shows the services."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session themselves."""
        handlers = {
            "": self.overview,
            "/providers": self.providers,
            "/new-provider": self.new_provider,
            "/providers/{id}": self.edit_provider,
            "/providers/{id}/remove": self.confirm_removal,
            "/audit": self.audit,
            "/more": self.more,
            "/settings": self.settings,
        }
        pages = tuple(self._frame.page(path, handler) for path, handler in handlers.items())
        return (*pages, *self._frame.file("/settings.env", self.export, "settings"))

    async def overview(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the page of the answering provider, the figures of today, and the faults that need an operator."""
        views = await self._views()
        timeline = await self._timeline()
        letters, cards = await self._count_letters(), await self._count_cards()
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
            sparks=await self._sparks(),
            failover_spark=draw_spark([] if timeline is None else timeline.failovers),
            max_hops=self._frame.parts.settings.provider_max_hops,
            letters=letters,
            most=MOST_COUNTED,
            most_cards=BATCH,
            cards=cards,
            needs=sum(view.needs_attention for view in views) + bool(letters) + bool(cards),
        )

    async def providers(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the list of all providers, with their states and acts."""
        configuration = self._frame.parts.configuration
        return self._frame.render(
            request,
            session,
            "providers.html",
            title="web-providers",
            page="providers",
            views=await self._views(),
            choices=[(seconds, format_duration(seconds)) for seconds in FORCE_CHOICES],
            revision=configuration.current.revision,
            max_hops=self._frame.parts.settings.provider_max_hops,
            is_overridden=LISTED in configuration.current.stored,
            sparks=await self._provider_sparks(),
        )

    async def new_provider(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the form of a provider to be added, filled in for a server that was found."""
        form = ProviderForm.proposed(request.query) if "base_url" in request.query else ProviderForm.empty()
        return form_page(self._frame, request, session, form, None)

    async def edit_provider(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the form of one provider."""
        provider = self._frame.known(request)
        form = ProviderForm.of(provider, self._frame.parts.configuration.variables())
        return form_page(self._frame, request, session, form, provider)

    async def confirm_removal(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Asks before a provider and its key are removed."""
        provider = self._frame.known(request)
        others = [name for name in self._frame.parts.fallback.order() if name != provider.id]
        revision = self._frame.parts.configuration.current.revision
        return self._frame.render(
            request,
            session,
            "remove.html",
            title="web-remove",
            page="providers",
            provider=provider,
            others=others,
            revision=revision,
        )

    async def audit(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the acts of operators, newest first, of one kind or of all, in pages."""
        word = request.query.get("kind", "")
        kind = AuditKind(word) if word in set(AuditKind) else None
        before, after = (_id_in(request, name) for name in ("before", "after"))
        page = await self._frame.parts.audit.page(kind, before=before, after=after, limit=AUDIT_ROWS)
        undoable = await self._frame.parts.configuration.list_undoable()
        rows = [(entry, self._frame.moment(entry.at), _undo_of(entry, undoable)) for entry in page.entries]
        return self._frame.render(
            request,
            session,
            "audit.html",
            title="web-audit",
            page="audit",
            rows=rows,
            kind=kind,
            kinds=[None, *AuditKind],
            newer=page.newer,
            older=page.older,
        )

    async def more(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the pages that a phone's navigation has no room for."""
        return self._frame.render(request, session, "more.html", title="web-more", page="more")

    async def settings(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns every variable in effect with its source; of a secret no character is shown."""
        configuration = self._frame.parts.configuration
        return self._frame.render(
            request,
            session,
            "settings.html",
            title="web-settings",
            page="settings",
            rows=setting_views(configuration, self._frame.moment),
            revision=configuration.current.revision,
        )

    async def export(self, _request: web.Request, _session: OperatorSession) -> web.Response:
        """Returns the variables that the console set, as lines of a `.env` file without keys."""
        lines = self._frame.parts.configuration.export_lines()
        return download("".join(f"{line}\n" for line in lines), "text/plain", "console.env")

    async def _provider_sparks(self) -> Mapping[str, tuple[Spark, Spark]]:
        """Returns each provider's requests and times to first output of the last 24 hours, as far as they are known."""
        try:
            series = await self._frame.parts.history.read(Period.DAY)
        except StorageError:
            return {}
        return {
            name: (
                draw_spark([point.requests for point in points]),
                draw_spark([point.first_output_s(0.5) or 0.0 for point in points]),
            )
            for name, points in series.points.items()
            if any(point.requests for point in points)
        }

    def _work(self, views: Sequence[ProviderView]) -> tuple[int, int]:
        """Returns the messages at work in this process and those that wait; without Telegram, the requests."""
        queue = self._frame.parts.daemon.work
        if queue is None:
            return sum(view.status.in_flight for view in views), 0
        return queue.running, queue.waiting

    async def _count_letters(self) -> int:
        letters = self._frame.parts.daemon.dead_letters
        try:
            return 0 if letters is None else len(await letters.newest(MOST_COUNTED))
        except StorageError:
            return 0

    async def _count_cards(self) -> int:
        queue = self._frame.parts.daemon.moderation
        try:
            return 0 if queue is None else await queue.count()
        except StorageError:
            return 0

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

    async def _sparks(self) -> Sparks | None:
        """Returns the lines of the figures of the last 24 hours; None while the database does not answer."""
        try:
            series = await self._frame.parts.history.read(Period.DAY)
        except StorageError:
            return None
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

    async def _views(self) -> list[ProviderView]:
        parts = self._frame.parts
        configured = {each.id: each for each in parts.configuration.current.providers}
        sources = {
            name: parts.configuration.source(f"{variable_prefix(name)}API_KEY").value
            for name, each in configured.items()
            if each.api_key is not None
        }
        today, now = await parts.admin.usage_today(), parts.clock.time()
        facts = ProviderFacts(parts.fallback.order(), configured, sources, today, now, parts.settings.zone)
        return provider_views(parts.admin.status, facts)


def _undo_of(entry: AuditEntry, undoable: frozenset[int]) -> str | None:
    """Returns the path of the form that undoes a change of the configuration."""
    change = re.match(r"change (\d+):", entry.detail or "") if entry.action == CONFIG_SAVED else None
    return f"undo/{change[1]}" if change is not None and int(change[1]) in undoable else None


def _id_in(request: web.Request, name: str) -> int | None:
    text = request.query.get(name, "")
    return int(text) if text.isdecimal() and len(text) <= len(str(2**53)) else None


def form_page(
    frame: Frame,
    request: web.Request,
    session: OperatorSession,
    form: ProviderForm,
    provider: ProviderSettings | None,
    *,
    faults: Sequence[str] = (),
    reports: Sequence[AspectReport] = (),
    catalogue: ModelCatalogue | None = None,
) -> web.Response:
    """Returns the form of a provider: what was typed, its mistakes, the results of a test, or the server's models."""
    configuration = frame.parts.configuration
    key = f"{variable_prefix(provider.id)}API_KEY" if provider is not None else ""
    stored = configuration.current.stored.get(key)
    return frame.render(
        request,
        session,
        "provider.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if faults else HTTPStatus.OK,
        title="web-edit" if provider is not None else "web-add",
        page="providers",
        form_values=form,
        provider=provider,
        kinds=KINDS,
        default_base_url=default_base_url(form.kind),
        key_source=configuration.source(key).value if provider is not None and provider.api_key else None,
        key_set_at=frame.moment(stored.at) if stored is not None else None,
        can_store_keys=configuration.can_store_keys,
        revision=configuration.current.revision,
        faults=faults,
        reports=reports,
        catalogue=catalogue,
        has_typed_key=form.key is not None,
    )
