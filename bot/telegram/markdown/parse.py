"""The structure of a Markdown text, as the parser under telegramify-markdown sees it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

import pyromark
from telegramify_markdown.converter import STANDARD_OPTIONS

ANGLE: Final = "\ufdd0"
"""Stands for a `<` that is no link. Noncharacters never occur in text that is meant for people."""
BREAK: Final = "\ufdd1"
"""Stands for a line break inside a block (`<br>`)."""
BACKSLASH: Final = "\ufdd2"
"""Stands for a backslash that means nothing, such as one in code."""

_OURS = re.compile(f"[{ANGLE}{BREAK}{BACKSLASH}]")
_ANGLE_OR_LINK = re.compile(r"\]\(<[^<>\n]*>|<(?:https?|ftp|tg|mailto):[^\s<>]*>|(<)")
_LEAVES = frozenset({"Code", "InlineMath", "DisplayMath"})


@dataclass(frozen=True, slots=True)
class Node:
    """A piece of the tree: `kind` is pulldown-cmark's name, `start` and `end` are indices into the text.

    `depth` is 0 for the blocks of the document itself; `detail` is the info string of a code fence.
    """

    kind: str
    start: int
    end: int
    depth: int
    detail: str | None = None


def tidy(markdown: str) -> str:
    """Make a text of one kind of line end, without halves of surrogate pairs and without our own stand-ins."""
    try:
        markdown.encode()
    except UnicodeEncodeError:
        # Two halves that came in two pieces of a stream become the character that they are.
        markdown = markdown.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "\r" in markdown:
        markdown = markdown.replace("\r\n", "\n").replace("\r", "\n")
    return _OURS.sub("\ufffd", markdown)


def hide_angles(text: str) -> str:
    """Put a stand-in for each `<` that opens no link: the converter drops what looks like HTML.

    A stand-in, and not an escape, since it is right in code and outside, and keeps every index as it is.
    """
    return _ANGLE_OR_LINK.sub(lambda found: ANGLE if found[1] else found[0], text)


def parse(text: str) -> tuple[Node, ...]:
    """List the nodes of a text (`tidy`, and with `hide_angles` behind it) in the order in which they open."""
    index_of = _character_index(text)
    nodes: list[Node] = []
    depth = 0
    for event, span in pyromark.events_with_range(text, options=STANDARD_OPTIONS):
        # The parser's own types are a union of some fifty TypedDicts; all have one key, the name.
        name, value = ("Rule", None) if event == "Rule" else _named(event)
        if name == "Start":
            kind, detail = _named(value)
            start, info = index_of[span["start"]], _info_string(kind, detail)
            if kind == "Item" or info is not None:
                # The first item of a list starts at its indentation for the parser, the others at their marks.
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
    """Find the link reference definitions: label to its index in the text and its address."""
    if "]:" not in text:
        return {}
    index_of = _character_index(text)
    found = pyromark.reference_definitions(text, options=STANDARD_OPTIONS)
    return {label: (index_of[one["span"]["start"]], one["dest"]) for label, one in found.items()}


def _named(value: object) -> tuple[str, object]:
    if isinstance(value, dict):
        return next(iter(cast("dict[str, object]", value).items()))
    return str(value), None


def _info_string(kind: str, detail: object) -> str | None:
    if kind == "CodeBlock" and isinstance(detail, dict):
        return cast("dict[str, str]", detail)["Fenced"]
    return None


def _character_index(text: str) -> Mapping[int, int] | range:
    """Map the parser's UTF-8 offsets to indices."""
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
