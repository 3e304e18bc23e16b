"""Converts Markdown to text and spans: telegramify-markdown's walker over our own, bounded parsing.

The library's `convert` parses again until no price looks like a formula, which a text of dollars can make as many times
as it has dollars. Its walker (`EventWalker`, pinned to 1.4) takes events, so that code stands in for formulas here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import cast

from telegramify_markdown import MessageEntity as Span
from telegramify_markdown import RenderConfig
from telegramify_markdown.converter import (
    EventWalker,
    _TextBuffer,  # pyright: ignore[reportPrivateUsage] - see `_Buffer`
)

from bot.telegram.markdown.formulas import mark_formulas, needs_conversion, to_unicode
from bot.telegram.markdown.parse import DOLLAR, TILDE, Event, read_events
from bot.telegram.markdown.work import TooMuchWork, Work

_PASSES = 3
"""Times that a text is parsed for its prices; then no dollar is a formula any more."""
_MAX_DEPTH = 24
"""Containers inside each other: each level indents what is in it."""
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

    Inline math whose closing dollar is followed by a digit is two prices (pandoc's rule); one tilde means "about".
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
