"""Localised labels of moderation's enum values; each value has its own text."""

from core.i18n import Texts


def label(texts: Texts, language: str | None, kind: str, value: str, /, **arguments: str | int) -> str:
    """Returns the text with the key `kind-value`, such as `moderation-mode-dry`."""
    key = f"{kind}-{value}"
    return texts.get(key, language, **arguments)
