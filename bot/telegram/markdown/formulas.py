"""Formulas, and the dollars and tildes that delimit none: LaTeX is converted to characters.

telegramify-markdown's converter parses the content of each pair of braces again, and an underline in an underline
doubles its text: 40 of them are more characters than a machine can hold. So it converts within bounds here.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

from telegramify_markdown.latex_escape.const import LATEX_STYLES, LATEX_SYMBOLS, NOT_MAP
from telegramify_markdown.latex_escape.helper import LatexToUnicodeHelper

from bot.telegram.markdown.render import DOLLAR, TILDE, Event, TooMuchWork, Work, find_event_value, read_events

MAX_FORMULA: Final = 1000
"""Characters of a formula that is converted; a longer one is shown as it is."""

_PARSED = 8 * MAX_FORMULA
"""Characters that one formula may have the converter parse, those inside braces again and again."""
_PARSED_PER_UNIT = 4
FORMULA_MARKS: Final = re.compile(r"[$~]|\\[(\[]")
"""Found in each text that has a formula, or a mark that looks like one."""

_PASSES = 3
"""Times that a text is parsed for its prices; then no dollar is a formula any more."""
_LONE_TILDE = re.compile(r"(?<!~)~(?!~)")
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


def _mark_formulas(text: str, work: Work) -> str:
    r"""Writes formulas in `\\(` and `\\[` with dollars, which the parser knows, already converted."""
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


def read_formulas(text: str, work: Work) -> tuple[str, Sequence[Event]]:
    """Parses a text that has `FORMULA_MARKS`: formulas become code, and marks that delimit nothing are hidden.

    Inline math with a digit after its closing dollar is two prices (pandoc's rule); one tilde means "about".

    Raises:
        TooMuchWork: it needs more than `work` allows.
    """
    if "\\(" in text or "\\[" in text:
        text = _mark_formulas(text, work)
    events = read_events(text, work)
    for attempt in range(1, _PASSES + 1):
        if not (offsets := _literal_delimiters(text, events)):
            break
        text = _hide_at(text, offsets)
        if attempt == _PASSES:
            text = _LONE_TILDE.sub(TILDE, text.replace("$", DOLLAR))
        events = read_events(text, work)
    return text, list(_without_formulas(events, work)) if "$" in text else events


def _literal_delimiters(text: str, events: Iterable[Event]) -> list[int]:
    """Returns the UTF-8 offsets of delimiters to read as text, in order."""
    source = text.encode()
    offsets: list[int] = []
    for event, span in events:
        start, end = span["start"], span["end"]
        is_about = find_event_value(event, "Start") == "Strikethrough" and source[start + 1 : start + 2] != b"~"
        if is_about or (find_event_value(event, "InlineMath") is not None and source[end : end + 1].isdigit()):
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
