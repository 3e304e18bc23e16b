"""Settings of each provider: its `<ID>_...` variables, with the defaults of its kind."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, cast
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from core.config.addresses import BaseUrl, is_local_host
from core.config.environment import VariableSet, format_mistake, parse_variables
from core.config.fields import LowerCase, Names, lower_text, parse_json_values, require_pattern


class ProviderKind(StrEnum):
    """Wire formats, and services with a default address."""

    OPENAI_COMPATIBLE = "openai_compatible"
    OPENAI = "openai"
    OLLAMA = "ollama"
    OPENROUTER = "openrouter"
    AZURE_OPENAI = "azure_openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    GROQ = "groq"
    MISTRAL = "mistral"
    DEEPSEEK = "deepseek"
    DEMO = "demo"


class LiveModels(StrEnum):
    """The users that `/model` offers all models of a provider's live list; the listed ones are for everyone."""

    ADMINS = "admins"
    FALSE = "false"
    TRUE = "true"

    def is_open_to(self, *, is_admin: bool) -> bool:
        """Returns whether a person may pick among all live models."""
        return self is LiveModels.TRUE or (self is LiveModels.ADMINS and is_admin)


DEFAULT_BASE_URLS: Mapping[ProviderKind, str] = {
    ProviderKind.OLLAMA: "http://localhost:11434/v1",
    ProviderKind.OPENAI: "https://api.openai.com/v1",
    ProviderKind.OPENROUTER: "https://openrouter.ai/api/v1",
    ProviderKind.ANTHROPIC: "https://api.anthropic.com",
    ProviderKind.GOOGLE: "https://generativelanguage.googleapis.com",
    ProviderKind.GROQ: "https://api.groq.com",
    ProviderKind.MISTRAL: "https://api.mistral.ai",
    ProviderKind.DEEPSEEK: "https://api.deepseek.com",
}

_REQUIRED: Mapping[ProviderKind, tuple[str, ...]] = {
    ProviderKind.OPENAI_COMPATIBLE: ("base_url",),
    ProviderKind.OPENAI: ("api_key",),
    ProviderKind.OLLAMA: (),
    ProviderKind.OPENROUTER: ("api_key",),
    ProviderKind.AZURE_OPENAI: ("base_url", "api_key", "api_version"),
    ProviderKind.ANTHROPIC: ("api_key",),
    ProviderKind.GOOGLE: ("api_key",),
    ProviderKind.GROQ: ("api_key",),
    ProviderKind.MISTRAL: ("api_key",),
    ProviderKind.DEEPSEEK: ("api_key",),
    ProviderKind.DEMO: (),
}

ALIASES = ("OLLAMA_URL", "OLLAMA_MODEL_NAME", "OPENAI_MODEL_NAME")
"""Accepted aliases of OLLAMA_BASE_URL and of a provider's default model."""

EMBEDDING_KINDS = frozenset(
    {
        ProviderKind.OPENAI_COMPATIBLE,
        ProviderKind.OPENAI,
        ProviderKind.OLLAMA,
        ProviderKind.OPENROUTER,
        ProviderKind.AZURE_OPENAI,
        ProviderKind.MISTRAL,
        ProviderKind.GOOGLE,
    }
)
"""Kinds that EMBEDDING_PROVIDERS may list."""
VOICE_KINDS = frozenset(
    {
        ProviderKind.OPENAI_COMPATIBLE,
        ProviderKind.OPENAI,
        ProviderKind.AZURE_OPENAI,
        ProviderKind.GROQ,
        ProviderKind.MISTRAL,
    }
)
"""Kinds that VOICE_PROVIDERS may list."""
SPEECH_KINDS = frozenset(
    {ProviderKind.OPENAI_COMPATIBLE, ProviderKind.OPENAI, ProviderKind.AZURE_OPENAI, ProviderKind.GROQ}
)
"""Kinds that SPEECH_PROVIDERS may list."""
IMAGE_KINDS = frozenset(
    {
        ProviderKind.OPENAI_COMPATIBLE,
        ProviderKind.OPENAI,
        ProviderKind.AZURE_OPENAI,
        ProviderKind.OPENROUTER,
        ProviderKind.GOOGLE,
    }
)
"""Kinds that IMAGE_PROVIDERS may list."""

_MAX_PRICE_USD = 1e6
"""Maximum price per million tokens: a dollar per token is a typing error."""
_MOST_TOKENS = 100_000_000
"""Maximum context window."""
_KEY = r"(?!['\"])[!-~]+"
"""Quotes around it are left of an `--env-file` of Docker, which keeps them."""
_NO_KEY = "holds a space or a character that no key has"


