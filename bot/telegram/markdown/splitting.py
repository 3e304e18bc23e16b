"""Splits Markdown so that both parts render as they would together."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from bot.telegram.markdown.parse import Node, Spans, TooMuchWork, Work, hide_angles, parse
from bot.telegram.markdown.render import Rendered, render_within, utf16_length

QUOTE: Final = 0
"""Step of a path that is a block quote; any other step is the indentation of a list item's content."""

Path: TypeAlias = tuple[int, ...]

_BLOCKS = frozenset({"Paragraph", "Heading", "CodeBlock", "Table", "List", "BlockQuote", "Rule", "HtmlBlock"})
_WITH_BORDERS = _BLOCKS | {"Item"}
_UNBROKEN = frozenset({"Code", "InlineMath", "DisplayMath", "Link", "Image"})
_MARKS = {"Strong": 2, "Strikethrough": 2, "Emphasis": 1}
_OPEN_OR_CLOSE = re.compile(r"(?<![\\*~])(?:\*{2,3}|~~)(?![*~])")
_QUOTE_MARK = re.compile(r" {0,3}> ?")
_ITEM_MARK = re.compile(r"(?:[-*+]|\d{1,9}[.)])([ \t]*)")
_LINE_MARKS = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)]|#{1,6})[ \t]+)*", re.MULTILINE)
_BLANK_LINE = re.compile(r"^[ \t>]*$", re.MULTILINE)
_FENCE = re.compile(r"`{3,}|~{3,}")
_GAP = re.compile(r"[\s>]*")
_HEADING_MARK = re.compile(r"#{1,6}[ \t]+")
_SENTENCE_END = re.compile(r"[.!?…]['\")\]*_]*\s+|[。！？]")
_WORD_END = re.compile(r"\s+")
# Text that would open a block at the start of a page but did not inside a line.
_BLOCK_OPENER = re.compile(
    r"(?=[-+*]\s|[-+]$|([-*_])\1{2,}\s*$|#{1,6}(?:\s|$)|>|~~~|=)|\d{1,9}(?=[.)](?:\s|$))", re.MULTILINE
)
# Start of an incomplete last line, which may or may not open a block.
_UNDECIDED = re.compile(r"\n[ \t>]*+(?:[-+*=#~`|_]++|\d{1,9}[.)]?)?[ \t]*+$")
_LOOKED_AT_PER_UNIT = 16
"""Characters of a text that are looked at for places to split in a unit of work."""
_GUESSES = 2
"""Guesses by proportion in a row; then the places are halved, so that a search ends."""
_SAME_MARKS = frozenset("*_~|$`")
_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_JOINER = "\N{ZERO WIDTH JOINER}"


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


def split_plain(text: str, limit: int) -> SplitText:
    """Splits a text that is displayed as it is: at the end of a line or a word if one is near, else anywhere."""
    head = text[:limit]
    if utf16_length(head) > limit:
        head = head.encode("utf-16-le", "surrogatepass")[: 2 * limit].decode("utf-16-le", "ignore")
    least = len(head) // 2
    at = max(head.rfind("\n", least), head.rfind(" ", least)) + 1 or len(head)
    return SplitText(text[:at], at, within_line=True, rendered=Rendered(text[:at].strip("\n")))


