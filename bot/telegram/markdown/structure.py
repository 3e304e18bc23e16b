"""Structure of a Markdown text: its nodes and link definitions, as parsed by the parser under telegramify-markdown."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast

import pyromark
from telegramify_markdown.converter import STANDARD_OPTIONS

from bot.telegram.markdown.render import ANGLE, Work, read_events

_ANGLE_OR_LINK = re.compile(r"\]\(<[^<>\n]*>|<(?:https?|ftp|tg|mailto):[^\s<>]*>|(<)")
_INDEXED_PER_UNIT: Final = 16
_LAST_OF_ONE, _LAST_OF_TWO, _LAST_OF_THREE = 0x7F, 0x7FF, 0xFFFF
"""The last code points that take one, two and three bytes of UTF-8."""
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


def hide_angles(text: str) -> str:
    """Replaces each `<` that starts no link: the converter drops text that looks like HTML.

    A placeholder instead of an escape works in code too, and keeps all indices.
    """
    return _ANGLE_OR_LINK.sub(lambda found: ANGLE if found[1] else found[0], text)


class Spans:
    """Ranges of nodes that do not overlap, such as code."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        spans = sorted((node.start, node.end) for node in nodes)
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]

    def __contains__(self, index: int) -> bool:
        before = bisect_right(self._starts, index) - 1
        return before >= 0 and index < self._ends[before]


def parse(text: str, work: Work) -> tuple[Node, ...]:
    """Returns the nodes of a text (after `tidy` and `hide_angles`) in the order in which they open.

    Raises:
        TooMuchWork: it has more events than `work` allows.
    """
    events = read_events(text, work)
    index_of = _character_index(text, work)
    nodes: list[Node] = []
    depth = 0
    for event, span in events:
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


def definitions(text: str, work: Work) -> Mapping[str, tuple[int, str]]:
    """Returns the link reference definitions: label to index and address."""
    if "]:" not in text:
        return {}
    work.charge_text(text)
    index_of = _character_index(text, work)
    found = pyromark.reference_definitions(text, options=STANDARD_OPTIONS)
    work.charge(len(found))
    return {label: (index_of[one["span"]["start"]], one["dest"]) for label, one in found.items()}


def _split_tag(value: object) -> tuple[str, object]:
    if isinstance(value, dict):
        return next(iter(cast("dict[str, object]", value).items()))
    return str(value), None


def _info_string(kind: str, detail: object) -> str | None:
    if kind == "CodeBlock" and isinstance(detail, dict):
        return cast("dict[str, str]", detail)["Fenced"]
    return None


def _character_index(text: str, work: Work) -> Mapping[int, int] | range:
    """Maps the parser's UTF-8 offsets to indices."""
    if text.isascii():
        return range(len(text) + 1)
    work.charge(len(text) // _INDEXED_PER_UNIT)
    index_of: dict[int, int] = {}
    offset = 0
    for index, character in enumerate(text):
        index_of[offset] = index
        code = ord(character)
        offset += 1 + (code > _LAST_OF_ONE) + (code > _LAST_OF_TWO) + (code > _LAST_OF_THREE)
    index_of[offset] = len(text)
    return index_of
