"""Converts Markdown to text and spans: telegramify-markdown's walker over our own, bounded parsing.

The library's `convert` parses again until no price looks like a formula, which a text of dollars can make as many times
as it has dollars. Its walker (`EventWalker`, pinned to 1.4) takes events, so that code stands in for formulas here.

Its converter of formulas parses the content of each pair of braces again, and an underline in an underline doubles its
text: 40 of them are more characters than a machine can hold. So LaTeX is converted to characters within bounds.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Final, cast

from telegramify_markdown import MessageEntity as Span
from telegramify_markdown import RenderConfig
from telegramify_markdown.converter import (
    EventWalker,
    _TextBuffer,  # pyright: ignore[reportPrivateUsage] - see `_Buffer`
)
from telegramify_markdown.latex_escape.const import LATEX_STYLES, LATEX_SYMBOLS, NOT_MAP
from telegramify_markdown.latex_escape.helper import LatexToUnicodeHelper

from bot.telegram.markdown.parse import DOLLAR, TILDE, Event, TooMuchWork, Work, read_events

MAX_FORMULA: Final = 1000
"""Characters of a formula that is converted; a longer one is shown as it is."""

_PARSED = 8 * MAX_FORMULA
"""Characters that one formula may have the converter parse, those inside braces again and again."""
_PARSED_PER_UNIT = 4
_SHORTEST = 5
_LONGEST_COMMAND = 32
_SYMBOLS = frozenset({"\\frac", "\\sqrt", "\\begin", *LATEX_SYMBOLS, *NOT_MAP, *LATEX_STYLES})
_COMMAND = re.compile(r"\\(?:[a-zA-Z]+|.)", re.DOTALL)
_LOOSE_SYMBOL = re.compile("|".join(re.escape(one) for one in sorted(_SYMBOLS) if not _COMMAND.fullmatch(one)))


class _Helper(LatexToUnicodeHelper):
    """The library's converter of one formula, with a limit. Its types are not declared."""

    def __init__(self) -> None:
        self.left = _PARSED

    def parse(self, latex: str) -> str:  # pyright: ignore[reportIncompatibleMethodOverride] - inferred as LiteralString
        self.left -= len(latex)
        if self.left < 0:
            raise TooMuchWork
        return str(super().parse(latex))

    @staticmethod
    def translate_combining(command: str, text: str) -> str:
        if len(text) > MAX_FORMULA:
            raise TooMuchWork
        return str(LatexToUnicodeHelper.translate_combining(command, text))  # pyright: ignore[reportUnknownArgumentType] - as above


