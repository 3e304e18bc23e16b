"""All settings: parsed and validated together, with every mistake reported at once."""

import errno
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import tzinfo
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, cast
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from core.config.environment import Mistakes, VariableSet, format_mistake, parse_variables, read_variables
from core.config.fields import (
    ApiTokens,
    DatabaseUrl,
    DirectoryPath,
    Headers,
    Ids,
    ListenHost,
    LowerCase,
    Origin,
    RedisUrl,
    SecretKeys,
    SpamLists,
    UserIds,
    WebUrl,
    parse_api_tokens,
    parse_headers,
    parse_json_object,
    quote_name,
    require_pattern,
    require_url,
    url_password,
)
from core.config.misspelt import find_ignored
from core.config.permissions import restrict_access
from core.config.providers import (
    ALIASES,
    EMBEDDING_KINDS,
    IMAGE_KINDS,
    SPEECH_KINDS,
    VOICE_KINDS,
    ProviderKind,
    ProviderSettings,
    find_clashes,
    read_provider,
)
from core.config.timezone import Timezone, find_zone, machine_zone
from core.config.tool_servers import EXAMPLE as TOOL_SERVERS_EXAMPLE
from core.config.tool_servers import ToolServer, ToolServers, parse_tool_servers
from core.errors import ConfigurationError

NO_PROVIDER = format_mistake("AVAILABLE_PROVIDERS", "lists no provider", '{"ollama": ["gpt-oss"]}')


def parse_available_providers(value: object) -> dict[str, tuple[str, ...]]:
    """Parses the providers and their models in order, and raises all mistakes together."""
    faults: list[str] = []
    listed = _list_providers(value, faults)
    if faults:
        raise Mistakes(faults)
    return listed


def _list_providers(value: object, faults: list[str]) -> dict[str, tuple[str, ...]]:
    """Returns the valid entries, so that their own variables are validated in the same run."""
    listed: dict[str, tuple[str, ...]] = {}
    for provider_id, models in parse_json_object(value, faults).items():
        # A Telegram button carries 64 bytes, of which the id takes 32 at most.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", provider_id):
            faults.append(
                f"the id {quote_name(provider_id)} must be 1 to 32 letters, digits, - and _, a letter or digit first"
            )
            continue
        if not isinstance(models, list | tuple) or not models:
            faults.append(f"{quote_name(provider_id)} must have a list of at least one model")
            continue
        names = [name.strip() if isinstance(name, str) else "" for name in cast("list[object]", models)]
        if not all(names):
            faults.append(f"{quote_name(provider_id)} has a model without a name")
        duplicates = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
        faults += [f"{quote_name(provider_id)} lists the model {quote_name(name)} twice" for name in duplicates]
        listed[provider_id] = tuple(dict.fromkeys(name for name in names if name))
    faults += find_clashes(listed, CommonVariables.variable_names())
    return listed


