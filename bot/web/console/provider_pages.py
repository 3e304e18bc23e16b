"""The list of providers, and the form of one: its fields, and the variables that a submitted form changes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import web

from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.provider_views import read_views
from bot.web.console.plots import Spark, draw_spark
from bot.web.server import HttpRoute
from core.config.providers import DEFAULT_BASE_URLS, ProviderKind, ProviderSettings, variable_prefix
from core.durations import format_duration
from core.errors import StorageError
from services.admin.configuration import LISTED
from services.history.figures import Period
from services.llm.models.inspection import AspectReport

PLAIN_FIELDS = (
    "base_url",
    "timeout",
    "first_token_timeout",
    "stall_timeout",
    "retries",
    "max_concurrency",
    "budget_day",
)
"""Fields of which each is one variable; an empty one resets the variable."""
MAX_LISTED = 200
"""Models of a server that the form shows; a search finds the rest."""
KINDS = tuple(kind.value for kind in ProviderKind if kind is not ProviderKind.DEMO)
FORCE_CHOICES: Final = (1800, 7200, 86400)
"""Durations that the page offers for a force, in seconds."""


@dataclass(frozen=True, slots=True)
class ProviderForm:
    """A submitted form.

    Args:
        provider_id: the provider's id.
        models: one a line, the default first.
        key: a new key; None leaves the stored one.
        fields: the text of each of `PLAIN_FIELDS`.
    """

    provider_id: str
    kind: str
    models: tuple[str, ...]
    key: str | None
    fields: Mapping[str, str]
    is_remote: bool

    @classmethod
    def parse(
        cls, data: Mapping[str, str], provider_id: str | None = None, added: Sequence[str] = ()
    ) -> "ProviderForm":
        """Reads the fields of a request.

        Args:
            added: models that were picked from the server's list; they come after those that were typed.
        """
        lines = (line.strip() for line in (*data.get("models", "").splitlines(), *added))
        return cls(
            provider_id=provider_id or data.get("id", "").strip(),
            kind=data.get("kind", "").strip(),
            models=tuple(dict.fromkeys(line for line in lines if line)),
            key=data.get("key", "").strip() or None,
            fields={name: data.get(name, "").strip() for name in PLAIN_FIELDS},
            is_remote="remote" in data,
        )

    @classmethod
    def of(cls, provider: ProviderSettings, variables: Mapping[str, str]) -> "ProviderForm":
        """Returns the form of a provider as it is configured now."""
        prefix = variable_prefix(provider.id)
        fields = {name: variables.get(prefix + name.upper(), "") for name in PLAIN_FIELDS}
        return cls(provider.id, provider.kind.value, provider.models, None, fields, provider.remote)

    @classmethod
    def empty(cls) -> "ProviderForm":
        """Returns the form of a provider to be added."""
        return cls("", ProviderKind.OPENAI_COMPATIBLE.value, (), None, dict.fromkeys(PLAIN_FIELDS, ""), is_remote=True)

    @classmethod
    def proposed(cls, query: Mapping[str, str]) -> "ProviderForm":
        """Returns the form of a server that was found on this machine, to be saved or not."""
        fields = dict.fromkeys(PLAIN_FIELDS, "") | {"base_url": query.get("base_url", "")[:300]}
        kind = query.get("kind", "")
        models = tuple(line for line in query.get("models", "")[:1000].split("\n") if line)
        return cls(
            provider_id=query.get("id", "")[:32],
            kind=kind if kind in KINDS else cls.empty().kind,
            models=models,
            key=None,
            fields=fields,
            is_remote=False,
        )

    def changes(self, before: Sequence[ProviderSettings], variables: Mapping[str, str]) -> dict[str, str | None]:
        """Returns the variables that differ from those in effect.

        Args:
            before: the providers in effect, by priority; a new one is appended.
            variables: all variables in effect.
        """
        prefix = variable_prefix(self.provider_id)
        known = {provider.id: provider for provider in before}
        changes: dict[str, str | None] = {}
        if self.provider_id not in known or known[self.provider_id].models != self.models:
            models = {provider.id: list(provider.models) for provider in before}
            changes[LISTED] = list_providers({**models, self.provider_id: list(self.models)})
        for name, text in self.fields.items():
            if text != variables.get(prefix + name.upper(), ""):
                changes[prefix + name.upper()] = text or None
        current = known.get(self.provider_id)
        if current is None or current.kind.value != self.kind:
            changes[f"{prefix}KIND"] = self.kind or None
        if current is None or current.remote != self.is_remote:
            changes[f"{prefix}REMOTE"] = "true" if self.is_remote else "false"
        if self.key is not None:
            changes[f"{prefix}API_KEY"] = self.key
        return changes


@dataclass(frozen=True, slots=True)
class ModelCatalogue:
    """The models of a server that are not in the form, as far as they are shown.

    Args:
        count: all models that the server lists.
        query: part of the names that are shown.
    """

    models: Sequence[str]
    count: int
    query: str

    @classmethod
    def search(cls, models: Sequence[str], chosen: Sequence[str], query: str) -> "ModelCatalogue":
        """Returns the models with a text in their names."""
        found = [name for name in models if query.casefold() in name.casefold() and name not in chosen]
        return cls(found[:MAX_LISTED], len(models), query)


def list_providers(models: Mapping[str, Sequence[str]]) -> str:
    """Returns AVAILABLE_PROVIDERS for these models by provider."""
    return json.dumps({provider: list(names) for provider, names in models.items()}, ensure_ascii=False)


def default_base_url(kind: str) -> str:
    """Returns the address that a kind has without a base URL, empty if it needs one."""
    return DEFAULT_BASE_URLS.get(ProviderKind(kind), "") if kind in KINDS else ""


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