def to_unicode(formula: str, work: Work) -> str:
    """Converts a formula; one that is too long or too deep is returned as it is.

    Raises:
        TooMuchWork: all formulas of the text together are too much.
    """
    if len(formula) > MAX_FORMULA:
        return formula
    helper = _Helper()
    try:
        return helper.parse(formula)
    except Exception:  # noqa: BLE001 - the library raises anything at a formula that is cut off
        return formula
    finally:
        work.charge(1 + (_PARSED - max(0, helper.left)) // _PARSED_PER_UNIT)


def needs_conversion(formula: str) -> bool:
    """Returns whether a formula has a symbol that the converter knows."""
    if len(formula) < _SHORTEST:
        return False
    if _LOOSE_SYMBOL.search(formula):
        return True
    commands = {found[0][:_LONGEST_COMMAND] for found in _COMMAND.finditer(formula)}
    return any(command[:end] in _SYMBOLS for command in commands for end in range(2, len(command) + 1))


def find_bracketed(text: str, bracket: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    r"""Yields the formulas in `\\(` and `\\)`, or `\\[` and `\\]`: their borders and their content."""
    opening, closing = "\\" + bracket, "\\" + {"(": ")", "[": "]"}[bracket]
    while (opened := text.find(opening, start, end)) >= 0:
        closed = text.find(closing, opened + 2, end)
        if closed < 0:
            return
        start = closed + 2
        yield opened, start, text[opened + 2 : closed]


def mark_formulas(text: str, work: Work) -> str:
    r"""Writes formulas in `\\(` and `\\[` with dollars, which the parser knows, already converted."""
    if "\\(" not in text and "\\[" not in text:
        return text
    blocks = text.split("\n\n")
    return "\n\n".join(_mark(_mark(block, "[", "$$", work), "(", "$", work) for block in blocks)


def _mark(block: str, bracket: str, mark: str, work: Work) -> str:
    parts: list[str] = []
    done = 0
    for start, end, formula in find_bracketed(block, bracket, 0, len(block)):
        if needs_conversion(formula):
            parts += (block[done:start], mark, to_unicode(formula, work).strip(), mark)
            done = end
    return "".join([*parts, block[done:]])


_PASSES = 3
"""Times that a text is parsed for its prices; then no dollar is a formula any more."""
_MAX_DEPTH = 24
"""Containers inside each other: each level indents its content."""
_LONE_TILDE = re.compile(r"(?<!~)~(?!~)")


def convert(text: str, work: Work) -> tuple[str, list[Span]]:
    """Converts a text after `apply_workarounds`. The result may contain placeholders.

    Raises:
        TooMuchWork: it needs more than `work` allows.
    """
    text, events = _settle(mark_formulas(text, work), work)
    _check_depth(events)
    work.charge(len(events))
    walker = EventWalker(_config(), text)
    walker._buf = _Buffer()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - see there
    shown, spans, _ = walker.walk(tuple(_without_formulas(events, work)))
    work.charge(len(spans))
    return shown, spans


class _Buffer(_TextBuffer):
    """The walker's text, which counts its trailing line ends as they come.

    The library counts them anew before each block: all of them, where nothing but line ends was written.
    """

    __slots__ = ("_before", "_line_ends")

    def __init__(self) -> None:
        super().__init__()
        self._line_ends = self._before = 0

    def write(self, text: str) -> None:
        if not text:
            return
        super().write(text)
        self._before = self._line_ends
        rest = text.rstrip("\n")
        self._line_ends = len(text) - len(rest) + (0 if rest else self._line_ends)

    def trailing_newline_count(self) -> int:
        return self._line_ends

    def pop_last(self) -> str:
        self._line_ends = self._before
        return super().pop_last()


@cache
def _config() -> RenderConfig:
    config = RenderConfig.isolated()
    config.cite_expandable = False  # a collapsed quote hides part of the answer
    symbols = config.markdown_symbol
    symbols.heading_level_1 = symbols.heading_level_2 = symbols.heading_level_3 = symbols.heading_level_4 = ""
    symbols.unordered_list_item = "\N{BULLET}"
    symbols.task_completed = "\N{BALLOT BOX WITH CHECK}"
    symbols.task_uncompleted = "\N{BALLOT BOX}"
    symbols.image = "\N{FRAME WITH PICTURE} "
    return config


def _settle(text: str, work: Work) -> tuple[str, list[Event]]:
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
        is_about = _value(event, "Start") == "Strikethrough" and source[start + 1 : start + 2] != b"~"
        if is_about or (_value(event, "InlineMath") is not None and source[end : end + 1].isdigit()):
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


def _check_depth(events: Iterable[Event]) -> None:
    depth = 0
    for event, _ in events:
        if _is_container(_value(event, "Start")):
            depth += 1
            if depth > _MAX_DEPTH:
                raise TooMuchWork
        elif _is_container(_value(event, "End")):
            depth -= 1


def _value(event: object, name: str) -> object:
    return cast("Mapping[str, object]", event).get(name) if isinstance(event, Mapping) else None


def _is_container(tag: object) -> bool:
    return tag == "Item" or (isinstance(tag, Mapping) and "BlockQuote" in tag)


def _without_formulas(events: Iterable[Event], work: Work) -> Iterator[Event]:
    """Replaces formulas by code, which the walker writes the same way."""
    for event, span in events:
        match event:
            case {"InlineMath": str(formula)}:
                yield {"Code": _readable(formula, work)}, span
            case {"DisplayMath": str(formula)}:
                yield {"Start": {"CodeBlock": {"Fenced": ""}}}, span
                yield {"Text": _readable(formula, work)}, span
                yield {"End": "CodeBlock"}, span
            case _:
                yield event, span


def _readable(formula: str, work: Work) -> str:
    work.charge_text(formula)
    return to_unicode(formula, work).strip() if needs_conversion(formula) else formula
