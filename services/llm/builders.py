"""A pydantic-ai model for each kind of provider, built when it is first asked for.

What the models share: one long-lived HTTP client per provider, no retries by the SDK (who is asked again, and
when, is the fallback's business), and nothing from the SDKs' own environment variables: an `OPENAI_BASE_URL` or
`OPENAI_ORG_ID` that was set for another program must not reach a provider that never named it.
"""

import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import httpx2
from pydantic_ai.models import Model
from pydantic_ai.profiles import ModelProfile, merge_profile
from pydantic_ai.profiles.openai import OpenAIModelProfile

from core.clock import Clock, SystemClock
from core.provider_settings import ProviderKind, ProviderSettings
from services.llm.demo import DemoModel
from services.llm.families import deployment_of, family_of, sees_images

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from groq import AsyncGroq
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers import Provider

CONNECT_TIMEOUT_S: Final = 5.0
KEEPALIVE_S: Final = 30.0
"""How long an idle connection is kept: less than the 60 s after which common servers and proxies close theirs,
since a request on a connection that is just being closed fails."""

_NO_KEY = "no-key"
"""The SDK insists on a key; servers without one ignore it."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What a builder function is given."""

    provider: ProviderSettings
    wire_name: str
    family: str
    http: httpx2.AsyncClient
    tls: ssl.SSLContext
    clock: Clock

    @property
    def base_url(self) -> str:
        if self.provider.base_url is None:
            raise ValueError(f"provider {self.provider.id} has no base URL")
        return self.provider.base_url.rstrip("/")

    @property
    def key(self) -> str:
        return self.provider.api_key.get_secret_value() if self.provider.api_key is not None else _NO_KEY


