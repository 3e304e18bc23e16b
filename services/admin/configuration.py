"""Providers and budgets that operators set at run time: stored variables that override those of the environment.

A change is one revision. Every replica looks for a newer one and applies it; requests in flight go on as they began.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import structlog
from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import aliased

from core.clock import Clock
from core.config.providers import ProviderSettings, ProviderVariables, variable_prefix
from core.config.settings import read_providers
from core.db.database import Database
from core.db.operator_tables import ConfigRevisionRow, ConfigValueRow
from core.errors import ConfigurationError, StorageError, UnderstudyError
from core.secrets import SecretBox, SecretUnreadable

log = structlog.get_logger()

LISTED = "AVAILABLE_PROVIDERS"
BUDGETS = ("BUDGET_DAY", "BUDGET_USER_DAY", "BUDGET_CHAT_DAY")
MODEL_NAMES = ("OLLAMA_MODEL_NAME", "OPENAI_MODEL_NAME")
"""Variables of the environment that put a model first; a stored list of providers says which one is."""
KEPT = timedelta(days=30)
"""Time for which a replaced value is kept, so that its change can be undone."""


class ValueSource(StrEnum):
    """The origin of a value in effect."""

    CONSOLE = "console"
    ENVIRONMENT = "environment"
    DEFAULT = "default"


class ConfigConflict(UnderstudyError):
    """Another operator changed the configuration since this one read it."""


class SecretsKeyMissing(UnderstudyError):
    """A key cannot be stored without SECRETS_KEY."""


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A variable as an operator set it.

    Args:
        value: its text; None for a secret that SECRETS_KEY does not open.
        at: the instant of the change.
        actor_id: the operator, a Telegram user id; 0 for one who signed in by WEB_TOKEN.
    """

    value: str | None = field(repr=False)
    at: datetime
    actor_id: int


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


def is_secret(name: str) -> bool:
    """Returns whether the value of a variable is stored encrypted and never shown."""
    return name.endswith("_API_KEY")