def split_text(text: str, limit: int, length: int, work: Work) -> SplitText:
    """Splits a `tidy` text that renders to more than `limit` UTF-16 units, as late and at as good a place as possible.

    From best to worst: between blocks, at an item or a line, after a sentence, after a word, anywhere.

    Args:
        length: units that it renders to.

    Raises:
        TooMuchWork: it needs more than `work` allows.
    """
    splitter = _Splitter(text, limit, length, work)
    best: SplitText | None = None
    best_length = 0
    for places, enough in (
        (splitter.blocks, limit // 2),
        (splitter.items, limit // 2),
        (splitter.lines, limit // 2),
        (splitter.sentences, limit // 2),
        (splitter.words, limit // 8),
        (splitter.characters, 1),
        (splitter.words_anywhere, 1),
        (splitter.characters_anywhere, 1),
    ):
        found, found_length = splitter.latest(places())
        if found is not None and found_length > best_length:
            best, best_length = found, found_length
        # A page that is full enough need not be split at a worse place.
        if best is not None and best_length >= enough:
            return best
    return splitter.force()


class _Splitter:
    """Finds the possible places in one text and splits there."""

    def __init__(self, text: str, limit: int, length: int, work: Work) -> None:
        self._text = text
        self._limit = limit
        self._work = work
        self._fits: tuple[int, int] = (0, 0)
        """The latest place known to fit, and the length before it."""
        self._exceeds: tuple[int, int] = (len(text), length)
        """The earliest place known to be too late, and the length before it."""
        self._nodes = _parse_closed(hide_angles(text), work)
        self._borders = {self._line_start(node.start) for node in self._nodes if node.kind in _WITH_BORDERS}
        self._unbroken = self._forbid(span for node in self._nodes for span in self._unbroken_spans(node))
        """Places where a split would break a link, a code span or a table row without losing text."""
        for start in self._row_starts():
            self._unbroken[start] = 0
        self._forbidden = self._forbid(self._forbidden_spans())
        """Places where a split would break or duplicate structural markers."""

    def blocks(self) -> list[int]:
        """Borders between top-level blocks."""
        top = (node for node in self._nodes if node.depth == 0 and node.kind in _BLOCKS)
        return self._allowed(self._line_start(node.start) for node in top)

    def items(self) -> list[int]:
        """Starts of list items, of the content of items and quotes, and of text after a blank line in code."""
        return self._allowed(self._borders | {found.end() + 1 for found in _BLANK_LINE.finditer(self._text)})

    def lines(self) -> list[int]:
        """Starts of lines."""
        return self._allowed(index + 1 for index, character in enumerate(self._text) if character == "\n")

    def sentences(self) -> list[int]:
        """Ends of sentences."""
        return self._allowed(found.end() for found in _SENTENCE_END.finditer(self._text))

    def words(self) -> list[int]:
        """Ends of words."""
        return self._allowed(found.end() for found in _WORD_END.finditer(self._text))

    def characters(self) -> list[int]:
        """Between any two grapheme clusters."""
        return self._allowed(_separable(self._text))

    def latest(self, places: Sequence[int]) -> tuple[SplitText | None, int]:
        """Returns the last place with at most `limit` units before it, and that number of units.

        Only places between those that are known to fit and to be too late are looked at.
        """
        best: SplitText | None = None
        best_length = 0
        low, high = 0, len(places)
        guesses = 0
        while low < high:
            middle = (low + high) // 2 if guesses > _GUESSES else self._guess(places, low, high)
            guesses = 0 if guesses > _GUESSES else guesses + 1
            place = places[middle]
            candidate = self._split_at(place)
            rendered = self._render(candidate.head)
            length = rendered.length
            if length > self._limit:
                high, self._exceeds = middle, (place, length)
                continue
            low, self._fits = middle + 1, (place, length)
            makes_progress = len(candidate.opening) + len(candidate.escape) < candidate.resume
            if length > best_length and makes_progress:
                best, best_length = replace(candidate, rendered=rendered), length
        return best, best_length

    def _guess(self, places: Sequence[int], low: int, high: int) -> int:
        """Returns the index of the place that is the last to fit if the text is evenly dense."""
        (fits, fits_length), (exceeds, exceeds_length) = self._fits, self._exceeds
        share = (self._limit - fits_length) / max(1, exceeds_length - fits_length)
        target = fits + min(1.0, max(0.0, share)) * (exceeds - fits)
        return min(max(bisect_right(places, target) - 1, low), high - 1)

    def _render(self, head: str) -> Rendered:
        rendered = render_within(head, self._work)
        if rendered is None:
            raise TooMuchWork
        return rendered

    def force(self) -> SplitText:
        """Splits at the limit, inside any structure."""
        size = len(self._text) - 1
        while size > 1 and self._render(self._text[:size]).length > self._limit:
            size //= 2
        return SplitText(self._text[:size], size, within_line=True)

    def words_anywhere(self) -> list[int]:
        """Ends of words, also in links and table rows."""
        return self._allowed((found.end() for found in _WORD_END.finditer(self._text)), within_units=True)

    def characters_anywhere(self) -> list[int]:
        """Between any two characters except those of markers."""
        return self._allowed(range(1, len(self._text)), within_units=True)

    def _allowed(self, places: Iterable[int], *, within_units: bool = False) -> list[int]:
        self._work.charge(len(self._text) // _LOOKED_AT_PER_UNIT)
        return sorted(
            place
            for place in places
            if self._fits[0] < place < self._exceeds[0]
            and not self._forbidden[place]
            and (within_units or not self._unbroken[place])
        )

    def _forbid(self, spans: Iterable[tuple[int, int]]) -> bytearray:
        forbidden = bytearray(len(self._text) + 1)
        for start, end in spans:
            forbidden[start:end] = b"\1" * (end - start)
        return forbidden

    def _unbroken_spans(self, node: Node) -> Iterator[tuple[int, int]]:
        if node.kind in _UNBROKEN and node.end - node.start < self._limit // 4:
            yield node.start + 1, node.end
        elif node.kind == "Table":
            yield self._line_start(node.start) + 1, node.end

    def _forbidden_spans(self) -> Iterator[tuple[int, int]]:
        code = Spans(node for node in self._nodes if node.kind == "CodeBlock")
        if undecided := _UNDECIDED.search(self._text):
            yield undecided.start() + 1, undecided.end()
        for found in _LINE_MARKS.finditer(self._text):
            yield found.start() + 1, found.end() + 1
        for found in _BLANK_LINE.finditer(self._text):
            if found.start() not in code:
                yield found.start(), found.end() + 1
        for node in self._nodes:
            if node.kind == "Heading" and (after := _GAP.match(self._text, node.end)):
                # A heading stays with the text below it.
                yield node.end, after.end() + 1
            elif node.kind == "CodeBlock" and node.detail is not None:
                yield node.start + 1, min(self._line_end(node.start) + 2, node.end)

    def _row_starts(self) -> Iterator[int]:
        """Returns the table rows that a page may start with; the first row stays with its header."""
        first = 0
        for node in self._nodes:
            if node.kind == "Table":
                first = self._line_end(self._line_end(node.start) + 1) + 1
            elif node.kind == "TableRow" and self._line_start(node.start) > first:
                yield self._line_start(node.start)

    def _line_start(self, index: int) -> int:
        return self._text.rfind("\n", 0, index) + 1

    def _line_end(self, index: int) -> int:
        end = self._text.find("\n", index)
        return len(self._text) if end < 0 else end

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
                gap = gap if 1 <= gap <= 4 else 1  # noqa: PLR2004 - see above
                path = (*path, lead + (mark.start(1) - mark.start() if mark else 1) + gap)
        return path

    def _indentation(self, index: int, path: Path) -> int:
        """Counts the spaces between the container markers and the content at an index."""
        rest, _ = _dedent_line(self._text[self._line_start(index) : index] + "x", path)
        return len(rest) - 1 if rest[:-1].isspace() else 0

    def _split_at(self, place: int) -> SplitText:
        enclosing = list(_enclosing(self._nodes, place))
        path = self._path(enclosing)
        within_line = place != self._line_start(place)
        quotes = "> " * path.count(QUOTE)
        for node in enclosing:
            if node.kind == "CodeBlock":
                return self._split_code(place, node, path, quotes)
            if node.kind == "Table" and not within_line:
                header = self._text[self._line_start(node.start) :].split("\n", 2)[:2]
                opening = "".join(_dedent_line(line, path)[0] + "\n" for line in header)
                # A header that would fill the pages is not repeated.
                opening = opening if len(opening) < self._limit // 4 else ""
                return SplitText(self._text[:place].rstrip(), place, opening, path=path)
        if not within_line and place in self._borders:
            return SplitText(self._text[:place].rstrip(), place, path=path)
        return self._split_prose(place, enclosing, path, quotes)

    def _split_code(self, place: int, block: Node, path: Path, quotes: str) -> SplitText:
        within_line = place != self._line_start(place)
        margin = quotes + " " * self._indentation(block.start, path)
        if block.detail is None:
            return SplitText(
                self._text[:place].rstrip("\n"), place, quotes + "    " if within_line else "", "", path, within_line
            )
        fence = _FENCE.match(self._text, block.start)
        opening = margin + self._text[block.start : self._line_end(block.start)] + "\n"
        closing = "".join("> " if step == QUOTE else " " * step for step in path) + (fence[0] if fence else "```")
        head = self._text[:place] + ("\n" if within_line else "") + closing
        return SplitText(head, place, opening + (margin if within_line else ""), "", path, within_line)

    def _split_prose(self, place: int, enclosing: Sequence[Node], path: Path, quotes: str) -> SplitText:
        resume = place
        while resume < len(self._text) - 1 and self._text[resume] in (" \t>" if path.count(QUOTE) else " \t"):
            resume += 1
        opening, closing = quotes, ""
        for node in enclosing:
            if node.kind == "Heading" and (mark := _HEADING_MARK.match(self._text, node.start)):
                opening += mark[0]
            elif node.kind in _MARKS:
                mark = self._text[node.start : node.start + _MARKS[node.kind]]
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


def _parse_closed(text: str, work: Work) -> Sequence[Node]:
    """Parses a text whose end may be inside bold or struck text, as if that was closed at the end.

    Raises:
        TooMuchWork: it needs more than `work` allows.
    """
    content = text.rstrip()
    closing = _closing_marks(content)
    if closing:
        nodes = parse(content + closing, work)
        if any(node.kind in _MARKS and node.end == len(content) + len(closing) for node in nodes):
            return [replace(node, end=len(text)) if node.end > len(content) else node for node in nodes]
    return parse(text, work)


def _closing_marks(text: str) -> str:
    """Returns the marks that close those that seem open in the last paragraph; code is not looked at."""
    opened: list[str] = []
    for found in _OPEN_OR_CLOSE.finditer(text, text.rfind("\n\n") + 1):
        mark = found[0]
        if mark in opened:
            del opened[opened.index(mark) :]
        elif not text[found.start() - 1 : found.start()].isalnum() and text[found.end() : found.end() + 1].strip():
            opened.append(mark)
    return "".join(reversed(opened))


def _enclosing(nodes: Iterable[Node], index: int) -> Iterator[Node]:
    return (node for node in nodes if node.start < index < node.end)


def _separable(text: str) -> Iterator[int]:
    """Yields the places where a split separates no character from its accents, no emoji and no run of marks."""
    flags = 0
    for index in range(1, len(text)):
        before, after = text[index - 1], text[index]
        flags = flags + 1 if ord(before) in _REGIONAL_INDICATORS else 0
        if _JOINER in (before, after) or before == "\\" or (before == after and before in _SAME_MARKS):
            continue
        if ord(after) in _REGIONAL_INDICATORS:
            if flags % 2 == 0:
                yield index
        elif ord(after) not in _SKIN_TONES and not unicodedata.category(after).startswith("M"):
            yield index