class CommonVariables(VariableSet):
    """Variables that do not belong to one provider. The field `log_level` is the variable LOG_LEVEL."""

    telegram_bot_token: Annotated[
        SecretStr | None,
        require_pattern(r"[0-9]+:[A-Za-z0-9_-]+", "is not a bot token, copy all of it from @BotFather"),
    ] = Field(default=None, examples=["123456789:AAF..."])
    telegram_api_base_url: WebUrl | None = Field(default=None, examples=["http://localhost:8081"])
    telegram_mode: Annotated[Literal["polling", "webhook"], LowerCase] = Field(default="polling", examples=["polling"])
    telegram_webhook_url: WebUrl | None = Field(default=None, examples=["https://bot.example.org/telegram"])
    telegram_webhook_secret: Annotated[
        SecretStr | None, require_pattern(r"[A-Za-z0-9_-]{16,256}", "must be 16 to 256 letters, digits, _ and -")
    ] = Field(default=None, examples=["a-long-random-word"])
    admin_ids: UserIds = Field(default=frozenset(), examples=["123456789"])
    allowed_user_ids: UserIds = Field(default=frozenset(), examples=["123456789,987654321"])
    allowed_chat_ids: Ids = Field(default=frozenset(), examples=["-1001234567890"])
    limit_messages_per_minute: int = Field(default=20, ge=0, le=10_000, examples=[20])
    limit_running_per_user: int = Field(default=4, ge=0, le=10_000, examples=[4])
    budget_user_day: float | None = Field(default=None, ge=0, le=1e6, allow_inf_nan=False, examples=[0.5])
    budget_chat_day: float | None = Field(default=None, ge=0, le=1e6, allow_inf_nan=False, examples=[2])
    budget_day: float | None = Field(default=None, ge=0, le=1e6, allow_inf_nan=False, examples=[10])
    redis_url: Annotated[
        SecretStr | None, RedisUrl, require_url(("redis", "rediss", "redis+sentinel", "redis+cluster"))
    ] = Field(default=None, examples=["redis://localhost:6379/0"])
    redis_prefix: Annotated[
        str, require_pattern(r"[A-Za-z0-9_.:-]{1,64}", "must be 1 to 64 letters, digits, _ . : and -")
    ] = Field(default="understudy", examples=["understudy"])
    database_url: Annotated[
        SecretStr | None,
        DatabaseUrl,
        require_url(("postgresql", "postgres", "postgresql+psycopg", "sqlite", "sqlite+aiosqlite"), host_needed=False),
    ] = Field(default=None, examples=["postgresql://user:password@localhost/understudy"])
    timezone: Timezone | None = Field(default=None, examples=["Europe/Berlin"])
    data_dir: DirectoryPath = Field(default=Path("data"), examples=["./data"])
    web_port: int | None = Field(default=None, ge=1, le=65535, examples=[8080])
    web_host: ListenHost = Field(default="127.0.0.1", examples=["127.0.0.1"])
    web_token: Annotated[SecretStr | None, require_pattern(r"(?s).{16,}", "must be 16 characters or more")] = Field(
        default=None, examples=["a-long-random-word"]
    )
    web_public_url: Origin | None = Field(default=None, examples=["https://bot.example.org"])
    api_tokens: Annotated[SecretStr | None, ApiTokens] = Field(
        default=None, examples=["editor=a-long-random-word,script=another-long-word"]
    )
    secrets_key: SecretKeys = Field(default=(), examples=["a-random-text-of-32-characters-or-more"])
    stream_mode: Annotated[Literal["edit", "draft", "off"], LowerCase] = Field(default="edit", examples=["edit"])
    acknowledge_in_groups: bool = Field(default=False, examples=["true"])
    retention_days: int | None = Field(default=None, ge=1, le=36500, examples=[90])
    history_tokens: int = Field(default=8000, gt=0, examples=[8000])
    shutdown_timeout: float = Field(default=25.0, gt=0, allow_inf_nan=False, examples=[25])
    moderation_dry_run: bool = Field(default=True, examples=["true"])
    moderation_spam_lists: SpamLists = Field(default=(), examples=["cas,lols"])
    otel_exporter_otlp_endpoint: WebUrl | None = Field(default=None, examples=["http://localhost:4318"])
    otel_exporter_otlp_headers: Annotated[SecretStr | None, Headers] = Field(
        default=None, examples=["authorization=Bearer my-key"]
    )
    otel_service_name: Annotated[str, require_pattern(r"\S(.{0,98}\S)?", "must be 1 to 100 characters")] = Field(
        default="understudy", examples=["understudy"]
    )
    otel_traces_sampler_arg: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False, examples=[0.1])
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], LowerCase] = Field(
        default="info", examples=["info"]
    )
    log_format: Annotated[Literal["auto", "console", "json"], LowerCase] = Field(default="auto", examples=["auto"])
    available_providers: Annotated[dict[str, tuple[str, ...]], NoDecode, BeforeValidator(parse_available_providers)] = (
        Field(
            default_factory=lambda: {"ollama": ("gpt-oss", "llama3.2"), "openai": ("gpt-5-mini",)},
            examples=['{"ollama": ["gpt-oss"], "openai": ["gpt-5-mini"]}'],
        )
    )
    embedding_providers: Annotated[dict[str, tuple[str, ...]], NoDecode, BeforeValidator(parse_available_providers)] = (
        Field(default_factory=dict, examples=['{"ollama": ["nomic-embed-text"]}'])
    )
    voice_providers: Annotated[dict[str, tuple[str, ...]], NoDecode, BeforeValidator(parse_available_providers)] = (
        Field(default_factory=dict, examples=['{"openai": ["gpt-4o-mini-transcribe"]}'])
    )
    speech_providers: Annotated[dict[str, tuple[str, ...]], NoDecode, BeforeValidator(parse_available_providers)] = (
        Field(default_factory=dict, examples=['{"openai": ["gpt-4o-mini-tts@nova"]}'])
    )
    image_providers: Annotated[dict[str, tuple[str, ...]], NoDecode, BeforeValidator(parse_available_providers)] = (
        Field(default_factory=dict, examples=['{"openai": ["gpt-image-1"]}'])
    )
    mcp_servers: Annotated[SecretStr | None, ToolServers] = Field(default=None, examples=[TOOL_SERVERS_EXAMPLE])
    web_search_url: WebUrl | None = Field(default=None, examples=["http://localhost:8888"])
    web_search_native: bool = Field(default=True, examples=["true"])
    provider_preferred_ttl: float = Field(default=1800.0, gt=0, allow_inf_nan=False, examples=[1800])
    provider_cooldown: float = Field(default=300.0, gt=0, allow_inf_nan=False, examples=[300])
    provider_max_hops: int = Field(default=3, gt=0, examples=[3])
    remote_consent: Annotated[Literal["granted", "ask"], LowerCase] = Field(default="granted", examples=["granted"])


