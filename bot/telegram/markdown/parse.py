"""Structure of a Markdown text, as parsed by the parser under telegramify-markdown, and the bound of rendering it.

The work is counted rather than timed, so that a text renders the same on every machine and every time. A unit is one
event of the parser, or 64 characters that it reads: 2 to 3 µs of CPU (`benchmarks/rendering.py`).
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Final, TypeAlias, cast

import pyromark
from telegramify_markdown.converter import STANDARD_OPTIONS

CHARACTERS_PER_UNIT: Final = 64


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """Limits of rendering; text that exceeds them is shown as plain text.

    Args:
        update: units of one update of an answer, 30 to 40 ms.
        text: units of rendering one text.
        source: characters of Markdown that one page may hold: links may need many to show few.
    """

    update: int = 14_000
    text: int = 7_000
    source: int = 12_288


class TooMuchWork(Exception):
    """The text needs more work than it may cost."""


class Work:
    """Counts units of work up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.spent = 0

    @property
    def left(self) -> int:
        """Units until the limit."""
        return max(0, self._limit - self.spent)

    def charge(self, units: int) -> None:
        """Counts units.

        Raises:
            TooMuchWork: the limit is exceeded.
        """
        self.spent += units
        if self.spent > self._limit:
            raise TooMuchWork

    def charge_text(self, text: str) -> None:
        """Counts a text that is read once.

        Raises:
            TooMuchWork: the limit is exceeded.
        """
        self.charge(1 + len(text) // CHARACTERS_PER_UNIT)


ANGLE: Final = "\ufdd0"
"""Placeholder of a `<` that starts no link. Noncharacters do not occur in real text."""
BREAK: Final = "\ufdd1"
"""Placeholder of a line break inside a block (`<br>`)."""
BACKSLASH: Final = "\ufdd2"
"""Placeholder of a literal backslash, such as one in code."""
DOLLAR: Final = "\ufdd3"
"""Placeholder of a `$` that delimits no formula."""
TILDE: Final = "\ufdd4"
"""Placeholder of a `~` that strikes nothing through."""
PIPE: Final = "\ufdd5"
"""Placeholder of a `|` that makes no table."""
COLON: Final = "\ufdd6"
"""Placeholder of a `:` that defines no link."""

PLACEHOLDERS: Final = str.maketrans(
    {ANGLE: "<", BREAK: "\n", BACKSLASH: "\\", DOLLAR: "$", TILDE: "~", PIPE: "|", COLON: ":"}
)
"""Translates placeholders to the characters that are displayed."""

Event: TypeAlias = tuple[Any, dict[str, int]]
"""An event of the parser, and its range in UTF-8 bytes. The parser's types are a union of some fifty TypedDicts."""

_OURS = re.compile("[\ufdd0-\ufdef]")
_ANGLE_OR_LINK = re.compile(r"\]\(<[^<>\n]*>|<(?:https?|ftp|tg|mailto):[^\s<>]*>|(<)")
_MAX_DEPTH = 24
"""Containers inside each other: each level indents its content."""
_PASSES = 3
"""Times that a text is parsed for its prices; then no dollar is a formula any more."""
_LONE_TILDE = re.compile(r"(?<!~)~(?!~)")
_INDEXED_PER_UNIT = 16
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


class Spans:
    """Ranges of nodes that do not overlap, such as code."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        spans = sorted((node.start, node.end) for node in nodes)
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]

    def __contains__(self, index: int) -> bool:
        before = bisect_right(self._starts, index) - 1
        return before >= 0 and index < self._ends[before]


def read_events(text: str, work: Work) -> list[Event]:
    """Parses a text.

    Raises:
        TooMuchWork: it has more events than `work` allows.
    """
    work.charge_text(text)
    # A table may have a thousand times more cells than its source has characters.
    events = list(islice(pyromark.events_with_range(text, options=STANDARD_OPTIONS), work.left + 1))
    work.charge(len(events))
    return cast("list[Event]", events)


def read_settled(text: str, work: Work) -> tuple[str, list[Event]]:
    """Hides the dollars and tildes that delimit nothing, and parses.

    Inline math with a digit after its closing dollar is two prices (pandoc's rule); one tilde means "about".
    """
    for _ in range(_PASSES):
        events = read_events(text, work)
        if not (offsets := _literal_delimiters(text, events)):
            return text, events
        text = _hide_at(text, offsets)
    text = _LONE_TILDE.sub(TILDE, text.replace("$", DOLLAR))
    return text, read_events(text, work)


def _literal_delimiters(text: str, events: Iterable[Event]) -> list[int]:
    """Returns the UTF-8 offsets of delimiters to read as text, in order."""
    if "$" not in text and "~" not in text:
        return []
    source = text.encode()
    offsets: list[int] = []
    for event, span in events:
        start, end = span["start"], span["end"]
        is_about = _event_value(event, "Start") == "Strikethrough" and source[start + 1 : start + 2] != b"~"
        if is_about or (_event_value(event, "InlineMath") is not None and source[end : end + 1].isdigit()):
            offsets += (start, end - 1)
    return sorted(offsets)


def _hide_at(text: str, offsets: Iterable[int]) -> str:
    """Replaces the delimiters at UTF-8 offsets by placeholders."""
    source = text.encode()
    hidden = {ord("$"): DOLLAR.encode(), ord("~"): TILDE.encode()}
    bounds = [-1, *offsets, len(source)]
    parts = [source[before + 1 : here] for before, here in pairwise(bounds)]
    marks = [hidden[source[offset]] for offset in bounds[1:-1]]
    return b"".join(part + mark for part, mark in zip(parts, [*marks, b""], strict=True)).decode()


def check_depth(events: Iterable[Event]) -> None:
    """Raises TooMuchWork for containers that are nested too deeply."""
    depth = 0
    for event, _ in events:
        if _is_container(_event_value(event, "Start")):
            depth += 1
            if depth > _MAX_DEPTH:
                raise TooMuchWork
        elif _is_container(_event_value(event, "End")):
            depth -= 1


def _event_value(event: object, name: str) -> object:
    return cast("dict[str, object]", event).get(name) if isinstance(event, dict) else None


def _is_container(tag: object) -> bool:
    return tag == "Item" or (isinstance(tag, dict) and "BlockQuote" in tag)


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
