"""The variables that do not belong to one provider: their types, defaults and examples."""

import re
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from core.config.addresses import DatabaseUrl, ListenHost, Origin, RedisUrl, WebUrl, require_url
from core.config.environment import Mistakes, VariableSet, format_mistake
from core.config.fields import (
    ApiTokens,
    DirectoryPath,
    Headers,
    Ids,
    LowerCase,
    SecretKeys,
    SpamLists,
    UserIds,
    parse_json_object,
    quote_name,
    require_pattern,
)
from core.config.lint import find_clashes
from core.config.timezone import Timezone
from core.config.tool_servers import EXAMPLE as TOOL_SERVERS_EXAMPLE
from core.config.tool_servers import ToolServers

NO_PROVIDER = format_mistake("AVAILABLE_PROVIDERS", "lists no provider", '{"ollama": ["gpt-oss"]}')


def parse_available_providers(value: object) -> dict[str, tuple[str, ...]]:
    """Parses the providers and their models in order, and raises all mistakes together."""
    faults: list[str] = []
    listed = list_providers(value, faults)
    if faults:
        raise Mistakes(faults)
    return listed


def list_providers(value: object, faults: list[str]) -> dict[str, tuple[str, ...]]:
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


def get_example(field: str) -> str:
    """Returns the example of a field, empty without one."""
    return str((CommonVariables.model_fields[field].examples or [""])[0])
