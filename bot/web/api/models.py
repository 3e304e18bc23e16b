"""The models that a token may ask: their lists, and the choice that a name stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aiohttp import web
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import ModelRequestParameters

from bot.web.api.errors import model_not_found
from bot.web.api.gateway import ApiCall, ApiGateway
from bot.web.server import HttpRoute
from core.config.providers import LiveModels, ProviderSettings
from services.api.admission import ApiAdmission
from services.api.tokens import ApiToken
from services.llm.providers.catalog import Catalog, CatalogError
from services.llm.request import Capability, ModelChoice, RequestSpec, matches_any
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.usage import estimate_tokens, text_tokens

AUTO = "auto"
"""The model that stands for the order of the fallback service."""
PURPOSE = "api"


@dataclass(frozen=True, slots=True)
class ModelOption:
    """A model that can be asked by name."""

    provider: ProviderSettings
    model: str

    @property
    def name(self) -> str:
        """Its name in requests."""
        return f"{self.provider.id}/{self.model}"

    def as_dict(self) -> Mapping[str, str]:
        """Returns it as `/models/chat` lists it."""
        kind = self.provider.kind.value
        return {
            "backend_id": self.provider.id,
            "provider": kind,
            "model": self.model,
            "label": f"{self.provider.id} ({kind}) · {self.model}",
        }


class ModelDirectory:
    """Lists and finds models.

    Args:
        fallback: orders the providers.
        catalog: live model lists of the providers.
        admission: the consent of tokens.
        started_at: the instant at which the list says that its models were made.
        history_tokens: the length of the bot's own conversations.
    """

    def __init__(
        self,
        fallback: LLMProviderFallback,
        catalog: Catalog,
        admission: ApiAdmission,
        started_at: float,
        history_tokens: int,
    ) -> None:
        self._fallback = fallback
        self._catalog = catalog
        self._admission = admission
        self._started_at = int(started_at)
        self._history_tokens = history_tokens

    def routes(self, gateway: ApiGateway) -> Sequence[HttpRoute]:
        """Returns the routes of the lists."""
        return [
            gateway.route("GET", "/v1/models", self._list, is_limited=False),
            gateway.route("GET", "/v1/models/{model:.+}", self._show, is_limited=False),
            gateway.route("GET", "/models/chat", self._options, is_limited=False),
            gateway.route("GET", "/models/battleground", self._options, is_limited=False),
        ]

    async def options(self, token: ApiToken) -> Sequence[ModelOption]:
        """Returns the models that a token may ask by name, in the order of the providers."""
        is_local_only = await self._admission.is_local_only(token)
        return [
            ModelOption(provider, model)
            for provider in self._fallback.providers
            if not (is_local_only and provider.remote)
            for model in await self._models(provider)
            if matches_any(f"{provider.id}/{model}", token.limits.models)
        ]

    async def spec(self, token: ApiToken, model: str, required: frozenset[Capability] = frozenset()) -> RequestSpec:
        """Returns a request of a token.

        Args:
            token: the token.
            model: `auto` or `<provider>/<model>`.
            required: capabilities that must not be left out.

        Raises:
            ApiError: there is no such model, or the token may not ask it.
            StorageError: the consent of the token cannot be read.
        """
        spec = RequestSpec(
            PURPOSE,
            user=token.user,
            chat=token.chat,
            local_only=await self._admission.is_local_only(token),
            required=required,
            models=token.limits.models,
            is_whole=True,
            merges_arrivals=True,
        )
        if model == AUTO:
            return spec
        name, _, wanted = model.partition("/")
        provider = next((each for each in self._fallback.providers if each.id == name), None)
        if provider is None or not matches_any(model, token.limits.models):
            raise model_not_found(model)
        if wanted not in provider.models and wanted not in await self._models(provider):
            raise model_not_found(model)
        return replace(spec, choice=ModelChoice(name, wanted))

    def is_long(self, messages: Sequence[ModelMessage], parameters: ModelRequestParameters | None = None) -> bool:
        """Returns whether a request is longer than a conversation of the bot gets."""
        tools = parameters.function_tools if parameters is not None else ()
        described = sum(text_tokens(str(tool.parameters_json_schema)) for tool in tools)
        return estimate_tokens(messages) + described > self._history_tokens

    async def _models(self, provider: ProviderSettings) -> Sequence[str]:
        if provider.live_models is not LiveModels.TRUE:
            return provider.models
        try:
            live = await self._catalog.recent_models(provider)
        except CatalogError:
            return provider.models
        return list(dict.fromkeys((*provider.models, *live)))

    async def _list(self, _request: web.Request, call: ApiCall) -> web.Response:
        names = [AUTO, *(option.name for option in await self.options(call.token))]
        return web.json_response({"object": "list", "data": [self._entry(name) for name in names]})

    async def _show(self, request: web.Request, call: ApiCall) -> web.Response:
        name = request.match_info["model"]
        await self.spec(call.token, name)
        return web.json_response(self._entry(name))

    async def _options(self, _request: web.Request, call: ApiCall) -> web.Response:
        return web.json_response([option.as_dict() for option in await self.options(call.token)])

    def _entry(self, name: str) -> Mapping[str, object]:
        owner = name.partition("/")[0] if "/" in name else "understudy"
        return {"id": name, "object": "model", "created": self._started_at, "owned_by": owner}
