"""What is known of each provider: its `<ID>_...` variables, checked and with the defaults of its kind."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from core.config.environment import VariableSet, checked, mistake
from core.config.fields import Names, WebUrl, each, is_own_machine, lowered, shaped


class ProviderKind(StrEnum):
    """The wire formats, or services with a default address, that a provider may be."""

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

_NEEDS: Mapping[ProviderKind, tuple[str, ...]] = {
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

_USUAL_SLIPS: Mapping[str, str] = {"KEY": "API_KEY", "URL": "BASE_URL", "API_BASE": "BASE_URL", "ENDPOINT": "BASE_URL"}
"""Names that other programs use, too far from ours for a comparison of letters."""


_ABSURD_PRICE = 1e6
"""USD per million tokens: a dollar a token is a slip of the hand."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in USD per million tokens."""

    input_usd: float
    output_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """One provider of AVAILABLE_PROVIDERS.

    Args:
        id: its name in AVAILABLE_PROVIDERS.
        kind: how to talk to it.
        models: what may be asked of it, the default first.
        base_url: its address, without a trailing slash; the kind's default is filled in where it has one.
        api_key: its key.
        timeout_s: seconds for a whole answer.
        first_token_timeout_s: seconds to the first output.
        stall_timeout_s: seconds between two pieces of a stream.
        retries: tries more after a passing fault.
        max_concurrency: requests at once over all replicas, None for no limit.
        remote: whether prompts leave the operator's own machines.
        api_version: Azure's.
        deployments: Azure's deployment of each model.
        families: the model that one with another name really is.
        prices: where the price library does not know them.
        missing: why it cannot be used; None if it can.
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
    api_version: str | None = None
    deployments: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    families: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price], hash=False)
    missing: str | None = None

    @property
    def default_model(self) -> str:
        """The model that is asked where nobody chose another."""
        return self.models[0]


def parse_kind(value: Any) -> Any:  # noqa: ANN401 - a validator sees whatever was handed in
    """Tell of an unknown kind with the known ones."""
    value = lowered(value)
    if value is not None and value not in set(ProviderKind):
        raise ValueError(f"unknown kind, known are {', '.join(ProviderKind)}")
    return value


def parse_prices(value: Any) -> dict[str, Price]:  # noqa: ANN401 - a validator sees whatever was handed in
    """Parse `{"model": [input, output]}` or `{"model": {"input": ..., "output": ...}}`."""
    return each(value, _price)


def _price(value: object) -> Price:
    if isinstance(value, Price):
        return value
    if isinstance(value, dict):
        named = cast("dict[str, object]", value)
        pair = [named["input"], named["output"]] if set(named) == {"input", "output"} else []
    else:
        pair = cast("list[object]", value) if isinstance(value, list) else []
    match pair:
        case [int() | float() as input_usd, int() | float() as output_usd] if _is_price(input_usd, output_usd):
            return Price(input_usd=float(input_usd), output_usd=float(output_usd))
        case _:
            raise ValueError("must have its input and output price, numbers not below 0")


def _is_price(*numbers: float) -> bool:
    return all(0 <= number < _ABSURD_PRICE and not isinstance(number, bool) for number in numbers)


class ProviderVariables(VariableSet):
    """The variables of one provider, without the `<ID>_` before each."""

    kind: Annotated[ProviderKind | None, BeforeValidator(parse_kind)] = Field(default=None, examples=["openai"])
    base_url: WebUrl | None = Field(default=None, examples=["http://localhost:8000/v1"])
    api_key: Annotated[SecretStr | None, shaped(r"[!-~]+", "holds a space or a character that no key has")] = Field(
        default=None, examples=["sk-..."]
    )
    timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False, examples=[60])
    first_token_timeout: float = Field(default=12.0, gt=0, allow_inf_nan=False, examples=[12])
    stall_timeout: float = Field(default=20.0, gt=0, allow_inf_nan=False, examples=[20])
    retries: int = Field(default=1, ge=0, le=10, examples=[1])
    max_concurrency: int | None = Field(default=None, gt=0, examples=[8])
    remote: bool | None = Field(default=None, examples=["false"])
    api_version: str | None = Field(default=None, examples=["2024-10-21"])
    deployments: Names = Field(default_factory=dict, examples=['{"gpt-5-mini": "chat-prod"}'])
    families: Names = Field(default_factory=dict, examples=['{"chat-prod": "gpt-5-mini"}'])
    prices: Annotated[dict[str, Price], NoDecode, BeforeValidator(parse_prices)] = Field(
        default_factory=dict, examples=['{"chat-prod": [0.25, 2.0]}']
    )


def prefix_of(provider_id: str) -> str:
    """What the names of a provider's variables begin with: `my-llm` has `MY_LLM_...`."""
    return re.sub(r"[^A-Z0-9]", "_", provider_id.upper()) + "_"


