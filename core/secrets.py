"""Encryption of secrets at rest by `SECRETS_KEY`, with rotation.

AES-256-GCM, by a key that HKDF-SHA256 derives from each value of the list. The name of the row that holds a secret is
associated data, so that a stored value that is moved to another row does not open.
"""

import os
from collections.abc import Sequence
from typing import Final

from pydantic import SecretStr

_FORMAT: Final = b"\x01"
_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12


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
