"""A pydantic-ai model for each kind of provider, built when it is first asked for.

What the models share: one long-lived HTTP client per provider, no retries by the SDK (who is asked again, and
when, is the fallback's business), and nothing from the SDKs' own environment variables: an `OPENAI_BASE_URL` or
`OPENAI_ORG_ID` that was set for another program must not reach a provider that never named it.
"""

import ssl
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Final

import httpx2
from pydantic_ai.models import Model

from core.clock import Clock, SystemClock
from core.config.providers import ProviderKind, ProviderSettings
from services.llm.providers.demo import DemoModel
from services.llm.providers.model_families import deployment_name, model_family, sees_images
from services.llm.providers.spec import ModelSpec

CONNECT_TIMEOUT_S: Final = 5.0
KEEPALIVE_S: Final = 30.0
"""How long an idle connection is kept: less than the 60 s after which common servers and proxies close theirs,
since a request on a connection that is just being closed fails."""


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
            self._models[key] = self._new_model(provider, model_name)
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

    def _new_model(self, provider: ProviderSettings, model_name: str) -> Model:
        wire_name = deployment_name(provider, model_name)
        if provider.kind is ProviderKind.DEMO:
            return DemoModel(wire_name, self._clock)
        return _built(
            ModelSpec(
                provider=provider,
                wire_name=wire_name,
                family=model_family(provider, model_name),
                http=self.http_client(provider),
                tls=self._tls,
            )
        )

    def _new_client(self, provider: ProviderSettings) -> httpx2.AsyncClient:
        # The deadlines of an answer are kept by whoever asks for it; these only catch what was forgotten.
        backstop = max(provider.timeout_s, provider.first_token_timeout_s, provider.stall_timeout_s) + 5
        connect = min(CONNECT_TIMEOUT_S, provider.first_token_timeout_s)
        # Imported here, since it takes as long as an SDK.
        from services.llm.providers.transport import Transport  # noqa: PLC0415

        return httpx2.AsyncClient(
            timeout=httpx2.Timeout(backstop, connect=connect),
            # Proxies of the environment are for what leaves the operator's machines: without this, a proxy for the
            # internet would be asked for a model on loopback.
            transport=Transport(tls=self._tls, keepalive_s=KEEPALIVE_S, trust_env=provider.remote),
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


def _built(order: ModelSpec) -> Model:
    """Build a model; the SDK of its kind is imported here and nowhere else, since each takes up to two seconds."""
    match order.provider.kind:
        case ProviderKind.ANTHROPIC:
            from services.llm.providers.anthropic import anthropic  # noqa: PLC0415 - see above

            return anthropic(order)
        case ProviderKind.GOOGLE:
            from services.llm.providers.google import google  # noqa: PLC0415 - see above

            return google(order)
        case ProviderKind.GROQ:
            from services.llm.providers.groq import groq  # noqa: PLC0415 - see above

            return groq(order)
        case ProviderKind.MISTRAL:
            from services.llm.providers.mistral import mistral  # noqa: PLC0415 - see above

            return mistral(order)
        case kind:
            from services.llm.providers.openai import KINDS  # noqa: PLC0415 - see above

            return KINDS[kind](order)
