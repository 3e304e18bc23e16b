"""Pages of the console: states of the services, filled into templates."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Final

from aiohttp import web

from bot.web.console.access import OperatorSession
from bot.web.console.frame import HOME, Frame, download
from bot.web.console.provider_form import KINDS, ProviderForm, default_base_url
from bot.web.console.settings_view import setting_views
from bot.web.console.views import ProviderView, provider_views, usd
from bot.web.server import HttpRoute
from core.config.providers import ProviderSettings, variable_prefix
from core.durations import format_duration
from services.admin.configuration import LISTED
from services.llm.models.trial import TrialResult
from services.usage.totals import UsageTotal

FORCE_CHOICES: Final = (1800, 7200, 86400)
"""Durations that the page offers for a force, in seconds."""
USAGE_DAYS: Final = (1, 7, 30)
AUDIT_ROWS: Final = 200


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
            "/providers/new": self.new_provider,
            "/providers/{id}": self.edit_provider,
            "/providers/{id}/remove": self.confirm_removal,
            "/usage": self.usage,
            "/usage.csv": self.usage_csv,
            "/audit": self.audit,
            "/settings": self.settings,
            "/settings.env": self.export,
        }
        return tuple(
            HttpRoute("GET", HOME + path, partial(self._frame.signed_in, handler), is_guarded=False)
            for path, handler in handlers.items()
        )

    async def overview(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the page of the answering provider, the figures of today, and the faults that need an operator."""
        views = await self._views()
        order = {name: rank for rank, name in enumerate(self._frame.parts.fallback.order())}
        today = [view.today for view in views if view.today is not None]
        return self._frame.render(
            request,
            session,
            "overview.html",
            title="web-overview",
            page="overview",
            views=views,
            chain=sorted(views, key=lambda view: order.get(view.id, len(order))),
            first=next((view for view in views if order.get(view.id) == 0), None),
            shared=self._frame.parts.admin.status.shared,
            requests=sum(each.requests for each in today),
            failures=sum(each.failures for each in today),
            cost=usd(sum(each.cost_usd for each in today)),
            unpriced=sum(each.unpriced for each in today),
            has_figures=bool(today) or not views,
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
        )

    async def new_provider(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the form of a provider to be added."""
        return form_page(self._frame, request, session, ProviderForm.empty(), None)

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

    async def usage(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns requests, tokens and cost by provider."""
        days, rows = await self._usage(request)
        return self._frame.render(
            request,
            session,
            "usage.html",
            title="web-usage",
            page="usage",
            rows=sorted(rows.items(), key=lambda row: -row[1].requests),
            days=days,
            periods=USAGE_DAYS,
            zone=self._frame.parts.totals.zone_name,
        )

    async def usage_csv(self, request: web.Request, _session: OperatorSession) -> web.Response:
        """Returns the same as CSV."""
        days, rows = await self._usage(request)
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["provider", "requests", "failures", "input_tokens", "output_tokens", "cost_usd", "unpriced"])
        for provider, total in sorted(rows.items()):
            figures = (total.requests, total.failures, total.input_tokens, total.output_tokens)
            writer.writerow([_as_text(provider), *figures, f"{total.cost_usd:.6f}", total.unpriced])
        return download(out.getvalue(), "text/csv", f"usage-{days}-days.csv")

    async def audit(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the newest acts of operators."""
        entries = await self._frame.parts.audit.recent(AUDIT_ROWS)
        rows = [(entry, self._frame.moment(entry.at)) for entry in entries]
        return self._frame.render(request, session, "audit.html", title="web-audit", page="audit", rows=rows)

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

    async def _usage(self, request: web.Request) -> tuple[int, Mapping[str, UsageTotal]]:
        """Returns the days of the chosen period, and the usage of each provider in it."""
        text = request.query.get("days", "")
        days = int(text) if text in {str(days) for days in USAGE_DAYS} else USAGE_DAYS[0]
        totals = self._frame.parts.totals
        return days, await totals.by_provider(totals.today - timedelta(days=days - 1))

    async def _views(self) -> list[ProviderView]:
        parts = self._frame.parts
        configured = {each.id: each for each in parts.configuration.current.providers}
        sources = {
            name: parts.configuration.source(f"{variable_prefix(name)}API_KEY").value
            for name, each in configured.items()
            if each.api_key is not None
        }
        return provider_views(
            parts.admin.status,
            parts.fallback.order(),
            {name: each.remote for name, each in configured.items()},
            sources,
            await parts.admin.usage_today(),
            parts.clock.time(),
        )


def _as_text(cell: str) -> str:
    """Returns a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in "=+-@" else cell


def form_page(
    frame: Frame,
    request: web.Request,
    session: OperatorSession,
    form: ProviderForm,
    provider: ProviderSettings | None,
    *,
    faults: Sequence[str] = (),
    result: TrialResult | None = None,
) -> web.Response:
    """Returns the form of a provider, with what was typed, its mistakes and the result of a test."""
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
        result=result,
    )
