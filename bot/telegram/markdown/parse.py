"""Structure of a Markdown text, as parsed by the parser under telegramify-markdown."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

import pyromark
from telegramify_markdown.converter import STANDARD_OPTIONS

ANGLE: Final = "\ufdd0"
"""Placeholder of a `<` that starts no link. Noncharacters do not occur in real text."""
BREAK: Final = "\ufdd1"
"""Placeholder of a line break inside a block (`<br>`)."""
BACKSLASH: Final = "\ufdd2"
"""Placeholder of a literal backslash, such as one in code."""

_OURS = re.compile(f"[{ANGLE}{BREAK}{BACKSLASH}]")
_ANGLE_OR_LINK = re.compile(r"\]\(<[^<>\n]*>|<(?:https?|ftp|tg|mailto):[^\s<>]*>|(<)")
_LEAVES = frozenset({"Code", "InlineMath", "DisplayMath"})


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the tree: `kind` is pulldown-cmark's name, `start` and `end` are indices into the text.

    `depth` is 0 for the top-level blocks; `detail` is the info string of a code fence.
    """

    kind: str
    start: int
    end: int
    depth: int
    detail: str | None = None


def tidy(markdown: str) -> str:
    """Normalises line endings, and removes lone surrogates and placeholders."""
    try:
        markdown.encode()
    except UnicodeEncodeError:
        # Surrogate halves that arrived in two chunks form one character.
        markdown = markdown.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "\r" in markdown:
        markdown = markdown.replace("\r\n", "\n").replace("\r", "\n")
    return _OURS.sub("\ufffd", markdown)


def hide_angles(text: str) -> str:
    """Replaces each `<` that starts no link: the converter drops text that looks like HTML.

    A placeholder instead of an escape works in code too, and keeps all indices.
    """
    return _ANGLE_OR_LINK.sub(lambda found: ANGLE if found[1] else found[0], text)


def parse(text: str) -> tuple[Node, ...]:
    """Returns the nodes of a text (after `tidy` and `hide_angles`) in the order in which they open."""
    index_of = _character_index(text)
    nodes: list[Node] = []
    depth = 0
    for event, span in pyromark.events_with_range(text, options=STANDARD_OPTIONS):
        # The parser's own types are a union of some fifty TypedDicts; all have one key, the name.
        name, value = ("Rule", None) if event == "Rule" else _split_tag(event)
        if name == "Start":
            kind, detail = _split_tag(value)
            start, info = index_of[span["start"]], _info_string(kind, detail)
            if kind == "Item" or info is not None:
                # For the parser the first item of a list starts at its indentation, the others at their markers.
                while text.startswith(" ", start):
                    start += 1
            nodes.append(Node(kind, start, index_of[span["end"]], depth, info))
            depth += 1
        elif name == "End":
            depth -= 1
        elif name in _LEAVES or name == "Rule":
            nodes.append(Node(name, index_of[span["start"]], index_of[span["end"]], depth))
    return tuple(nodes)


def definitions(text: str) -> Mapping[str, tuple[int, str]]:
    """Returns the link reference definitions: label to index and address."""
    if "]:" not in text:
        return {}
    index_of = _character_index(text)
    found = pyromark.reference_definitions(text, options=STANDARD_OPTIONS)
    return {label: (index_of[one["span"]["start"]], one["dest"]) for label, one in found.items()}


def _split_tag(value: object) -> tuple[str, object]:
    if isinstance(value, dict):
        return next(iter(cast("dict[str, object]", value).items()))
    return str(value), None


def _info_string(kind: str, detail: object) -> str | None:
    if kind == "CodeBlock" and isinstance(detail, dict):
        return cast("dict[str, str]", detail)["Fenced"]
    return None


def _character_index(text: str) -> Mapping[int, int] | range:
    """Maps the parser's UTF-8 offsets to indices."""
    if text.isascii():
        return range(len(text) + 1)
    index_of: dict[int, int] = {}
    offset = 0
    for index, character in enumerate(text):
        index_of[offset] = index
        code = ord(character)
        offset += 1 + (code > 0x7F) + (code > 0x7FF) + (code > 0xFFFF)  # noqa: PLR2004 - the borders of UTF-8
    index_of[offset] = len(text)
    return index_of
