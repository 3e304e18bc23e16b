"""All settings: parsed and validated together, with every mistake reported at once."""

import errno
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import tzinfo
from itertools import chain
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import Field

from core.config.addresses import url_password
from core.config.environment import format_mistake, parse_variables, read_variables
from core.config.fields import parse_api_tokens, parse_headers
from core.config.lint import find_ignored, find_unlikely
from core.config.permissions import restrict_access
from core.config.providers import (
    ALIASES,
    EMBEDDING_KINDS,
    IMAGE_KINDS,
    SPEECH_KINDS,
    VOICE_KINDS,
    ProviderKind,
    ProviderSettings,
    read_provider,
)
from core.config.timezone import find_zone, machine_zone
from core.config.tool_servers import ToolServer, parse_tool_servers
from core.config.variables import NO_PROVIDER, CommonVariables, get_example, list_providers
from core.errors import ConfigurationError

RESERVED_PATHS = ("/v1", "/battleground", "/console")
"""Path prefixes of the web server that accept POST requests, so a webhook below them would never be reached."""


class Settings(CommonVariables):
    """The validated settings.

    Args:
        providers: every provider of `available_providers` in order, including unusable ones.
        embedders: every provider of `embedding_providers` in order, including unusable ones.
        transcribers: configured providers of `voice_providers`.
        speakers: configured providers of `speech_providers`.
        painters: configured providers of `image_providers`.
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
                    "TELEGRAM_BOT_TOKEN", "is not set, get one from @BotFather", get_example("telegram_bot_token")
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
            _try_writing(self.data_dir)
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
            _try_writing(nearest)
        except OSError as error:
            raise _unwritable(error) from None

    def _find_unusable_providers(self) -> list[str]:
        if any(provider.missing is None for provider in self.providers):
            return []
        reasons = "; ".join(f"{provider.id}: {provider.missing}" for provider in self.providers) or "none is listed"
        fault = f"has no usable provider ({reasons})"
        return [format_mistake("AVAILABLE_PROVIDERS", fault, '{"ollama": ["gpt-oss"]}')]


def _try_writing(directory: Path) -> None:
    """Creates a file and deletes it. It is closed first: some FUSE file systems lose an open file that is deleted."""
    with tempfile.NamedTemporaryFile(dir=directory):
        pass


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
            available = list_providers(variables.values["AVAILABLE_PROVIDERS"], [])
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
        *find_unlikely(variables.values, common.history_tokens, listed),
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
            available = list_providers(listed, faults)
        except ValueError as error:
            faults.append(str(error))
        example = get_example("available_providers")
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
        format_mistake(name.upper(), "is needed with TELEGRAM_MODE=webhook", get_example(name))
        for name in ("telegram_webhook_url", "telegram_webhook_secret")
        if getattr(common, name) is None and name not in invalid
    ]
    if common.web_port is None and "web_port" not in invalid:
        fault = "is needed with TELEGRAM_MODE=webhook, to receive the updates"
        found.append(format_mistake("WEB_PORT", fault, get_example("web_port")))
    url = common.telegram_webhook_url
    if url and (fault := _find_webhook_fault(url, is_self_hosted=common.telegram_api_base_url is not None)):
        found.append(format_mistake("TELEGRAM_WEBHOOK_URL", fault, get_example("telegram_webhook_url")))
    return found


def _find_webhook_fault(url: str, *, is_self_hosted: bool) -> str | None:
    if not url.lower().startswith("https://") and not is_self_hosted:
        return "must begin with https://, as Telegram requires"
    path = unquote(urlsplit(url).path)
    if any(character in path for character in "{}"):
        return "must not hold { or } in its path"
    section = next((section for section in RESERVED_PATHS if path == section or path.startswith(f"{section}/")), None)
    return None if section is None else f"must not be under {section}, which the bot itself serves"


def _unwritable(error: OSError) -> ConfigurationError:
    fault = f"cannot be written to ({error.strerror})"
    return ConfigurationError([format_mistake("DATA_DIR", fault, get_example("data_dir"))])