class Settings(CommonVariables):
    """The validated settings.

    Args:
        providers: every provider of `available_providers` in order, including unusable ones.
        embedders: every provider of `embedding_providers` in order, including unusable ones.
        transcribers: the same of `voice_providers`.
        speakers: the same of `speech_providers`.
        painters: the same of `image_providers`.
        warnings: lines for the operator about providers that are left out and variables that look unintended.
        variables: all variables that are set, in plain text.
    """

    providers: tuple[ProviderSettings, ...] = ()
    embedders: tuple[ProviderSettings, ...] = ()
    transcribers: tuple[ProviderSettings, ...] = ()
    speakers: tuple[ProviderSettings, ...] = ()
    painters: tuple[ProviderSettings, ...] = ()
    warnings: tuple[str, ...] = ()
    variables: Mapping[str, str] = Field(default_factory=dict[str, str], repr=False)

    @property
    def beside_chat(self) -> tuple[ProviderSettings, ...]:
        """The providers of everything but chat."""
        return (*self.embedders, *self.transcribers, *self.speakers, *self.painters)

    @property
    def zone(self) -> tzinfo:
        """The time zone of dates shown to people."""
        return machine_zone() if self.timezone is None else find_zone(self.timezone)

    @property
    def named_api_tokens(self) -> dict[str, str]:
        """The tokens of API_TOKENS by name."""
        return parse_api_tokens(self.api_tokens.get_secret_value()) if self.api_tokens is not None else {}

    @property
    def tool_servers(self) -> tuple[ToolServer, ...]:
        """The servers of MCP_SERVERS."""
        return parse_tool_servers(self.mcp_servers.get_secret_value()) if self.mcp_servers is not None else ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """All secret values in plain text, for redaction."""
        own = (self.telegram_bot_token, self.telegram_webhook_secret, self.web_token, self.redis_url, self.database_url)
        keys = (provider.api_key for provider in (*self.providers, *self.beside_chat))
        values = [secret.get_secret_value() for secret in (*own, *self.secrets_key, *keys) if secret]
        if self.otel_exporter_otlp_headers is not None:
            for value in parse_headers(self.otel_exporter_otlp_headers.get_secret_value()).values():
                # Of `Bearer <key>` the key alone is secret too.
                values += [value, value.rpartition(" ")[2]]
        values += self.named_api_tokens.values()
        values += [secret for server in self.tool_servers for secret in server.secrets if secret]
        passwords = [url_password(value) for value in values]
        # A driver's message may hold the password encoded as in the URL, or decoded.
        return tuple(dict.fromkeys([*values, *filter(None, passwords), *map(unquote, filter(None, passwords))]))

    def require_daemon(self) -> None:
        """Requires a bot token and a usable provider, which the console may set, too.

        Raises:
            ConfigurationError: at least one of them is missing.
        """
        mistakes: list[str] = []
        if self.telegram_bot_token is None:
            mistakes.append(
                format_mistake(
                    "TELEGRAM_BOT_TOKEN", "is not set, get one from @BotFather", _get_example("telegram_bot_token")
                )
            )
        if not self.has_console:
            mistakes += self._find_unusable_providers()
        if mistakes:
            raise ConfigurationError(mistakes)

    def require_provider(self) -> None:
        """Requires a usable provider, unless the console is on, in which one can be added.

        Raises:
            ConfigurationError: there is none.
        """
        mistakes = self._find_unusable_providers()
        if mistakes and not self.has_console:
            raise ConfigurationError(mistakes)

    @property
    def has_console(self) -> bool:
        """True if operators can sign in to the console."""
        return self.web_port is not None and self.web_token is not None

    def prepare_data_dir(self) -> None:
        """Creates DATA_DIR if necessary, verifies that it is writable, and closes it and its files to other users.

        Raises:
            ConfigurationError: the directory cannot be created or written to.
        """
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.data_dir):
                pass
            restrict_access(self.data_dir)
        except OSError as error:
            raise _unwritable(error) from None

    def require_writable_data_dir(self) -> None:
        """Verifies that DATA_DIR is writable, or can be created, without creating it.

        Raises:
            ConfigurationError: it is not.
        """
        directory = self.data_dir.absolute()
        nearest = next(path for path in (directory, *directory.parents) if path.exists())
        try:
            if not nearest.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            with tempfile.TemporaryFile(dir=nearest):
                pass
        except OSError as error:
            raise _unwritable(error) from None

    def _find_unusable_providers(self) -> list[str]:
        if any(provider.missing is None for provider in self.providers):
            return []
        reasons = "; ".join(f"{provider.id}: {provider.missing}" for provider in self.providers) or "none is listed"
        fault = f"has no usable provider ({reasons})"
        return [format_mistake("AVAILABLE_PROVIDERS", fault, '{"ollama": ["gpt-oss"]}')]


