"""Providers and budgets that operators set at run time: stored variables that override those of the environment.

A change is one revision. Every replica looks for a newer one and applies it; requests in flight go on as they began.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog

from core.clock import Clock
from core.config.providers import ProviderSettings, ProviderVariables, variable_prefix
from core.config.settings import read_providers
from core.db.database import Database
from core.errors import ConfigurationError, StorageError
from services.admin.config_store import ConfigConflict, ConfigurationStore, SecretBox, StoredValue, is_secret

log = structlog.get_logger()

LISTED = "AVAILABLE_PROVIDERS"
BUDGETS = ("BUDGET_DAY", "BUDGET_USER_DAY", "BUDGET_CHAT_DAY")
MODEL_NAMES = ("OLLAMA_MODEL_NAME", "OPENAI_MODEL_NAME")
"""Variables of the environment that put a model first; a stored list of providers says which one is."""


class ValueSource(StrEnum):
    """The origin of a value in effect."""

    CONSOLE = "console"
    ENVIRONMENT = "environment"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class ConfigTiming:
    """Waits of the configuration, in seconds.

    Args:
        poll_s: interval at which a replica looks for a newer revision.
    """

    poll_s: float = 0.7


@dataclass(frozen=True, slots=True)
class Configuration:
    """One revision, as this replica applies it. Revision 0 has no stored value."""

    revision: int
    stored: Mapping[str, StoredValue]
    providers: tuple[ProviderSettings, ...]

    @property
    def secrets(self) -> tuple[str, ...]:
        """The keys of all providers in plain text, for redaction."""
        keys = (provider.api_key for provider in self.providers)
        return tuple(key.get_secret_value() for key in keys if key is not None)


class ProviderConfiguration:
    """The configuration in effect, and its changes.

    Args:
        variables: environment variables by name.
        providers: those of the environment, used while nothing is stored.
        box: encrypts keys; None without SECRETS_KEY.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        providers: tuple[ProviderSettings, ...],
        database: Database,
        clock: Clock,
        box: SecretBox | None,
        timing: ConfigTiming | None = None,
    ) -> None:
        self._variables = variables
        self._environment = providers
        self.store = ConfigurationStore(database, clock, box)
        self._clock = clock
        self._timing = timing or ConfigTiming()
        self._listeners: list[Callable[[Configuration], None]] = []
        self._change = asyncio.Lock()
        self.current = Configuration(0, {}, providers)

    @property
    def can_store_keys(self) -> bool:
        """True if SECRETS_KEY is set."""
        return self.store.can_seal

    def on_change(self, listener: Callable[[Configuration], None]) -> None:
        """Registers a callback for every revision that this replica applies. It must not block."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Applies the stored configuration, and re-encrypts it where SECRETS_KEY has a newer key.

        Raises:
            StorageError: the database failed.
        """
        await self.store.renew_seals()
        await self.refresh()

    async def run(self) -> None:
        """Follows the changes of other replicas until cancelled."""
        while True:
            await self._clock.sleep(self._timing.poll_s)
            try:
                await self.refresh()
            except StorageError as error:
                log.debug("config.not_refreshed", error=str(error))

    async def refresh(self) -> None:
        """Applies the newest revision, if this replica does not have it yet."""
        async with self._change:
            if await self.store.newest_revision() != self.current.revision:
                self._apply(await self._load())

    def source(self, name: str) -> ValueSource:
        """Returns the origin of a variable's value."""
        if name in self.current.stored:
            return ValueSource.CONSOLE
        return ValueSource.ENVIRONMENT if name in self._variables else ValueSource.DEFAULT

    def variables(self) -> dict[str, str]:
        """Returns all variables in effect, in plain text: the stored ones over those of the environment."""
        return self._merge({name: each.value for name, each in self.current.stored.items()})

    def preview(self, changes: Mapping[str, str | None]) -> tuple[ProviderSettings, ...]:
        """Returns the providers as they would be after these changes.

        Raises:
            ConfigurationError: lists every mistake.
        """
        values = {name: each.value for name, each in self.current.stored.items()}
        for name, value in changes.items():
            if value is None:
                values.pop(name, None)
            else:
                values[name] = value
        providers = read_providers(self._merge(values))
        _require_known(changes, providers, self.current.providers)
        return providers

    async def save(self, changes: Mapping[str, str | None], actor_id: int, *, note: str, revision: int) -> int:
        """Stores changes as one revision and applies it here; the other replicas follow.

        Args:
            changes: a value by variable; None resets the variable to the environment.
            actor_id: the operator.
            note: one readable line about the change, without secrets.
            revision: the one that the operator saw.

        Returns:
            The new revision.

        Raises:
            ConfigConflict: the configuration has changed since.
            ConfigurationError: lists every mistake; nothing is stored.
            SecretsKeyMissing: a key would have to be stored in plain text.
            StorageError: the database failed.
        """
        async with self._change:
            if await self.store.newest_revision() != revision:
                raise ConfigConflict
            self.preview(changes)
            await self.store.write(changes, actor_id, note, revision + 1)
            log.info("config.saved", revision=revision + 1, actor_id=actor_id, names=sorted(changes))
            self._apply(await self._load())
            return self.current.revision

    async def undo(self, revision: int, actor_id: int, *, note: str) -> int:
        """Gives the variables of one revision the values that they had before it.

        Raises:
            ConfigConflict: a later revision changed one of them, one is stored meanwhile, or the earlier values are not
                kept any more.
            StorageError: the database failed.
        """
        # Before anything is read: a change that is stored meanwhile must not be overwritten.
        seen = self.current.revision
        if revision not in await self.store.list_undoable():
            raise ConfigConflict
        values = await self.store.values_before(revision)
        return await self.save(values, actor_id, note=note, revision=seen)

    def export_lines(self) -> list[str]:
        """Returns the stored variables as lines of a `.env` file. Keys are named without their values."""
        lines: list[str] = []
        for name, stored in sorted(self.current.stored.items()):
            if is_secret(name):
                lines.append(f"# {name} is set in the console; keys are not exported")
            elif stored.value is not None:
                quoted = stored.value.replace("\\", "\\\\").replace("'", "\\'")
                lines.append(f"{name}='{quoted}'")
        return lines

    def _merge(self, values: Mapping[str, str | None]) -> dict[str, str]:
        merged = dict(self._variables)
        if LISTED in values:
            for name in MODEL_NAMES:
                merged.pop(name, None)
        for name, value in values.items():
            if value is None:
                merged.pop(name, None)
            else:
                merged[name] = value
        return merged

    def _apply(self, configuration: Configuration) -> None:
        self.current = configuration
        log.info("config.applied", revision=configuration.revision, names=sorted(configuration.stored))
        for listener in self._listeners:
            listener(configuration)

    async def _load(self) -> Configuration:
        latest, stored = await self.store.load()
        if not stored:
            return Configuration(latest, {}, self._environment)
        try:
            providers = read_providers(self._merge({name: each.value for name, each in stored.items()}))
        except ConfigurationError as error:
            # Saved values were valid: the environment has changed since, and no longer fits them.
            log.error("config.invalid", revision=latest, mistakes=error.mistakes)
            providers = self._environment
        return Configuration(latest, stored, providers)


def _require_known(
    changes: Mapping[str, str | None], providers: tuple[ProviderSettings, ...], before: tuple[ProviderSettings, ...]
) -> None:
    """Checks that every changed variable belongs to a provider, or is a budget."""
    ids = {each.id for each in (*providers, *before)}
    known = {LISTED, *BUDGETS}.union(*(ProviderVariables.variable_names(variable_prefix(each)) for each in ids))
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ConfigurationError([f"{name} cannot be set in the console" for name in unknown])
