"""Specification of a model: its names, its family, its support for images, and construction steps that SDKs share.

The model library assumes image support unless configured otherwise, and does not know deployment names, so the families
are listed here.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import httpx2
from pydantic_ai.models import Model
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers import Provider

from core.config.providers import ProviderKind, ProviderSettings

_NO_KEY = "no-key"
"""The SDK requires a key; servers without authentication ignore it."""

_WITH_VISION = re.compile(
    r"gpt-4o|gpt-4\.[15]|gpt-4-(turbo|vision)|gpt-[5-9]|o1(?!-(mini|preview))|o3(?!-mini)|o4|computer-use"
    r"|claude-"
    r"|gemini-(?!1\.0-pro$)|gemma-?3(?!n)|gemma-?4|paligemma"
    r"|grok-(4|2-vision|vision)"
    r"|llama-?3\.2.*vision|llama-?4|llava|bakllava|moondream"
    r"|qwen[\d.]*-?vl|qvq"
    r"|pixtral|mistral-small-?(3\.[1-9]|latest|25|26)|mistral-medium(-?3|-latest|-25|-26)|mistral-large-?(3|4|latest|2512|26)"
    r"|ministral-(3(?!b)|(3|8|14)b-(2512|26|latest))|magistral-(small|medium)-(2509|latest)"
    r"|deepseek-vl|minicpm-v|internvl|granite.*vision|phi.*(vision|multimodal)|glm-4(\.\d)?v|kimi-(vl|k2\.5)|nova-(lite|pro|premier)"
)
_WITHOUT_VISION = re.compile(
    r"claude-(instant|[12]\b|v)|audio|realtime|transcribe|tts|gemma-?3.*\b(1b|270m)|gpt-3\.5|gpt-4(-\d{4})?$|o1-(mini|preview)|o3-mini"
)

_FIRST_PARTY = frozenset({ProviderKind.OPENAI, ProviderKind.ANTHROPIC})
"""Kinds that serve their own models only, all newer ones of which accept images."""


def model_family(provider: ProviderSettings, model_name: str) -> str:
    """Returns the actual model: `<ID>_FAMILIES` by the name or by its Azure deployment, else the name."""
    deployment = deployment_name(provider, model_name)
    return provider.families.get(model_name) or provider.families.get(deployment) or model_name


def deployment_name(provider: ProviderSettings, model_name: str) -> str:
    """Returns the name of the model in requests to the provider."""
    return provider.deployments.get(model_name, model_name)


def accepts_images(provider: ProviderSettings, model_name: str) -> bool:
    """Returns whether the model accepts images.

    An unknown name counts as accepting them on a first-party service only, since an image makes the whole request fail
    on a model without vision.
    """
    if provider.kind is ProviderKind.DEMO:
        return False
    family = model_family(provider, model_name).lower().rpartition("/")[2]
    if _WITHOUT_VISION.search(family):
        return False
    return _WITH_VISION.match(family) is not None or provider.kind in _FIRST_PARTY


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Specification of a model to build.

    Args:
        wire_name: name of the model in requests to the provider.
        family: the actual model behind the name, which decides about its profile.
        http: the provider's client, for all of its models.
        tls: certificate authorities, loaded once.
    """

    provider: ProviderSettings
    wire_name: str
    family: str
    http: httpx2.AsyncClient
    tls: ssl.SSLContext

    @property
    def base_url(self) -> str:
        """The provider's base URL without a trailing slash."""
        if self.provider.base_url is None:
            raise ValueError(f"provider {self.provider.id} has no base URL")
        return self.provider.base_url.rstrip("/")

    @property
    def key(self) -> str:
        """The provider's key, or a placeholder."""
        return self.provider.api_key.get_secret_value() if self.provider.api_key is not None else _NO_KEY

    @property
    def timeout_ms(self) -> int:
        """The client's read timeout, for SDKs that override it with their own."""
        return round((self.http.timeout.read or 0) * 1000)


SdkProvider_contra = TypeVar("SdkProvider_contra", bound=Provider[Any], contravariant=True)


class ModelClass(Protocol[SdkProvider_contra]):
    """Constructor of a pydantic-ai model with its own SDK."""

    def __call__(
        self,
        model_name: str,
        /,
        *,
        provider: SdkProvider_contra,
        profile: Callable[[ModelProfile], ModelProfile] | None = None,
    ) -> Model:
        """Constructs the model."""
        ...


def build_native_model(
    spec: ModelSpec, model_class: ModelClass[SdkProvider_contra], sdk_provider: SdkProvider_contra
) -> Model:
    """Returns a model with the profile of its family."""
    if spec.family == spec.wire_name:
        return model_class(spec.wire_name, provider=sdk_provider)
    resolved = model_class(spec.family, provider=sdk_provider).profile

    def of_family(_own: ModelProfile) -> ModelProfile:
        return resolved

    return model_class(spec.wire_name, provider=sdk_provider, profile=of_family)


class StainlessClient(Protocol):
    """The common part of OpenAI's, Anthropic's and Groq's SDKs, which come from one generator."""

    _custom_headers: Mapping[str, str]


def reset_environment(client: StainlessClient, headers: Mapping[str, str] | None = None) -> None:
    """Discards values that an SDK read from its own environment variables, and sets our headers."""
    for name in ("organization", "project", "admin_api_key", "webhook_secret", "webhook_key"):
        if hasattr(client, name):
            setattr(client, name, None)
    # `default_headers` merged with OPENAI_CUSTOM_HEADERS and the like. Private attribute of openai 3.52,
    # anthropic 2.11 and groq 1.7; tests/wire/test_requests.py fails if it moves.
    client._custom_headers = dict(headers or {})  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - see above