@dataclass(frozen=True, slots=True)
class Price:
    """Price of a model, in USD per million tokens."""

    input_usd: float
    output_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """One provider of AVAILABLE_PROVIDERS.

    Args:
        id: key in AVAILABLE_PROVIDERS.
        models: configured models, the default first.
        base_url: without a trailing slash; the default of the kind if it has one.
        timeout_s: limit of a whole answer.
        first_token_timeout_s: limit until the first output.
        stall_timeout_s: limit between two pieces of a stream.
        retries: additional attempts after a transient failure.
        max_concurrency: limit of requests in flight over all replicas; None for no limit.
        live_models: who may pick models that are not configured.
        remote: whether prompts leave the operator's own machines.
        api_version: API version, Azure only.
        deployments: the Azure deployment of each model.
        families: the actual model behind a name, such as that of a deployment.
        contexts: context windows of models, in tokens, where the library does not know them.
        prices: prices that the price library lacks.
        budget_day_usd: USD a day, over which the provider is passed over; None for no limit.
        missing: the variables without which the provider cannot be used; None if it can.
    """

    id: str
    kind: ProviderKind
    models: tuple[str, ...]
    base_url: str | None = None
    api_key: SecretStr | None = None
    timeout_s: float = 60.0
    first_token_timeout_s: float = 12.0
    stall_timeout_s: float = 20.0
    retries: int = 1
    max_concurrency: int | None = None
    remote: bool = True
    live_models: LiveModels = LiveModels.ADMINS
    api_version: str | None = None
    deployments: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    families: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    contexts: Mapping[str, int] = field(default_factory=dict[str, int], hash=False)
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price], hash=False)
    budget_day_usd: float | None = None
    missing: str | None = None

    @property
    def default_model(self) -> str:
        """The model that is used unless another is chosen."""
        return self.models[0]


def parse_kind(value: object) -> object:
    """Rejects an unknown kind, listing the known ones."""
    value = lower_text(value)
    if value is not None and value not in set(ProviderKind):
        raise ValueError(f"unknown kind, known are {', '.join(ProviderKind)}")
    return value


def parse_contexts(value: object) -> dict[str, int]:
    """Parses `{"model": tokens}`."""
    return parse_json_values(value, _parse_context)


def _parse_context(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MOST_TOKENS:
        raise ValueError("must have its context window, a whole number of tokens above 0")
    return value


def parse_prices(value: object) -> dict[str, Price]:
    """Parses `{"model": [input, output]}` or `{"model": {"input": ..., "output": ...}}`."""
    return parse_json_values(value, _parse_price)


def _parse_price(value: object) -> Price:
    if isinstance(value, Price):
        return value
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        pair = [fields["input"], fields["output"]] if set(fields) == {"input", "output"} else []
    else:
        pair = cast("list[object]", value) if isinstance(value, list) else []
    match pair:
        case [int() | float() as input_usd, int() | float() as output_usd] if _is_price(input_usd, output_usd):
            return Price(input_usd=float(input_usd), output_usd=float(output_usd))
        case _:
            raise ValueError("must have its input and output price, numbers of at least 0")


def _is_price(*numbers: float) -> bool:
    return all(0 <= number < _MAX_PRICE_USD and not isinstance(number, bool) for number in numbers)


class ProviderVariables(VariableSet):
    """Variables of one provider, without the prefix `<ID>_`."""

    kind: Annotated[ProviderKind | None, BeforeValidator(parse_kind)] = Field(default=None, examples=["openai"])
    base_url: BaseUrl | None = Field(default=None, examples=["http://localhost:8000/v1"])
    api_key: Annotated[SecretStr | None, require_pattern(_KEY, _NO_KEY)] = Field(default=None, examples=["sk-..."])
    timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False, examples=[60])
    first_token_timeout: float = Field(default=12.0, gt=0, allow_inf_nan=False, examples=[12])
    stall_timeout: float = Field(default=20.0, gt=0, allow_inf_nan=False, examples=[20])
    retries: int = Field(default=1, ge=0, le=10, examples=[1])
    max_concurrency: int | None = Field(default=None, gt=0, examples=[8])
    remote: bool | None = Field(default=None, examples=["false"])
    live_models: Annotated[LiveModels, LowerCase] = Field(default=LiveModels.ADMINS, examples=["true"])
    api_version: str | None = Field(default=None, examples=["2024-10-21"])
    deployments: Names = Field(default_factory=dict, examples=['{"gpt-5-mini": "chat-prod"}'])
    families: Names = Field(default_factory=dict, examples=['{"chat-prod": "gpt-5-mini"}'])
    context: Annotated[dict[str, int], NoDecode, BeforeValidator(parse_contexts)] = Field(
        default_factory=dict, examples=['{"llama3.2": 8192}']
    )
    budget_day: float | None = Field(default=None, ge=0, le=1e6, allow_inf_nan=False, examples=[5])
    prices: Annotated[dict[str, Price], NoDecode, BeforeValidator(parse_prices)] = Field(
        default_factory=dict, examples=['{"chat-prod": [0.25, 2.0]}']
    )