def load_settings(env_file: Path | None = Path(".env"), environ: Mapping[str, str] | None = None) -> Settings:
    """Returns all settings, from the environment merged over an env file.

    Args:
        env_file: a file of `NAME=value` lines; it need not exist.
        environ: the environment; None for that of the process.

    Raises:
        ConfigurationError: lists every mistake.
    """
    variables = read_variables(env_file, environ)
    common, invalid, mistakes = parse_variables(CommonVariables, variables.values)
    mistakes = [*variables.mistakes, *mistakes, *_find_inconsistencies(common, invalid)]
    available = common.available_providers
    if "available_providers" in invalid:
        with suppress(ValueError):  # its mistakes are in the list already
            available = _list_providers(variables.values["AVAILABLE_PROVIDERS"], [])
    providers = _read_providers(available, variables.values, mistakes)
    beside_chat = read_capability_providers(common, variables.values, mistakes)
    mistakes = list(dict.fromkeys(mistakes))
    if mistakes:
        raise ConfigurationError(mistakes)
    listed = tuple(dict.fromkeys([*available, *(each.id for found in beside_chat.values() for each in found)]))
    warnings = [
        *variables.warnings,
        *([] if available else [NO_PROVIDER]),
        *dict.fromkeys(
            f"{provider.id} is left out: {provider.missing}"
            for provider in chain(providers, *beside_chat.values())
            if provider.missing
        ),
        *find_ignored(variables.values, variables.file_names, listed, (*CommonVariables.variable_names(), *ALIASES)),
    ]
    data = {name: getattr(common, name) for name in CommonVariables.model_fields}
    return Settings(
        **data,
        providers=tuple(providers),
        embedders=beside_chat["embeddings"],
        transcribers=beside_chat["voice"],
        speakers=beside_chat["speech"],
        painters=beside_chat["images"],
        warnings=tuple(warnings),
        variables=variables.values,
    )


