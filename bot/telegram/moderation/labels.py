"""Words for what moderation's values are called: each value of a kind has a text of its own."""

from core.i18n import Texts


def label(texts: Texts, language: str | None, kind: str, value: str, /, **arguments: str | int) -> str:
    """The text of a value.

    Args:
        texts: where it is.
        language: an IETF tag.
        kind: what its key begins with, such as `moderation-mode`.
        value: what its key ends with, such as `dry`.
        arguments: what the text's variables are.
    """
    key = f"{kind}-{value}"
    return texts.get(key, language, **arguments)
