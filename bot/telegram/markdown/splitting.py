"""Finds the place where a page of Markdown ends: as late and as good a one as possible."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from bot.telegram.markdown.cutting import BLOCKS, MARKS, Cutter, SplitText
from bot.telegram.markdown.render import Rendered, TooMuchWork, Work, utf16_length
from bot.telegram.markdown.structure import Node, Spans, hide_angles, parse

_UNBROKEN = frozenset({"Code", "InlineMath", "DisplayMath", "Link", "Image"})
_OPEN_OR_CLOSE = re.compile(r"(?<![\\*~])(?:\*{2,3}|~~)(?![*~])")
_LINE_MARKS = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)]|#{1,6})[ \t]+)*", re.MULTILINE)
_BLANK_LINE = re.compile(r"^[ \t>]*$", re.MULTILINE)
_GAP = re.compile(r"[\s>]*")
_SENTENCE_END = re.compile(r"[.!?…]['\")\]*_]*\s+|[。！？]")
_WORD_END = re.compile(r"\s+")
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


def split_plain(text: str, limit: int) -> SplitText:
    """Splits a text that is displayed as it is: at the end of a line or a word if one is near, else anywhere."""
    head = text[:limit]
    if utf16_length(head) > limit:
        head = head.encode("utf-16-le", "surrogatepass")[: 2 * limit].decode("utf-16-le", "ignore")
    least = len(head) // 2
    at = max(head.rfind("\n", least), head.rfind(" ", least)) + 1 or len(head)
    return SplitText(text[:at], at, within_line=True, rendered=Rendered(text[:at].strip("\n")))


def split_text(
    text: str, limit: int, length: int, work: Work, render: Callable[[str, Work], Rendered | None]
) -> SplitText:
    """Splits a `tidy` text that renders to more than `limit` UTF-16 units, as late and at as good a place as possible.

    From best to worst: between blocks, at an item or a line, after a sentence, after a word, anywhere.

    Args:
        length: units that it renders to.
        render: renders a text; returns None if that needs more than `work` allows.

    Raises:
        TooMuchWork: it needs more than `work` allows.
    """
    splitter = _Splitter(text, limit, length, work, render)
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

    def __init__(
        self, text: str, limit: int, length: int, work: Work, render: Callable[[str, Work], Rendered | None]
    ) -> None:
        self._render_text = render
        self._text = text
        self._limit = limit
        self._work = work
        self._fits: tuple[int, int] = (0, 0)
        """The latest place known to fit, and the length before it."""
        self._exceeds: tuple[int, int] = (len(text), length)
        """The earliest place known to be too late, and the length before it."""
        self._nodes = _parse_closed(hide_angles(text), work)
        self._cutter = Cutter(text, limit, self._nodes)
        self._unbroken = self._forbid(span for node in self._nodes for span in self._unbroken_spans(node))
        """Places where a split would break a link, a code span or a table row without losing text."""
        for start in self._row_starts():
            self._unbroken[start] = 0
        self._forbidden = self._forbid(self._forbidden_spans())
        """Places where a split would break or duplicate structural markers."""

    def blocks(self) -> list[int]:
        """Borders between top-level blocks."""
        top = (node for node in self._nodes if node.depth == 0 and node.kind in BLOCKS)
        return self._allowed(self._cutter.line_start(node.start) for node in top)

    def items(self) -> list[int]:
        """Starts of list items, of the content of items and quotes, and of text after a blank line in code."""
        return self._allowed(self._cutter.borders | {found.end() + 1 for found in _BLANK_LINE.finditer(self._text)})

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
            candidate = self._cutter.cut(place)
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
        rendered = self._render_text(head, self._work)
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
            yield self._cutter.line_start(node.start) + 1, node.end

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
                yield node.start + 1, min(self._cutter.line_end(node.start) + 2, node.end)

    def _row_starts(self) -> Iterator[int]:
        """Returns the table rows that a page may start with; the first row stays with its header."""
        first = 0
        for node in self._nodes:
            if node.kind == "Table":
                first = self._cutter.line_end(self._cutter.line_end(node.start) + 1) + 1
            elif node.kind == "TableRow" and self._cutter.line_start(node.start) > first:
                yield self._cutter.line_start(node.start)


def _parse_closed(text: str, work: Work) -> Sequence[Node]:
    """Parses a text whose end may be inside bold or struck text, as if that was closed at the end.

    Raises:
        TooMuchWork: it needs more than `work` allows.
    """
    content = text.rstrip()
    closing = _closing_marks(content)
    if closing:
        nodes = parse(content + closing, work)
        if any(node.kind in MARKS and node.end == len(content) + len(closing) for node in nodes):
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
