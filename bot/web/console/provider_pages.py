"""The list of providers, and the form of one."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from aiohttp import web

from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.provider_views import read_views
from bot.web.console.plots import Spark, draw_spark
from bot.web.console.provider_form import KINDS, ModelCatalogue, ProviderForm, default_base_url
from bot.web.server import HttpRoute
from core.config.providers import ProviderSettings, variable_prefix
from core.durations import format_duration
from core.errors import StorageError
from services.admin.configuration import LISTED
from services.history.figures import Period
from services.llm.models.inspection import AspectReport

FORCE_CHOICES: Final = (1800, 7200, 86400)
"""Durations that the page offers for a force, in seconds."""


class ProviderPages:
    """Shows the providers."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session themselves."""
        page = self._frame.page
        return (
            page("/providers", self.providers),
            page("/new-provider", self.new_provider),
            page("/providers/{id}", self.edit_provider),
            page("/providers/{id}/remove", self.confirm_removal),
        )

    async def providers(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the list of all providers, with their states and acts."""
        configuration, views = self._frame.parts.configuration, await read_views(self._frame.parts)
        return self._frame.render(
            request,
            session,
            "providers.html",
            title="web-providers",
            page="providers",
            views=views,
            force_undo=await self._frame.find_force_undo(views),
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
    """Returns the form of a provider: its values, and their mistakes, a test's results, or the server's models."""
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
