"""Localised labels of moderation's enum values; each value has its own text."""

from core.i18n import Texts
from services.moderation.domain.ports import Standing

_DENIALS = {Standing.MEMBER: "moderation-admins-only", Standing.UNKNOWN: "rights-unknown"}


def label(texts: Texts, language: str | None, kind: str, value: str, /, **arguments: str | int) -> str:
    """Returns the text with the key `kind-value`, such as `moderation-mode-dry`."""
    key = f"{kind}-{value}"
    return texts.get(key, language, **arguments)


def find_denial(standing: Standing) -> str | None:
    """Returns the text key that tells a user of this standing why an admin's act is not done; None for an admin."""
    return _DENIALS.get(standing)