def clashes(provider_ids: Iterable[str], others: Iterable[str]) -> list[str]:
    """Say which ids would share a variable with another id, or with a setting that is no provider's.

    Args:
        provider_ids: the ids of AVAILABLE_PROVIDERS.
        others: the names of all other variables.
    """
    owners = {name: f"the setting {name}" for name in others}
    found: list[str] = []
    for provider_id in provider_ids:
        own = ProviderVariables.names(prefix_of(provider_id))
        shared = next((name for name in own if name in owners), None)
        if shared:
            found.append(f'"{provider_id}" and {owners[shared]} would share {shared}: choose another id')
        owners.update((name, f'"{provider_id}"') for name in own if name not in owners)
    return found


def read_provider(
    provider_id: str, models: tuple[str, ...], variables: Mapping[str, str]
) -> tuple[ProviderSettings, list[str]]:
    """Read one provider's variables.

    Args:
        provider_id: its id.
        models: its models.
        variables: everything that is set.

    Returns:
        The provider, with `missing` set if it lacks what its kind needs, and the mistakes in its variables.
    """
    prefix = prefix_of(provider_id)
    by_alias = prefix == "OLLAMA_" and "OLLAMA_URL" in variables and "OLLAMA_BASE_URL" not in variables
    if by_alias:
        variables = {**variables, "OLLAMA_BASE_URL": variables["OLLAMA_URL"]}
    read, wrong, mistakes = checked(ProviderVariables, variables, prefix)
    if by_alias:
        mistakes = [line.replace("OLLAMA_BASE_URL", "OLLAMA_URL") for line in mistakes]
    kind = read.kind or _kind_named(provider_id)
    if kind is ProviderKind.AZURE_OPENAI and not wrong & {"kind", "deployments"}:
        mistakes += [
            mistake(f"{prefix}DEPLOYMENTS", f'names no deployment for the model "{model}"', f'{{"{model}": "my-name"}}')
            for model in models
            if model not in read.deployments
        ]
    lacking = [prefix + name.upper() for name in _NEEDS[kind] if name not in wrong and getattr(read, name) is None]
    base_url = _base_url(kind, read.base_url)
    host = urlsplit(base_url).hostname if base_url else None
    near = kind is ProviderKind.DEMO or (host is not None and is_own_machine(host))
    provider = ProviderSettings(
        id=provider_id,
        kind=kind,
        models=models,
        base_url=base_url,
        api_key=read.api_key,
        timeout_s=read.timeout,
        first_token_timeout_s=read.first_token_timeout,
        stall_timeout_s=read.stall_timeout,
        retries=read.retries,
        max_concurrency=read.max_concurrency,
        remote=not near if read.remote is None else read.remote,
        api_version=read.api_version,
        deployments=read.deployments,
        families=read.families,
        prices=read.prices,
        missing=f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not set" if lacking else None,
    )
    return provider, mistakes


def _kind_named(provider_id: str) -> ProviderKind:
    name = provider_id.lower().replace("-", "_")
    return ProviderKind(name) if name in set(ProviderKind) else ProviderKind.OPENAI_COMPATIBLE


def _base_url(kind: ProviderKind, given: str | None) -> str | None:
    if given is None:
        return DEFAULT_BASE_URLS.get(kind)
    if kind is ProviderKind.OLLAMA and not urlsplit(given).path:
        # Ollama's own clients are given the bare address; what we speak to it lives below /v1.
        return f"{given}/v1"
    return given


def misspelt(provider_id: str, variables: Iterable[str], known: frozenset[str]) -> list[str]:
    """Point at variables that begin like a provider's and are nearly one of them.

    Args:
        provider_id: its id.
        variables: the names of everything that is set.
        known: names that mean something, this provider's among them.
    """
    prefix = prefix_of(provider_id)
    suffixes = ProviderVariables.names()
    found: list[str] = []
    for name in variables:
        suffix = name.removeprefix(prefix)
        if name in known or suffix == name:
            continue
        # 0.75 takes TIMOUT and RETRYS, and leaves OLLAMA_HOST, OLLAMA_MODELS and OPENAI_ORG_ID to their programs.
        meant = _USUAL_SLIPS.get(suffix) or next(iter(difflib.get_close_matches(suffix, suffixes, 1, 0.75)), None)
        if meant:
            found.append(f"{name} is not a setting and is not read: is {prefix}{meant} meant?")
    return found
