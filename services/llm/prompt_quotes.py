"""Masks quotations of a prompt in a server's words, so that operators can read the rest.

Every word that the prompt holds too is masked, whole or cut off, and so are escaped characters.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from pydantic_ai.messages import ModelMessage, TextContent

MASK: Final = "…"
_WORD = re.compile(r"\w+")
_ESCAPED = re.compile(r"(\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2})+")
_SHORTEST_PART = 4
"""Characters from which on a word counts as cut off from a longer one."""


def mask_quotes(words: str, messages: Iterable[ModelMessage]) -> str:
    """Returns a server's words with a mask in place of each word that is in the messages; short words are kept."""
    said = {word.lower() for text in _iter_texts(messages) for word in _WORD.findall(text)}

    def mask(match: re.Match[str]) -> str:
        word = match[0].lower()
        if len(word) < _SHORTEST_PART and word.isalpha() and word.isascii():
            return match[0]
        is_part = len(word) >= _SHORTEST_PART and any(word in other for other in said)
        return MASK if word in said or is_part else match[0]

    masked = _WORD.sub(mask, _ESCAPED.sub(MASK, words))
    return re.sub(rf"{MASK}(\W{{0,3}}{MASK})+", MASK, masked)


def _iter_texts(messages: Iterable[ModelMessage]) -> Iterator[str]:
    for message in messages:
        for part in message.parts:
            content: object = getattr(part, "content", None)
            args: object = getattr(part, "args", None)
            for item in (content, args):
                if isinstance(item, str):
                    yield item
                elif isinstance(item, list):
                    yield from (str(each.content if isinstance(each, TextContent) else each) for each in item)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - content of any kind
                elif item is not None:
                    yield str(item)