def variable_prefix(provider_id: str) -> str:
    """Returns the prefix of a provider's variables: `MY_LLM_` for `my-llm`."""
    return re.sub(r"[^A-Z0-9]", "_", provider_id.upper()) + "_"


def read_provider(
    provider_id: str, models: tuple[str, ...], variables: Mapping[str, str]
) -> tuple[ProviderSettings, list[str]]:
    """Parses one provider's variables.

    Args:
        provider_id: key in AVAILABLE_PROVIDERS.
        models: models listed in AVAILABLE_PROVIDERS.
        variables: all variables that are set.

    Returns:
        The provider, with `missing` set if it lacks a required variable, and the mistakes in its variables.
    """
    prefix = variable_prefix(provider_id)
    models = _put_named_first(models, prefix, variables)
    is_aliased = prefix == "OLLAMA_" and "OLLAMA_URL" in variables and "OLLAMA_BASE_URL" not in variables
    if is_aliased:
        variables = {**variables, "OLLAMA_BASE_URL": variables["OLLAMA_URL"]}
    parsed, invalid, mistakes = parse_variables(ProviderVariables, variables, prefix)
    if is_aliased:
        mistakes = [line.replace("OLLAMA_BASE_URL", "OLLAMA_URL") for line in mistakes]
    kind = parsed.kind or _infer_kind(provider_id)
    if kind is ProviderKind.AZURE_OPENAI and not invalid & {"kind", "deployments"}:
        mistakes += _find_missing_deployments(models, prefix, parsed.deployments)
    missing = [
        prefix + name.upper() for name in _REQUIRED[kind] if name not in invalid and getattr(parsed, name) is None
    ]
    base_url = _complete_base_url(kind, parsed.base_url)
    provider = ProviderSettings(
        id=provider_id,
        kind=kind,
        models=models,
        base_url=base_url,
        api_key=parsed.api_key,
        timeout_s=parsed.timeout,
        first_token_timeout_s=parsed.first_token_timeout,
        stall_timeout_s=parsed.stall_timeout,
        retries=parsed.retries,
        max_concurrency=parsed.max_concurrency,
        remote=not _is_local(kind, base_url) if parsed.remote is None else parsed.remote,
        live_models=parsed.live_models,
        api_version=parsed.api_version,
        deployments=parsed.deployments,
        families=parsed.families,
        contexts=parsed.context,
        prices=parsed.prices,
        budget_day_usd=parsed.budget_day,
        missing=f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set" if missing else None,
    )
    return provider, mistakes


def _put_named_first(models: tuple[str, ...], prefix: str, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the models with the one of `<ID>_MODEL_NAME` first, where that variable is accepted."""
    name = f"{prefix}MODEL_NAME"
    preferred = variables.get(name) if name in ALIASES else None
    return models if preferred is None else (preferred, *(model for model in models if model != preferred))


def _find_missing_deployments(models: Iterable[str], prefix: str, deployments: Mapping[str, str]) -> list[str]:
    return [
        format_mistake(
            f"{prefix}DEPLOYMENTS", f'has no deployment for the model "{model}"', f'{{"{model}": "my-name"}}'
        )
        for model in models
        if model not in deployments
    ]


def _is_local(kind: ProviderKind, base_url: str | None) -> bool:
    host = urlsplit(base_url).hostname if base_url else None
    return kind is ProviderKind.DEMO or (host is not None and is_local_host(host))


def _infer_kind(provider_id: str) -> ProviderKind:
    name = provider_id.lower().replace("-", "_")
    return ProviderKind(name) if name in set(ProviderKind) else ProviderKind.OPENAI_COMPATIBLE


def _complete_base_url(kind: ProviderKind, given: str | None) -> str | None:
    if given is None:
        return DEFAULT_BASE_URLS.get(kind)
    if kind is ProviderKind.OLLAMA and not urlsplit(given).path:
        # Ollama's own clients take the bare address; its OpenAI-compatible API is below /v1.
        return f"{given}/v1"
    return given
