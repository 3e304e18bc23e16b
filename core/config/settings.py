"""All settings: what may be set, checked together, with every mistake told at once."""

import difflib
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from core.config.environment import Mistakes, VariableSet, checked, mistake, read_variables
from core.config.fields import (
    DirectoryPath,
    Headers,
    Ids,
    Lowered,
    WebUrl,
    json_object,
    parse_headers,
    shaped,
    shown,
    store_url,
    url_password,
)
from core.config.providers import (
    ProviderSettings,
    ProviderVariables,
    clashes,
    misspelt,
    prefix_of,
    read_provider,
)
from core.errors import ConfigurationError


def parse_available_providers(value: Any) -> dict[str, tuple[str, ...]]:  # noqa: ANN401 - whatever was handed in
    """Parse the providers and their models, in their order; tell of everything that is wrong."""
    wrong: list[str] = []
    listed = _listed_providers(value, wrong)
    if wrong:
        raise Mistakes(wrong)
    return listed


def _listed_providers(value: Any, wrong: list[str]) -> dict[str, tuple[str, ...]]:  # noqa: ANN401 - as above
    """Take what can be used, so that those providers' own variables are checked in the same go."""
    listed: dict[str, tuple[str, ...]] = {}
    for provider_id, models in json_object(value, wrong).items():
        # 32 characters leave room for the rest of what a Telegram button may carry (64 bytes).
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", provider_id):
            wrong.append(
                f"the id {shown(provider_id)} must be 1 to 32 letters, digits, - and _, a letter or digit first"
            )
            continue
        if not isinstance(models, list | tuple) or not models:
            wrong.append(f"{shown(provider_id)} must have a list of at least one model")
            continue
        names = [name.strip() if isinstance(name, str) else "" for name in cast("list[object]", models)]
        if not all(names):
            wrong.append(f"{shown(provider_id)} has a model without a name")
        twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
        wrong += [f"{shown(provider_id)} lists the model {shown(name)} twice" for name in twice]
        listed[provider_id] = tuple(dict.fromkeys(name for name in names if name))
    wrong += clashes(listed, CommonVariables.names())
    return listed


