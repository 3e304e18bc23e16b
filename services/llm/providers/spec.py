"""What a model is built from."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
from pydantic_ai.models import Model
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers import Provider

from core.config.providers import ProviderSettings

_NO_KEY = "no-key"
"""The SDK insists on a key; servers without one ignore it."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model to build.

    Args:
        provider: whose it is.
        wire_name: what the provider calls it.
        family: what it is, where its name does not tell.
        http: the client that everything sent to that provider goes through.
        tls: the certificate authorities, loaded once.
    """

    provider: ProviderSettings
    wire_name: str
    family: str
    http: httpx2.AsyncClient
    tls: ssl.SSLContext

    @property
    def base_url(self) -> str:
        """The provider's address without a slash at its end."""
        if self.provider.base_url is None:
            raise ValueError(f"provider {self.provider.id} has no base URL")
        return self.provider.base_url.rstrip("/")

    @property
    def key(self) -> str:
        """The provider's key, or something in its place."""
        return self.provider.api_key.get_secret_value() if self.provider.api_key is not None else _NO_KEY

    @property
    def timeout_ms(self) -> int:
        """Milliseconds between two bytes, for SDKs that put a timeout of their own over the client's."""
        return round((self.http.timeout.read or 0) * 1000)


class ModelClass(Protocol):
    """A pydantic-ai model of an SDK of its own."""

    def __call__(
        self,
        model_name: str,
        /,
        *,
        provider: Any,  # noqa: ANN401 - each takes its own SDK's
        profile: Callable[[ModelProfile], ModelProfile] | None = None,
    ) -> Model:
        """Build it."""
        ...


def native_model(order: ModelSpec, model_class: ModelClass, sdk_provider: Provider[Any]) -> Model:
    """A model with the profile of its family.

    Args:
        order: the model.
        model_class: the class of its kind.
        sdk_provider: its client, wrapped.
    """
    if order.family == order.wire_name:
        return model_class(order.wire_name, provider=sdk_provider)
    resolved = model_class(order.family, provider=sdk_provider).profile

    def of_family(_own: ModelProfile) -> ModelProfile:
        return resolved

    return model_class(order.wire_name, provider=sdk_provider, profile=of_family)


class StainlessClient(Protocol):
    """What OpenAI's, Anthropic's and Groq's SDKs, which one generator wrote, have in common."""

    _custom_headers: Mapping[str, str]


def forget_environment(client: StainlessClient, headers: Mapping[str, str] | None = None) -> None:
    """Take back what an SDK read from its own environment variables, and set the headers of ours."""
    for name in ("organization", "project", "admin_api_key", "webhook_secret", "webhook_key"):
        if hasattr(client, name):
            setattr(client, name, None)
    # Where the SDKs keep `default_headers` merged with OPENAI_CUSTOM_HEADERS and its likes;
    # tests/wire/test_requests.py tells when that moves.
    client._custom_headers = dict(headers or {})  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - see above
