"""Cuts Markdown at a given place, so that both parts render as they would together."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from bot.telegram.markdown.render import Rendered
from bot.telegram.markdown.structure import Node

QUOTE: Final = 0
"""Step of a path that is a block quote; any other step is the indentation of a list item's content."""

Path: TypeAlias = tuple[int, ...]

BLOCKS = frozenset({"Paragraph", "Heading", "CodeBlock", "Table", "List", "BlockQuote", "Rule", "HtmlBlock"})
_WITH_BORDERS = BLOCKS | {"Item"}
MARKS = {"Strong": 2, "Strikethrough": 2, "Emphasis": 1}
_QUOTE_MARK = re.compile(r" {0,3}> ?")
_ITEM_MARK = re.compile(r"(?:[-*+]|\d{1,9}[.)])([ \t]*)")
_FENCE = re.compile(r"`{3,}|~{3,}")
_HEADING_MARK = re.compile(r"#{1,6}[ \t]+")
# Text that would open a block at the start of a page but did not inside a line.
_BLOCK_OPENER = re.compile(
    r"(?=[-+*]\s|[-+]$|([-*_])\1{2,}\s*$|#{1,6}(?:\s|$)|>|~~~|=)|\d{1,9}(?=[.)](?:\s|$))", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class SplitText:
    """A split: `head` is self-contained; the rest is `opening`, `escape` and the text from `resume` on.

    `path` lists the containers of the rest; `within_line` tells that it starts after their markers.
    """

    head: str
    resume: int
    opening: str = ""
    escape: str = ""
    path: Path = ()
    within_line: bool = False
    rendered: Rendered | None = None
    """The head as it is displayed, where a search has rendered it."""


class Dedenter:
    """Removes the indentation of list items that began on an earlier page, since the new page has no bullet for them.

    Without it the rest of a nested list would read as a code block. Quotes stay: each of their lines has its marker.
    """

    def __init__(self, path: Path) -> None:
        self.path = path if any(step != QUOTE for step in path) else ()

    def line(self, line: str) -> str:
        """Dedents a complete line; a container that has ended stays ended."""
        rest, self.path = _dedent_line(line, self.path)
        return rest

    def peek(self, line: str) -> str:
        """Dedents a line that may be incomplete."""
        return _dedent_line(line, self.path)[0]


def _dedent_line(line: str, path: Path) -> tuple[str, Path]:
    kept = ""
    for depth, step in enumerate(path):
        if not line.strip():
            break
        if step == QUOTE:
            mark = _QUOTE_MARK.match(line)
            if mark is None:
                return kept + line, path[:depth]
            kept, line = kept + mark[0], line[mark.end() :]
        else:
            indent = len(line) - len(line.lstrip(" "))
            if line.startswith("\t"):
                line = line[1:]
            elif indent < step:
                return kept + line, path[:depth]
            else:
                line = line[step:]
    return kept + line.lstrip(" ") if not line.strip() else kept + line, path


class Cutter:
    """Cuts one text.

    Args:
        limit: UTF-16 units of a page.
        nodes: the structure of the text.
    """

    def __init__(self, text: str, limit: int, nodes: Sequence[Node]) -> None:
        self._text = text
        self._limit = limit
        self._nodes = nodes
        self.borders = {self.line_start(node.start) for node in nodes if node.kind in _WITH_BORDERS}
        """Starts of the lines of blocks and items."""

    def line_start(self, index: int) -> int:
        """Returns where the line of an index starts."""
        return self._text.rfind("\n", 0, index) + 1

    def line_end(self, index: int) -> int:
        """Returns where the line of an index ends."""
        end = self._text.find("\n", index)
        return len(self._text) if end < 0 else end

    def cut(self, place: int) -> SplitText:
        """Cuts at a position and adds the marks that close and reopen the structures around it."""
        enclosing = list(_enclosing(self._nodes, place))
        path = self._path(enclosing)
        within_line = place != self.line_start(place)
        quotes = "> " * path.count(QUOTE)
        for node in enclosing:
            if node.kind == "CodeBlock":
                return self._cut_code(place, node, path, quotes)
            if node.kind == "Table" and not within_line:
                header = self._text[self.line_start(node.start) :].split("\n", 2)[:2]
                opening = "".join(_dedent_line(line, path)[0] + "\n" for line in header)
                # A header that would fill the pages is not repeated.
                opening = opening if len(opening) < self._limit // 4 else ""
                return SplitText(self._text[:place].rstrip(), place, opening, path=path)
        if not within_line and place in self.borders:
            return SplitText(self._text[:place].rstrip(), place, path=path)
        return self._cut_prose(place, enclosing, path, quotes)

    def _cut_code(self, place: int, block: Node, path: Path, quotes: str) -> SplitText:
        within_line = place != self.line_start(place)
        margin = quotes + " " * self._indentation(block.start, path)
        if block.detail is None:
            return SplitText(
                self._text[:place].rstrip("\n"), place, quotes + "    " if within_line else "", "", path, within_line
            )
        fence = _FENCE.match(self._text, block.start)
        opening = margin + self._text[block.start : self.line_end(block.start)] + "\n"
        closing = "".join("> " if step == QUOTE else " " * step for step in path) + (fence[0] if fence else "```")
        head = self._text[:place] + ("\n" if within_line else "") + closing
        return SplitText(head, place, opening + (margin if within_line else ""), "", path, within_line)

    def _cut_prose(self, place: int, enclosing: Sequence[Node], path: Path, quotes: str) -> SplitText:
        resume = place
        while resume < len(self._text) - 1 and self._text[resume] in (" \t>" if path.count(QUOTE) else " \t"):
            resume += 1
        opening, closing = quotes, ""
        for node in enclosing:
            if node.kind == "Heading" and (mark := _HEADING_MARK.match(self._text, node.start)):
                opening += mark[0]
            elif node.kind in MARKS:
                mark = self._text[node.start : node.start + MARKS[node.kind]]
                opening, closing = opening + mark, mark + closing
        opener = None if opening.endswith(("*", "_", "~")) else _BLOCK_OPENER.match(self._text, resume)
        escape = opener[0] + "\\" if opener else ""
        return SplitText(
            self._text[:place].rstrip() + closing,
            opener.end() if opener else resume,
            opening,
            escape,
            path,
            within_line=True,
        )

    def _path(self, enclosing: Iterable[Node]) -> Path:
        path: Path = ()
        for node in enclosing:
            if node.kind == "BlockQuote":
                path = (*path, QUOTE)
            elif node.kind == "Item":
                lead = self._indentation(node.start, path)
                mark = _ITEM_MARK.match(self._text, node.start)
                gap = len(mark[1]) if mark else 1
                # Five spaces or more are one space and the indentation of code (CommonMark 0.31, list items, rule 2).
                gap = gap if gap in range(1, 5) else 1
                path = (*path, lead + (mark.start(1) - mark.start() if mark else 1) + gap)
        return path

    def _indentation(self, index: int, path: Path) -> int:
        """Counts the spaces between the container markers and the content at an index."""
        rest, _ = _dedent_line(self._text[self.line_start(index) : index] + "x", path)
        return len(rest) - 1 if rest[:-1].isspace() else 0


def _enclosing(nodes: Iterable[Node], index: int) -> Iterator[Node]:
    return (node for node in nodes if node.start < index < node.end)
