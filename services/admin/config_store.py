"""Revisions of the configuration that operators set at run time; keys are encrypted by `SECRETS_KEY`, with rotation.

AES-256-GCM, by a key that HKDF-SHA256 derives from each value of the list. The name of the row that holds a secret is
associated data, so that a stored value that is moved to another row does not open.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog
from pydantic import SecretStr
from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import aliased

from core.clock import Clock
from core.db.database import Database
from core.db.operator_tables import ConfigRevisionRow, ConfigValueRow
from core.errors import UnderstudyError

_FORMAT: Final = b"\x01"
_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
log = structlog.get_logger()
KEPT = timedelta(days=30)
"""Retention of replaced values, within which a change can be undone."""


class SecretUnreadable(Exception):
    """A stored secret that none of the keys opens: the key is missing from SECRETS_KEY, or the row was changed."""


class SecretBox:
    """Seals and opens secrets.

    Args:
        keys: the values of SECRETS_KEY, the newest first; it seals, and all of them open.
    """

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        # Imported here, since a bot that stores no secret does not need it.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        derived = [_derive(key.get_secret_value()) for key in keys]
        self._ciphers = {key_id: AESGCM(key) for key_id, key in derived}
        self._newest = derived[0][0]

    def seal(self, secret: str, name: str) -> bytes:
        """Returns a secret encrypted by the newest key, to be stored under `name`."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._newest].encrypt(nonce, secret.encode(), name.encode())
        return _FORMAT + self._newest + nonce + sealed

    def open(self, sealed: bytes, name: str) -> str:
        """Returns the secret that is stored under `name`.

        Raises:
            SecretUnreadable: no key of the list sealed it, or it was sealed for another name.
        """
        from cryptography.exceptions import InvalidTag

        body = sealed[1 + _ID_BYTES :]
        cipher = self._ciphers.get(sealed[1 : 1 + _ID_BYTES]) if sealed[:1] == _FORMAT else None
        if cipher is None:
            raise SecretUnreadable(f"{name} was encrypted by a key that is not in SECRETS_KEY")
        try:
            return cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], name.encode()).decode()
        except (InvalidTag, ValueError):
            raise SecretUnreadable(f"{name} was changed in the database, or belongs to another row") from None

    def is_newest(self, sealed: bytes) -> bool:
        """Returns whether the newest key sealed it."""
        return sealed[: 1 + _ID_BYTES] == _FORMAT + self._newest


def _derive(value: str) -> tuple[bytes, bytes]:
    """Returns the public id and the 256-bit key of one value of SECRETS_KEY."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    material = HKDF(hashes.SHA256(), _ID_BYTES + 32, salt=None, info=b"understudy secrets").derive(value.encode())
    return material[:_ID_BYTES], material[_ID_BYTES:]


class ConfigConflict(UnderstudyError):
    """Another operator changed the configuration since this one read it."""


class SecretsKeyMissing(UnderstudyError):
    """A key cannot be stored without SECRETS_KEY."""


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A variable as an operator set it.

    Args:
        value: stored text; None for a secret that SECRETS_KEY does not decrypt.
        at: the instant of the change.
        actor_id: the operator, a Telegram user id; 0 for one who signed in by WEB_TOKEN.
    """

    value: str | None = field(repr=False)
    at: datetime
    actor_id: int


def is_secret(name: str) -> bool:
    """Returns whether the value of a variable is stored encrypted and never shown."""
    return name.endswith("_API_KEY")


class ConfigurationStore:
    """The stored revisions. Each method raises StorageError where the database fails.

    Args:
        box: encrypts keys; None without SECRETS_KEY.
    """

    def __init__(self, database: Database, clock: Clock, box: SecretBox | None) -> None:
        self._database = database
        self._clock = clock
        self._box = box

    @property
    def can_seal(self) -> bool:
        """True if keys can be stored."""
        return self._box is not None

    async def newest_revision(self) -> int:
        """Returns the newest revision; 0 without one."""
        # One hop to the database: every replica asks this all the time.
        newest = select(func.max(ConfigRevisionRow.revision))
        return await self._database.run(lambda connection: connection.scalar(newest) or 0, reading=True)

    async def load(self) -> tuple[int, dict[str, StoredValue]]:
        """Returns the newest revision, and the values in effect by variable."""
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
        return latest, stored

    async def values_before(self, revision: int) -> dict[str, str | None]:
        """Returns the values that the variables of a revision had before it."""
        async with self._database.reading() as session:
            rows = list(await session.scalars(select(ConfigValueRow).order_by(ConfigValueRow.revision)))
        changed = {row.name for row in rows if row.revision == revision}
        before = {row.name: row for row in rows if row.revision < revision}
        return {name: self._opened(before[name]) if name in before else None for name in changed}

    async def list_undoable(self) -> frozenset[int]:
        """Returns the revisions that can be undone: of the last 30 days, their variables not changed later."""
        query = select(ConfigValueRow.revision, ConfigValueRow.name)
        recent = select(ConfigRevisionRow.revision).where(ConfigRevisionRow.at >= self._clock.now() - KEPT)
        async with self._database.reading() as session:
            rows = [(revision, name) for revision, name in await session.execute(query)]
            kept = set(await session.scalars(recent))
        newest = {name: revision for revision, name in sorted(rows)}
        replaced = {revision for revision, name in rows if newest[name] > revision}
        return frozenset(revision for revision, _ in rows if revision in kept) - replaced

    async def write(self, changes: Mapping[str, str | None], actor_id: int, note: str, revision: int) -> None:
        """Stores changes as a revision.

        Raises:
            ConfigConflict: the revision exists.
            SecretsKeyMissing: a key would have to be stored in plain text.
        """
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

    async def renew_seals(self) -> None:
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

    def _row(self, revision: int, name: str, value: str | None) -> ConfigValueRow:
        if value is None or not is_secret(name):
            return ConfigValueRow(revision=revision, name=name, value=value, sealed=None)
        if self._box is None:
            raise SecretsKeyMissing
        return ConfigValueRow(revision=revision, name=name, value=None, sealed=self._box.seal(value, name))