class ProviderConfiguration:
    """The configuration in effect, and its changes.

    Args:
        variables: of the environment, by name.
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
        self._database = database
        self._clock = clock
        self._box = box
        self._timing = timing or ConfigTiming()
        self._listeners: list[Callable[[Configuration], None]] = []
        self._change = asyncio.Lock()
        self.current = Configuration(0, {}, providers)

    @property
    def can_store_keys(self) -> bool:
        """True if SECRETS_KEY is set."""
        return self._box is not None

    def on_change(self, listener: Callable[[Configuration], None]) -> None:
        """Registers a callback for every revision that this replica applies. It must not block."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Applies what is stored, and encrypts it anew where SECRETS_KEY has a newer key.

        Raises:
            StorageError: the database failed.
        """
        await self._renew_seals()
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
            if await self._newest_revision() != self.current.revision:
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
            if await self._newest_revision() != revision:
                raise ConfigConflict
            self.preview(changes)
            await self._write(changes, actor_id, note, revision + 1)
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
        if revision not in await self.list_undoable():
            raise ConfigConflict
        async with self._database.reading() as session:
            rows = list(await session.scalars(select(ConfigValueRow).order_by(ConfigValueRow.revision)))
        changed = {row.name for row in rows if row.revision == revision}
        before = {row.name: row for row in rows if row.revision < revision}
        values = {name: self._opened(before[name]) if name in before else None for name in changed}
        return await self.save(values, actor_id, note=note, revision=seen)

    async def list_undoable(self) -> frozenset[int]:
        """Returns the revisions that `undo` takes back: of the last 30 days, their variables not changed later.

        Raises:
            StorageError: the database failed.
        """
        query = select(ConfigValueRow.revision, ConfigValueRow.name)
        recent = select(ConfigRevisionRow.revision).where(ConfigRevisionRow.at >= self._clock.now() - KEPT)
        async with self._database.reading() as session:
            rows = [(revision, name) for revision, name in await session.execute(query)]
            kept = set(await session.scalars(recent))
        newest = {name: revision for revision, name in sorted(rows)}
        replaced = {revision for revision, name in rows if newest[name] > revision}
        return frozenset(revision for revision, _ in rows if revision in kept) - replaced

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

    async def _newest_revision(self) -> int:
        # One hop to the database: every replica asks this all the time.
        newest = select(func.max(ConfigRevisionRow.revision))
        return await self._database.run(lambda connection: connection.scalar(newest) or 0, reading=True)

    async def _load(self) -> Configuration:
        newest: dict[str, tuple[ConfigValueRow, ConfigRevisionRow]] = {}
        async with self._database.reading() as session:
            rows = await session.execute(
                select(ConfigValueRow, ConfigRevisionRow)
                .join(ConfigRevisionRow, ConfigRevisionRow.revision == ConfigValueRow.revision)
                .order_by(ConfigValueRow.revision)
            )
            for value, revision in rows:
                newest[value.name] = (value, revision)
            latest = await session.scalar(select(func.max(ConfigRevisionRow.revision))) or 0
        stored = {
            name: StoredValue(self._opened(value), revision.at, revision.actor_id)
            for name, (value, revision) in newest.items()
            if value.value is not None or value.sealed is not None
        }
        if not stored:
            return Configuration(latest, {}, self._environment)
        try:
            providers = read_providers(self._merge({name: each.value for name, each in stored.items()}))
        except ConfigurationError as error:
            # Saved values were valid: the environment has changed since, and no longer fits them.
            log.error("config.invalid", revision=latest, mistakes=error.mistakes)
            providers = self._environment
        return Configuration(latest, stored, providers)

    def _opened(self, row: ConfigValueRow) -> str | None:
        if row.sealed is None:
            return row.value
        if self._box is None:
            log.warning("config.secret_unreadable", name=row.name, reason="SECRETS_KEY is not set")
            return None
        try:
            return self._box.open(row.sealed, row.name)
        except SecretUnreadable as error:
            log.warning("config.secret_unreadable", name=row.name, reason=str(error))
            return None

    async def _write(self, changes: Mapping[str, str | None], actor_id: int, note: str, revision: int) -> None:
        rows = [self._row(revision, name, value) for name, value in changes.items()]
        now = self._clock.now()
        async with self._database.session() as session:
            taken = await session.execute(
                self._database.insert(ConfigRevisionRow)
                .values(revision=revision, at=now, actor_id=actor_id, note=note)
                .on_conflict_do_nothing()
                .returning(ConfigRevisionRow.revision)
            )
            if taken.first() is None:
                raise ConfigConflict
            session.add_all(rows)
            await session.flush()
            # The value before a change is kept as long as the change can be undone.
            old = select(ConfigRevisionRow.revision).where(ConfigRevisionRow.at < now - KEPT)
            next_row = aliased(ConfigValueRow)
            replaced_long_ago = exists().where(
                next_row.name == ConfigValueRow.name,
                next_row.revision > ConfigValueRow.revision,
                next_row.revision.in_(old),
            )
            await session.execute(
                delete(ConfigValueRow).where(ConfigValueRow.name.in_(changes), replaced_long_ago),
                execution_options={"synchronize_session": False},
            )

    def _row(self, revision: int, name: str, value: str | None) -> ConfigValueRow:
        if value is None or not is_secret(name):
            return ConfigValueRow(revision=revision, name=name, value=value, sealed=None)
        if self._box is None:
            raise SecretsKeyMissing
        return ConfigValueRow(revision=revision, name=name, value=None, sealed=self._box.seal(value, name))

    async def _renew_seals(self) -> None:
        """Encrypts values of older keys by the newest one, so that the older one can leave the list."""
        if self._box is None:
            return
        async with self._database.reading() as session:
            rows = list(await session.scalars(select(ConfigValueRow).where(ConfigValueRow.sealed.is_not(None))))
        stale = [row for row in rows if row.sealed is not None and not self._box.is_newest(row.sealed)]
        for row in stale:
            value = self._opened(row)
            if value is None:
                continue
            async with self._database.session() as session:
                await session.execute(
                    update(ConfigValueRow)
                    .where(
                        ConfigValueRow.revision == row.revision,
                        ConfigValueRow.name == row.name,
                        ConfigValueRow.sealed == row.sealed,
                    )
                    .values(sealed=self._box.seal(value, row.name))
                )
            log.info("config.secret_renewed", name=row.name)


def _require_known(
    changes: Mapping[str, str | None], providers: tuple[ProviderSettings, ...], before: tuple[ProviderSettings, ...]
) -> None:
    """Checks that every changed variable belongs to a provider, or is a budget."""
    ids = {each.id for each in (*providers, *before)}
    known = {LISTED, *BUDGETS}.union(*(ProviderVariables.variable_names(variable_prefix(each)) for each in ids))
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ConfigurationError([f"{name} cannot be set in the console" for name in unknown])