class ModelBuilder:
    """Builds models and owns the connections that they use.

    Args:
        clock: what the demo provider pauses by.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._models: dict[tuple[str, str], Model] = {}
        self._clients: dict[str, httpx2.AsyncClient] = {}

    def model(self, provider: ProviderSettings, model_name: str) -> Model:
        """The model of that name, built on first use.

        Raises:
            ValueError: the provider lacks what its kind needs.
        """
        key = (provider.id, model_name)
        if key not in self._models:
            if provider.missing is not None:
                raise ValueError(f"provider {provider.id} cannot be used: {provider.missing}")
            order = _Order(
                provider=provider,
                wire_name=deployment_of(provider, model_name),
                family=family_of(provider, model_name),
                http=self.http_client(provider),
                tls=self._tls,
                clock=self._clock,
            )
            self._models[key] = _BUILDERS[provider.kind](order)
        return self._models[key]

    def context_window(self, provider: ProviderSettings, model_name: str) -> int | None:
        """How many tokens the model takes in and gives out together, where that is known.

        Ollama serves every model with the window of its own configuration, whatever the model could take: unknown.
        """
        if provider.kind is ProviderKind.OLLAMA:
            return None
        return self.model(provider, model_name).context_window

    def sees_images(self, provider: ProviderSettings, model_name: str) -> bool:
        """Whether the model looks at images, as far as its name tells."""
        return sees_images(provider, model_name)

    def http_client(self, provider: ProviderSettings) -> httpx2.AsyncClient:
        """The client that everything sent to that provider goes through."""
        if provider.id not in self._clients:
            self._clients[provider.id] = self._new_client(provider)
        return self._clients[provider.id]

    async def aclose(self) -> None:
        """Close every connection; the builder may be used again afterwards."""
        clients = list(self._clients.values())
        self._clients.clear()
        self._models.clear()
        for client in clients:
            await client.aclose()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # Loading the certificate authorities takes tens of milliseconds: once, not per provider.
        return httpx2.create_ssl_context()

    def _new_client(self, provider: ProviderSettings) -> httpx2.AsyncClient:
        # The deadlines of an answer are kept by whoever asks for it; these only catch what was forgotten.
        backstop = max(provider.timeout_s, provider.first_token_timeout_s, provider.stall_timeout_s) + 5
        connect = min(CONNECT_TIMEOUT_S, provider.first_token_timeout_s)
        return httpx2.AsyncClient(
            timeout=httpx2.Timeout(backstop, connect=connect),
            limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=200, keepalive_expiry=KEEPALIVE_S),
            verify=self._tls,
            # Proxies of the environment are for what leaves the operator's machines: without this, a proxy for the
            # internet would be asked for a model on loopback.
            trust_env=provider.remote,
            follow_redirects=True,
            event_hooks={"request": [_connecting_within(connect)]},
        )


def _connecting_within(seconds: float) -> Callable[[httpx2.Request], Awaitable[None]]:
    """A hook against SDKs that give each request one figure for everything, and so a minute to connect."""

    async def cap(request: httpx2.Request) -> None:
        timeout: dict[str, float | None] = request.extensions.get("timeout", {})
        asked = timeout.get("connect")
        connect = seconds if asked is None else min(asked, seconds)
        request.extensions = {**request.extensions, "timeout": {**timeout, "connect": connect}}

    return cap


def _openai_client(order: _Order, headers: Mapping[str, str] | None = None) -> "AsyncOpenAI":
    from openai import AsyncOpenAI  # noqa: PLC0415 - an SDK takes a second to import: only when it is used

    client = AsyncOpenAI(
        api_key=order.key,
        base_url=order.base_url,
        http_client=order.http,
        timeout=order.http.timeout,
        max_retries=0,
    )
    _forget_environment(client, headers)
    return client


def _forget_environment(client: "AsyncOpenAI | AsyncAnthropic | AsyncGroq", headers: Mapping[str, str] | None = None) -> None:
    """Take back what an SDK read from its own environment variables, and set the headers of ours."""
    for name in ("organization", "project", "admin_api_key", "webhook_secret", "webhook_key"):
        if hasattr(client, name):
            setattr(client, name, None)
    # Where the SDKs keep `default_headers` merged with OPENAI_CUSTOM_HEADERS and its likes;
    # tests/wire/test_requests.py tells when that moves.
    client._custom_headers = dict(headers or {})  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - see above


def _chat_model(
    order: _Order,
    model_class: "type[OpenAIChatModel]",
    sdk_provider: "Provider[AsyncOpenAI]",
    extra: ModelProfile | None = None,
) -> Model:
    """A chat-completions model with the profile of its family.

    The `profile` argument is the last layer of the library's merging, so what is set here holds whatever the
    provider's and the family's own profiles say.
    """
    # Without this a stream that was cut passes for a complete answer. Every kind that we speak to sends a reason.
    ours = merge_profile(extra, OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True))
    if order.family == order.wire_name:
        return model_class(order.wire_name, provider=sdk_provider, profile=ours)
    resolved = model_class(order.family, provider=sdk_provider, profile=ours).profile
    return model_class(order.wire_name, provider=sdk_provider, profile=lambda _: resolved)


def _openai(order: _Order) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415 - imports the SDK
    from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415 - the same

    return _chat_model(order, OpenAIChatModel, OpenAIProvider(openai_client=_openai_client(order)))


def _openai_compatible(order: _Order) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415 - imports the SDK
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider  # noqa: PLC0415 - the same

    sdk_provider = OpenAICompatibleProvider(order.provider.id, openai_client=_openai_client(order))
    # Chat templates of local servers take one system message, at the start.
    one_system_message = OpenAIModelProfile(openai_chat_supports_multiple_system_messages=False)
    return _chat_model(order, OpenAIChatModel, sdk_provider, merge_profile(one_system_message, _limit_field(order)))


def _ollama(order: _Order) -> Model:
    from pydantic_ai.models.ollama import OllamaModel  # noqa: PLC0415 - imports the SDK
    from pydantic_ai.providers.ollama import OllamaProvider  # noqa: PLC0415 - the same

    return _chat_model(order, OllamaModel, OllamaProvider(openai_client=_openai_client(order)), _limit_field(order))


_TAKES_MAX_COMPLETION_TOKENS = re.compile(r"(openai/)?(gpt-[5-9]|o\d)")


def _limit_field(order: _Order) -> ModelProfile:
    """Send the limit of an answer as `max_tokens`, which every compatible server knows.

    OpenAI's reasoning families, should a gateway pass one on, refuse that field and take `max_completion_tokens`.
    """
    newer = _TAKES_MAX_COMPLETION_TOKENS.match(order.family) is not None
    return OpenAIModelProfile(openai_chat_supports_max_completion_tokens=newer)


def _openrouter(order: _Order) -> Model:
    from pydantic_ai.models.openrouter import OpenRouterModel  # noqa: PLC0415 - imports the SDK
    from pydantic_ai.providers.openrouter import OpenRouterProvider  # noqa: PLC0415 - the same

    # The name that OpenRouter shows for an application in its operator's account.
    client = _openai_client(order, {"X-Title": "Understudy"})
    return _chat_model(order, OpenRouterModel, OpenRouterProvider(openai_client=client))


def _azure_openai(order: _Order) -> Model:
    from openai import AsyncAzureOpenAI  # noqa: PLC0415 - an SDK takes a second to import: only when it is used
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415 - the same
    from pydantic_ai.providers.azure import AzureProvider  # noqa: PLC0415 - the same

    if order.provider.api_version is None:
        raise ValueError(f"provider {order.provider.id} has no API version")
    client = AsyncAzureOpenAI(
        azure_endpoint=order.base_url,
        api_version=order.provider.api_version,
        api_key=order.key,
        http_client=order.http,
        timeout=order.http.timeout,
        max_retries=0,
    )
    _forget_environment(client)
    return _chat_model(order, OpenAIChatModel, AzureProvider(openai_client=client))


def _anthropic(order: _Order) -> Model:
    from anthropic import AsyncAnthropic  # noqa: PLC0415 - an SDK takes a second to import: only when it is used
    from pydantic_ai.models.anthropic import AnthropicModel  # noqa: PLC0415 - the same
    from pydantic_ai.providers.anthropic import AnthropicProvider  # noqa: PLC0415 - the same

    client = AsyncAnthropic(
        api_key=order.key,
        # The SDK appends /v1/messages itself.
        base_url=order.base_url.removesuffix("/v1"),
        http_client=order.http,
        timeout=order.http.timeout,
        max_retries=0,
    )
    _forget_environment(client)
    return _native_model(order, AnthropicModel, AnthropicProvider(anthropic_client=client))


def _native_model(
    order: _Order, model_class: "Callable[..., Model]", sdk_provider: "Provider[Any]"
) -> Model:
    """A model of an SDK of its own, with the profile of its family."""
    if order.family == order.wire_name:
        return model_class(order.wire_name, provider=sdk_provider)
    resolved = model_class(order.family, provider=sdk_provider).profile
    return model_class(order.wire_name, provider=sdk_provider, profile=lambda _: resolved)


def _google(order: _Order) -> Model:
    from google.genai import Client  # noqa: PLC0415 - an SDK takes half a second to import: only when it is used
    from google.genai.client import DebugConfig  # noqa: PLC0415 - the same
    from google.genai.types import HttpOptions  # noqa: PLC0415 - the same
    from pydantic_ai.models.google import GoogleModel  # noqa: PLC0415 - the same
    from pydantic_ai.providers.google import GoogleProvider  # noqa: PLC0415 - the same

    # Without these it reads the certificate authorities twice for clients that nobody uses.
    unused: dict[str, Any] = {"verify": order.tls}
    options = HttpOptions(
        # The SDK appends the version itself.
        base_url=order.base_url.removesuffix("/v1beta"),
        api_version="v1beta",
        httpx_async_client=order.http,
        timeout=_milliseconds(order),
        client_args=unused,
        async_client_args=unused,
        # No `retry_options` means one attempt.
    )
    client = Client(
        # Otherwise GOOGLE_GENAI_USE_VERTEXAI decides.
        vertexai=False,
        api_key=order.key,
        http_options=options,
        # Otherwise GOOGLE_GENAI_CLIENT_MODE may have it answer from recordings.
        debug_config=DebugConfig(client_mode=None, replays_directory=None, replay_id=None),
    )
    return _native_model(order, GoogleModel, GoogleProvider(client=client))


def _groq(order: _Order) -> Model:
    import httpx  # noqa: PLC0415 - what Groq's SDK speaks, and nobody else
    from groq import AsyncGroq  # noqa: PLC0415 - an SDK takes its time to import: only when it is used
    from pydantic_ai.providers.groq import GroqProvider  # noqa: PLC0415 - the same

    from services.llm.groq_wire import GroqChatModel, SharedTransport  # noqa: PLC0415 - the same

    client = AsyncGroq(
        api_key=order.key,
        # The SDK appends /openai/v1/chat/completions itself.
        base_url=order.base_url.removesuffix("/openai/v1"),
        http_client=httpx.AsyncClient(transport=SharedTransport(order.http), trust_env=False),
        timeout=httpx.Timeout(**order.http.timeout.as_dict()),
        max_retries=0,
    )
    _forget_environment(client)
    return _native_model(order, GroqChatModel, GroqProvider(groq_client=client))


def _mistral(order: _Order) -> Model:
    from mistralai.client import Mistral  # noqa: PLC0415 - an SDK takes its time to import: only when it is used
    from mistralai.client.utils.logger import NoOpLogger  # noqa: PLC0415 - the same
    from pydantic_ai.models.mistral import MistralModel  # noqa: PLC0415 - the same
    from pydantic_ai.providers.mistral import MistralProvider  # noqa: PLC0415 - the same

    client = Mistral(
        api_key=order.key,
        # The SDK appends /v1/chat/completions itself.
        server_url=order.base_url.removesuffix("/v1"),
        async_client=order.http,
        timeout_ms=_milliseconds(order),
        # No retries.
        retry_config=None,
        # Otherwise MISTRAL_DEBUG writes every message to the log.
        debug_logger=NoOpLogger(),
    )
    # They put another key in for MISTRAL_SA_TOKEN_PATH, and for MISTRAL_SDK_TELEMETRY send every message to Mistral
    # a second time, as a trace; tests/wire/test_requests.py tells when they move.
    hooks = client.sdk_configuration.__dict__["_hooks"]
    for each in (hooks.before_request_hooks, hooks.after_success_hooks, hooks.after_error_hooks):
        each.clear()
    return _native_model(order, MistralModel, MistralProvider(mistral_client=client))


def _milliseconds(order: _Order) -> int:
    """The timeout between two bytes, for SDKs that put one of their own over the client's."""
    return round((order.http.timeout.read or 0) * 1000)


def _deepseek(order: _Order) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415 - imports the SDK
    from pydantic_ai.providers.deepseek import DeepSeekProvider  # noqa: PLC0415 - the same

    return _chat_model(order, OpenAIChatModel, DeepSeekProvider(openai_client=_openai_client(order)))


def _demo(order: _Order) -> Model:
    return DemoModel(order.wire_name, order.clock)


_BUILDERS: Final[Mapping[ProviderKind, Callable[[_Order], Model]]] = {
    ProviderKind.OPENAI_COMPATIBLE: _openai_compatible,
    ProviderKind.OPENAI: _openai,
    ProviderKind.OLLAMA: _ollama,
    ProviderKind.OPENROUTER: _openrouter,
    ProviderKind.AZURE_OPENAI: _azure_openai,
    ProviderKind.ANTHROPIC: _anthropic,
    ProviderKind.GOOGLE: _google,
    ProviderKind.GROQ: _groq,
    ProviderKind.MISTRAL: _mistral,
    ProviderKind.DEEPSEEK: _deepseek,
    ProviderKind.DEMO: _demo,
}