class CommonVariables(VariableSet):
    """Every variable that is not a provider's own; the field `log_level` is the variable LOG_LEVEL."""

    telegram_bot_token: Annotated[
        SecretStr | None, shaped(r"[0-9]+:[A-Za-z0-9_-]+", "is not a bot token, copy it whole from @BotFather")
    ] = Field(default=None, examples=["123456789:AAF..."])
    telegram_api_base_url: WebUrl | None = Field(default=None, examples=["http://localhost:8081"])
    telegram_mode: Annotated[Literal["polling", "webhook"], Lowered] = Field(default="polling", examples=["polling"])
    telegram_webhook_url: WebUrl | None = Field(default=None, examples=["https://bot.example.org/telegram"])
    telegram_webhook_secret: Annotated[
        SecretStr | None, shaped(r"[A-Za-z0-9_-]{1,256}", "must be 1 to 256 letters, digits, _ and -")
    ] = Field(default=None, examples=["a-long-random-word"])
    admin_ids: Ids = Field(default=frozenset(), examples=["123456789"])
    allowed_user_ids: Ids = Field(default=frozenset(), examples=["123456789,987654321"])
    allowed_chat_ids: Ids = Field(default=frozenset(), examples=["-1001234567890"])
    redis_url: Annotated[SecretStr | None, store_url(("redis", "rediss", "redis+sentinel", "redis+cluster"))] = Field(
        default=None, examples=["redis://localhost:6379/0"]
    )
    redis_prefix: Annotated[str, shaped(r"[A-Za-z0-9_.:-]{1,64}", "must be 1 to 64 letters, digits, _ . : and -")] = (
        Field(default="understudy", examples=["understudy"])
    )
    database_url: Annotated[
        SecretStr | None,
        store_url(("postgresql", "postgres", "postgresql+psycopg", "sqlite", "sqlite+aiosqlite"), host_needed=False),
    ] = Field(default=None, examples=["postgresql://user:password@localhost/understudy"])
    data_dir: DirectoryPath = Field(default=Path("data"), examples=["./data"])
    web_port: int | None = Field(default=None, ge=1, le=65535, examples=[8080])
    web_host: str = Field(default="127.0.0.1", examples=["127.0.0.1"])
    web_token: SecretStr | None = Field(default=None, examples=["a-long-random-word"])
    stream_mode: Annotated[Literal["edit", "draft", "off"], Lowered] = Field(default="edit", examples=["edit"])
    history_tokens: int = Field(default=8000, gt=0, examples=[8000])
    shutdown_timeout: float = Field(default=25.0, gt=0, allow_inf_nan=False, examples=[25])
    moderation_dry_run: bool = Field(default=True, examples=["true"])
    otel_exporter_otlp_endpoint: WebUrl | None = Field(default=None, examples=["http://localhost:4318"])
    otel_exporter_otlp_headers: Annotated[SecretStr | None, Headers] = Field(
        default=None, examples=["authorization=Bearer my-key"]
    )
    otel_service_name: Annotated[str, shaped(r"\S(.{0,98}\S)?", "must be 1 to 100 characters")] = Field(
        default="understudy", examples=["understudy"]
    )
    otel_traces_sampler_arg: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False, examples=[0.1])
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], Lowered] = Field(
        default="info", examples=["info"]
    )
    log_format: Annotated[Literal["auto", "console", "json"], Lowered] = Field(default="auto", examples=["auto"])
    available_providers: Annotated[dict[str, tuple[str, ...]], NoDecode, BeforeValidator(parse_available_providers)] = (
        Field(
            default_factory=lambda: {"ollama": ("gpt-oss", "llama3.2"), "openai": ("gpt-5-mini",)},
            examples=['{"ollama": ["gpt-oss"], "openai": ["gpt-5-mini"]}'],
        )
    )
    provider_preferred_ttl: float = Field(default=1800.0, gt=0, allow_inf_nan=False, examples=[1800])
    provider_cooldown: float = Field(default=300.0, gt=0, allow_inf_nan=False, examples=[300])
    provider_max_hops: int = Field(default=3, gt=0, examples=[3])
    remote_consent: Annotated[Literal["granted", "ask"], Lowered] = Field(default="granted", examples=["granted"])