def read_providers(variables: Mapping[str, str]) -> tuple[ProviderSettings, ...]:
    """Returns the providers of a set of variables: AVAILABLE_PROVIDERS and those of each provider.

    Raises:
        ConfigurationError: lists every mistake.
    """
    mistakes: list[str] = []
    listed = variables.get("AVAILABLE_PROVIDERS")
    available = CommonVariables.model_fields["available_providers"].get_default(call_default_factory=True)
    if listed is not None:
        faults: list[str] = []
        try:
            available = _list_providers(listed, faults)
        except ValueError as error:
            faults.append(str(error))
        example = _get_example("available_providers")
        mistakes += [format_mistake("AVAILABLE_PROVIDERS", fault, example) for fault in faults]
    providers = _read_providers(available, variables, mistakes)
    if mistakes:
        raise ConfigurationError(mistakes)
    return tuple(providers)


def read_capability_providers(
    lists: CommonVariables, variables: Mapping[str, str], mistakes: list[str]
) -> dict[str, tuple[ProviderSettings, ...]]:
    """Returns the providers of each capability beside chat, by its name.

    Args:
        lists: names the providers and models of each.
        variables: those of the providers.
        mistakes: appended to.
    """
    # `<ID>_MODEL_NAME` puts a model first among those of a chat.
    others = {name: value for name, value in variables.items() if not name.endswith("_MODEL_NAME")}
    listed = {
        "embeddings": (lists.embedding_providers, EMBEDDING_KINDS),
        "voice": (lists.voice_providers, VOICE_KINDS),
        "speech": (lists.speech_providers, SPEECH_KINDS),
        "images": (lists.image_providers, IMAGE_KINDS),
    }
    return {name: tuple(_read_providers(models, others, mistakes, kinds)) for name, (models, kinds) in listed.items()}


def _read_providers(
    available: Mapping[str, tuple[str, ...]],
    variables: Mapping[str, str],
    mistakes: list[str],
    kinds: frozenset[ProviderKind] = frozenset(ProviderKind),
) -> list[ProviderSettings]:
    """Returns the providers of a list; one whose kind cannot serve it is left out."""
    providers: list[ProviderSettings] = []
    for provider_id, models in available.items():
        provider, provider_mistakes = read_provider(provider_id, models, variables)
        if provider.kind not in kinds:
            provider = replace(provider, missing=f"the kind {provider.kind.value} does not serve this")
        providers.append(provider)
        mistakes += provider_mistakes
    return providers


def _find_inconsistencies(common: CommonVariables, invalid: frozenset[str]) -> list[str]:
    """Returns mistakes in the combination of variables."""
    if common.telegram_mode != "webhook" or "telegram_mode" in invalid:
        return []
    found = [
        format_mistake(name.upper(), "is needed with TELEGRAM_MODE=webhook", _get_example(name))
        for name in ("telegram_webhook_url", "telegram_webhook_secret")
        if getattr(common, name) is None and name not in invalid
    ]
    if common.web_port is None and "web_port" not in invalid:
        fault = "is needed with TELEGRAM_MODE=webhook, to receive the updates"
        found.append(format_mistake("WEB_PORT", fault, _get_example("web_port")))
    url = common.telegram_webhook_url
    if url and not url.lower().startswith("https://") and common.telegram_api_base_url is None:
        fault = "must begin with https://, as Telegram requires"
        found.append(format_mistake("TELEGRAM_WEBHOOK_URL", fault, _get_example("telegram_webhook_url")))
    return found


def _unwritable(error: OSError) -> ConfigurationError:
    fault = f"cannot be written to ({error.strerror})"
    return ConfigurationError([format_mistake("DATA_DIR", fault, _get_example("data_dir"))])


def _get_example(field: str) -> str:
    return str((CommonVariables.model_fields[field].examples or [""])[0])
