"""Pseudonyms of people and chats: keyed hashes, for the few records that outlast `/forget`."""

import hashlib
import hmac
import secrets

from sqlalchemy import select

from core.db.database import Database
from core.db.usage_tables import SecretKeyRow

KEY_NAME = "pseudonyms"


class Pseudonyms:
    """Names people and chats by HMAC-SHA256 under a random key of this installation.

    Args:
        key: secret shared by all replicas; another key changes every pseudonym.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, reference: str) -> str:
        """Returns the pseudonym of a reference such as `telegram:123`."""
        return hmac.digest(self._key, reference.encode(), hashlib.sha256).hex()[:40]

    def number(self, reference: str) -> int:
        """Returns a pseudonym that fits a column of ids; it is larger than every id of Telegram's."""
        return 2**62 + int(self.of(reference)[:15], 16)


async def load_pseudonyms(database: Database) -> Pseudonyms:
    """Returns the pseudonyms of this installation; its key is created at the first start.

    Raises:
        StorageError: the database fails.
    """
    query = select(SecretKeyRow.value).where(SecretKeyRow.name == KEY_NAME)
    async with database.reading() as session:
        key = await session.scalar(query)
    if key is None:
        values = {"name": KEY_NAME, "value": secrets.token_bytes(32)}
        async with database.session() as session:
            await session.execute(database.insert(SecretKeyRow).values(values).on_conflict_do_nothing())
            key = await session.scalar(query)
    if key is None:
        raise RuntimeError("the key of pseudonyms was written and cannot be read")
    return Pseudonyms(key)