class Settings(CommonVariables):
    """What the program is built from.

    Args:
        providers: every provider of `available_providers` in its order, those that cannot be used too.
        warnings: lines for the operator about what is left out or looks unintended.
    """

    providers: tuple[ProviderSettings, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret in clear, for whoever must keep them out of what is written."""
        own = (self.telegram_bot_token, self.telegram_webhook_secret, self.web_token, self.redis_url, self.database_url)
        keys = (provider.api_key for provider in self.providers)
        values = [secret.get_secret_value() for secret in (*own, *keys) if secret]
        if self.otel_exporter_otlp_headers is not None:
            for value in parse_headers(self.otel_exporter_otlp_headers.get_secret_value()).values():
                # `Bearer` and a key: the key by itself is the secret.
                values += [value, value.rpartition(" ")[2]]
        passwords = [url_password(value) for value in values]
        # A driver may tell of a password as it is in the URL, or decoded.
        return tuple(dict.fromkeys([*values, *filter(None, passwords), *map(unquote, filter(None, passwords))]))

    def require_provider(self) -> None:
        """Make sure that at least one provider can be used.

        Raises:
            ConfigurationError: none is listed, or each lacks something.
        """
        mistakes = self._without_provider()
        if mistakes:
            raise ConfigurationError(mistakes)

    def for_daemon(self) -> None:
        """Make sure that the daemon has what it cannot do without: a bot token and a provider.

        Raises:
            ConfigurationError: something of that is not set.
        """
        mistakes: list[str] = []
        if self.telegram_bot_token is None:
            mistakes.append(
                mistake("TELEGRAM_BOT_TOKEN", "is not set, get one from @BotFather", _example("telegram_bot_token"))
            )
        mistakes += self._without_provider()
        if mistakes:
            raise ConfigurationError(mistakes)

    def prepare_data_dir(self) -> None:
        """Create DATA_DIR if it is not there, and try whether it takes files.

        Raises:
            ConfigurationError: it cannot be created or written to.
        """
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.data_dir):
                pass
        except OSError as error:
            reason = f"cannot be written to ({error.strerror})"
            raise ConfigurationError([mistake("DATA_DIR", reason, _example("data_dir"))]) from None

    def _without_provider(self) -> list[str]:
        if any(provider.missing is None for provider in self.providers):
            return []
        why = "; ".join(f"{provider.id}: {provider.missing}" for provider in self.providers) or "none is listed"
        reason = f"leaves not a single provider that can be used ({why})"
        return [mistake("AVAILABLE_PROVIDERS", reason, '{"ollama": ["gpt-oss"]}')]


def load_settings(env_file: Path | None = Path(".env"), environ: Mapping[str, str] | None = None) -> Settings:
    """Read all settings from the environment over an env file.

    Args:
        env_file: a file of `NAME=value` lines; it need not exist.
        environ: the environment; the process's own when None.

    Raises:
        ConfigurationError: with every mistake that was found.
    """
    variables = read_variables(env_file, environ)
    common, wrong, mistakes = checked(CommonVariables, variables.values)
    mistakes = [*variables.mistakes, *mistakes, *_inconsistencies(common, wrong)]
    available = common.available_providers
    if "available_providers" in wrong:
        with suppress(ValueError):  # its mistakes are told already
            available = _listed_providers(variables.values["AVAILABLE_PROVIDERS"], [])
    providers: list[ProviderSettings] = []
    for provider_id, models in available.items():
        provider, provider_mistakes = read_provider(provider_id, models, variables.values)
        providers.append(provider)
        mistakes += provider_mistakes
    if mistakes:
        raise ConfigurationError(mistakes)
    warnings = [
        *variables.warnings,
        *(f"{provider.id} is left out: {provider.missing}" for provider in providers if provider.missing),
        *_misspelt(variables.values, variables.file_names, available),
    ]
    data = {name: getattr(common, name) for name in CommonVariables.model_fields}
    return Settings(**data, providers=tuple(providers), warnings=tuple(warnings))


def _inconsistencies(common: CommonVariables, wrong: frozenset[str]) -> list[str]:
    """What each variable by itself does not show."""
    if common.telegram_mode != "webhook" or "telegram_mode" in wrong:
        return []
    found = [
        mistake(name.upper(), "is needed with TELEGRAM_MODE=webhook", _example(name))
        for name in ("telegram_webhook_url", "telegram_webhook_secret")
        if getattr(common, name) is None and name not in wrong
    ]
    if common.web_port is None and "web_port" not in wrong:
        reason = "is needed with TELEGRAM_MODE=webhook: the web side takes what Telegram delivers"
        found.append(mistake("WEB_PORT", reason, _example("web_port")))
    url = common.telegram_webhook_url
    if url and not url.lower().startswith("https://") and common.telegram_api_base_url is None:
        reason = "must begin with https://, Telegram delivers to nothing else"
        found.append(mistake("TELEGRAM_WEBHOOK_URL", reason, _example("telegram_webhook_url")))
    return found


def _misspelt(values: Mapping[str, str], file_names: frozenset[str], available: Mapping[str, object]) -> list[str]:
    common_names = CommonVariables.names()
    known = frozenset(common_names).union(
        {"OLLAMA_URL"}, *(ProviderVariables.names(prefix_of(provider_id)) for provider_id in available)
    )
    found = [line for provider_id in available for line in misspelt(provider_id, sorted(values), known)]
    for name in sorted(file_names - known):
        # A foreign name is nobody's business in the environment, but in our file it was meant for us.
        meant = next(iter(difflib.get_close_matches(name, common_names, 1, 0.85)), None)
        if meant:
            found.append(f"{name} is not a setting and is not read: is {meant} meant?")
    return list(dict.fromkeys(found))


def _example(field: str) -> str:
    return str((CommonVariables.model_fields[field].examples or [""])[0])
