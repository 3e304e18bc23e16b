"""Builds the pydantic-ai model of each provider kind on first use.

All models share one long-lived HTTP client per provider, do not retry in the SDK (retries are decided by the fallback),
and ignore the SDKs' own environment variables: an `OPENAI_BASE_URL` or `OPENAI_ORG_ID` of another program must not
affect a provider.
"""

import ssl
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from functools import cached_property
from typing import Final

import httpx2
from pydantic_ai.models import Model

from core.background import BackgroundTasks
from core.clock import Clock, SystemClock
from core.config.providers import ProviderKind, ProviderSettings
from services.llm.providers.demo import DemoModel
from services.llm.providers.spec import ModelSpec, accepts_images, deployment_name, model_family

CONNECT_TIMEOUT_S: Final = 5.0
KEEPALIVE_S: Final = 30.0
"""Lifetime of an idle connection. Common servers and proxies close theirs after 60 s, and a request on a
connection that is being closed fails."""

MAX_REDIRECTS: Final = 3
FORMER_CLIENT_S: Final = 900.0
"""Time for which connections of former settings stay open, beyond the ten minutes that the longest stream may take."""


class ConnectionsClosed(RuntimeError):
    """A request of a caller that has outlived the connections: no fault of its provider."""

    def __init__(self) -> None:
        super().__init__("the connections to the providers are closed")


class _Models(dict[tuple[ProviderSettings, str], Model]):
    """Models by provider and name; one that is missing is built.

    Args:
        build: raises ValueError for a provider that lacks a required variable.
    """

    def __init__(self, build: Callable[[ProviderSettings, str], Model]) -> None:
        super().__init__()
        self._build = build

    def __missing__(self, key: tuple[ProviderSettings, str]) -> Model:
        model = self[key] = self._build(*key)
        return model


class ModelBuilder:
    """Builds and caches models, and owns their connections.

    Args:
        clock: paces the demo provider.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.models = _Models(self._build_model)
        """By provider and name."""
        self._clients: dict[ProviderSettings, httpx2.AsyncClient] = {}
        self._former: set[httpx2.AsyncClient] = set()
        self._closing = BackgroundTasks()
        self._is_closed = False

    def spec(self, provider: ProviderSettings, model_name: str) -> ModelSpec:
        """Returns the ingredients of a model, or of a client for another capability."""
        return ModelSpec(
            provider=provider,
            wire_name=deployment_name(provider, model_name),
            family=model_family(provider, model_name),
            http=self.http_client(provider),
            tls=self._tls,
        )

    def context_window(self, provider: ProviderSettings, model_name: str) -> int | None:
        """Returns the limit of input and output tokens together, or None if it is unknown.

        It is unknown for Ollama, which applies the window of its own configuration to every model, unless the operator
        says it.
        """
        if (told := provider.contexts.get(model_name)) is not None:
            return told
        if provider.kind is ProviderKind.OLLAMA:
            return None
        return self.models[provider, model_name].context_window

    def sees_images(self, provider: ProviderSettings, model_name: str) -> bool:
        """Returns whether the model accepts images, judged by its name."""
        return accepts_images(provider, model_name)

    def http_client(self, provider: ProviderSettings) -> httpx2.AsyncClient:
        """Returns the provider's client, which all of its requests share.

        Raises:
            ConnectionsClosed: the builder is closed; nothing would close the client.
        """
        if self._is_closed:
            raise ConnectionsClosed
        if provider not in self._clients:
            self._clients[provider] = self._build_client(provider)
        return self._clients[provider]

    def keep_only(self, providers: Collection[ProviderSettings]) -> None:
        """Drops the models of all other providers; their connections close when requests in flight must be over."""
        kept = set(providers)
        for key in [key for key in self.models if key[0] not in kept]:
            del self.models[key]
        for provider in self._clients.keys() - kept:
            client = self._clients.pop(provider)
            self._former.add(client)
            self._closing.start(self._close_later(client), f"provider.close:{provider.id}")

    async def aclose(self) -> None:
        """Closes all connections, also where it is cancelled meanwhile."""
        self._is_closed = True
        async with AsyncExitStack() as stack:
            for client in (*self._clients.values(), *self._former):
                stack.push_async_callback(client.aclose)
            self._clients.clear()
            self._former.clear()
            self.models.clear()
            await self._closing.close()

    async def _close_later(self, client: httpx2.AsyncClient) -> None:
        await self._clock.sleep(FORMER_CLIENT_S)
        await client.aclose()
        self._former.discard(client)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # Shared, since loading the certificate authorities takes tens of milliseconds.
        return httpx2.create_ssl_context()

    def _build_model(self, provider: ProviderSettings, model_name: str) -> Model:
        if provider.missing is not None:
            raise ValueError(f"provider {provider.id} cannot be used: {provider.missing}")
        wire_name = deployment_name(provider, model_name)
        if provider.kind is ProviderKind.DEMO:
            return DemoModel(wire_name, self._clock)
        return _build_native(self.spec(provider, model_name))

    def _build_client(self, provider: ProviderSettings) -> httpx2.AsyncClient:
        # The caller of a model enforces the deadlines of an answer; these timeouts are a safety net.
        backstop = max(provider.timeout_s, provider.first_token_timeout_s, provider.stall_timeout_s) + 5
        connect = min(CONNECT_TIMEOUT_S, provider.first_token_timeout_s)
        # Imported on first use, since aiohttp takes as long to import as an SDK.
        from services.llm.providers.wire.transport import Transport, release_body

        return httpx2.AsyncClient(
            timeout=httpx2.Timeout(backstop, connect=connect),
            # Proxies of the environment are for remote providers only: a proxy for the internet cannot reach a model on
            # loopback.
            transport=Transport(
                tls=self._tls, keepalive_s=KEEPALIVE_S, connect_timeout_s=connect, trust_env=provider.remote
            ),
            trust_env=provider.remote,
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            event_hooks={"response": [release_body]},
        )


def _build_native(spec: ModelSpec) -> Model:
    """Builds a model. The SDK of its kind is imported here only, since each takes up to two seconds."""
    match spec.provider.kind:
        case ProviderKind.ANTHROPIC:
            from services.llm.providers.anthropic import build_anthropic

            return build_anthropic(spec)
        case ProviderKind.GOOGLE:
            from services.llm.providers.google import build_google

            return build_google(spec)
        case ProviderKind.GROQ:
            from services.llm.providers.groq import build_groq

            return build_groq(spec)
        case ProviderKind.MISTRAL:
            from services.llm.providers.mistral import build_mistral

            return build_mistral(spec)
        case kind:
            from services.llm.providers.openai import BUILDERS

            return BUILDERS[kind](spec)
