"""Converts Markdown to text and entities. No parse mode is used.

`workarounds` and `formulas` prepare the source where it has rare forms, `convert` walks it, and `nest_spans` makes the
entities acceptable.

The library's `convert` parses again until no price looks like a formula, which a text of dollars can make as many times
as it has dollars. Its walker (`EventWalker`, pinned to 1.4) takes events, so that code stands in for formulas here.

The work is counted rather than timed, so that a text renders the same on every machine and every time. A unit is one
event of the parser, or 64 characters that it reads: 2 to 3 µs of CPU (`benchmarks/rendering.py`).
"""

import heapq
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, count, islice
from typing import Any, Final, TypeAlias, cast

import pyromark
from aiogram.types import MessageEntity
from telegramify_markdown import MessageEntity as Span
from telegramify_markdown import RenderConfig
from telegramify_markdown.converter import (
    STANDARD_OPTIONS,
    EventWalker,
    _TextBuffer,  # pyright: ignore[reportPrivateUsage] - see `_Buffer`
)

MAX_ENTITIES: Final = 100
"""Entities of a message that Telegram uses; it ignores the others."""
CHARACTERS_PER_UNIT: Final = 64
WEB_LINK: Final = re.compile(r"(?:https?://[^\s/?#.][^\s/?#]*|tg://[a-z]+)(?:[/?#]\S*)?", re.IGNORECASE)
"""An address that Telegram accepts as a link; a relative or odd one stays text."""
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
_LANGUAGE = re.compile(r"[\w+#.-]{1,40}")
_ALONE = frozenset({"code", "pre"})
_MAX_DEPTH = 24
"""Containers inside each other: each level indents its content."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """Text with its entities; offsets and lengths count UTF-16 units, as Telegram does."""

    text: str
    entities: tuple[MessageEntity, ...] = ()

    @property
    def length(self) -> int:
        """Length in UTF-16 units; Telegram accepts 1 to 4096."""
        return utf16_length(self.text)

    @property
    def blank(self) -> bool:
        """True if nothing is visible; Telegram rejects such a message as empty."""
        return not any(map(_is_visible, self.text[:16])) and not any(map(_is_visible, set(self.text)))


def _is_visible(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character)[0] != "C"


def utf16_length(text: str) -> int:
    """Returns the length in UTF-16 units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


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


def convert(text: str, events: Sequence[Event], work: Work) -> tuple[str, list[Span]]:
    """Converts the events of a text without formulas. The result may contain placeholders.

    Raises:
        TooMuchWork: it needs more than `work` allows.
    """
    _check_depth(events)
    work.charge(len(events))
    walker = EventWalker(_config(), text)
    walker._buf = _Buffer()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - see there
    shown, spans, _ = walker.walk(tuple(events))
    work.charge(len(spans))
    return shown, spans


def _check_depth(events: Iterable[Event]) -> None:
    """Raises TooMuchWork for containers that are nested too deeply."""
    depth = 0
    for event, _ in events:
        if _is_container(find_event_value(event, "Start")):
            depth += 1
            if depth > _MAX_DEPTH:
                raise TooMuchWork
        elif _is_container(find_event_value(event, "End")):
            depth -= 1


def find_event_value(event: object, name: str) -> object:
    """Returns the value of an event of this name; None for another event."""
    return cast("dict[str, object]", event).get(name) if isinstance(event, dict) else None


def _is_container(tag: object) -> bool:
    return tag == "Item" or (isinstance(tag, dict) and "BlockQuote" in tag)


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


# Entities that Telegram rejects or interprets differently.


def nest_spans(text: str, spans: Iterable[Span]) -> list[Span]:
    """Orders spans so that overlapping ones are nested, and code neither contains a style nor is contained in one.

    The spans are changed.
    """
    end_of_text = utf16_length(text)
    kept: list[Span] = []
    furthest: dict[str, int] = {}
    for span in sorted(spans, key=lambda one: (one.offset, -one.length)):
        if span.type == "custom_emoji" or (span.type == "text_link" and not _is_web_link(span)):
            continue
        # One inside another of its kind adds nothing, and each would be cut by all code that is in it.
        if _end(span) > furthest.get(span.type, -1):
            furthest[span.type] = _end(span)
            span.length = min(span.length, end_of_text - span.offset)
            kept.append(span)
    links = [span for span in kept if span.type == "text_link"]
    alone = list(_outside_links([span for span in kept if span.type in _ALONE], links))
    ends = [_end(span) for span in alone]
    others = [span for span in kept if span.type not in _ALONE]
    pieces = [*alone, *(piece for span in others for piece in _exclude_code(span, alone, ends))]
    return _nest([span for span in pieces if span.length > 0])


def _outside_links(code: Iterable[Span], links: Sequence[Span]) -> Iterator[Span]:
    starts = [link.offset for link in links]
    ends = list(accumulate(map(_end, links), max))
    for span in code:
        before = bisect_right(starts, span.offset) - 1
        if before < 0 or ends[before] < _end(span):
            yield span


def _is_web_link(span: Span) -> bool:
    return bool(span.url and WEB_LINK.fullmatch(span.url))


def _end(span: Span) -> int:
    return span.offset + span.length


def _exclude_code(span: Span, alone: Sequence[Span], ends: Sequence[int]) -> Iterator[Span]:
    """Removes the code from a style; a quote may contain code. `ends` are those of `alone`, in order."""
    if span.type == "blockquote":
        yield span
        return
    start, index = span.offset, bisect_right(ends, span.offset)
    while index < len(alone) and alone[index].offset < _end(span):
        yield span.copy_with(offset=start, length=alone[index].offset - start)
        start = ends[index]
        index += 1
    span.offset, span.length = start, _end(span) - start
    yield span


def _nest(spans: Iterable[Span]) -> list[Span]:
    """Splits spans that overlap without nesting, and drops those inside one of their kind (quotes cannot nest)."""
    turn = count()

    def entry(span: Span) -> tuple[int, int, bool, int, Span]:
        # Of two spans with the same text the quote is the outer one.
        return span.offset, -span.length, span.type != "blockquote", next(turn), span

    waiting = [entry(span) for span in spans]
    heapq.heapify(waiting)
    result: list[Span] = []
    opened: list[Span] = []
    while waiting:
        span = heapq.heappop(waiting)[-1]
        while opened and _end(opened[-1]) <= span.offset:
            opened.pop()
        if opened and _end(span) > _end(opened[-1]):
            border = _end(opened[-1])
            rest = span.copy_with(offset=border, length=_end(span) - border)
            heapq.heappush(waiting, entry(rest))
            span.length = border - span.offset
        if any(outer.type == span.type for outer in opened):
            continue
        opened.append(span)
        result.append(span)
    return sorted(result, key=lambda one: (one.offset, -one.length))  # stable: an outer span stays before its inner one


def to_entities(text: str, spans: Iterable[Span], earlier: Sequence[MessageEntity]) -> Iterator[MessageEntity]:
    """Yields the entities of nested spans; those of `earlier` that are the same are not built again."""
    units = text.encode("utf-16-le")
    built = iter(earlier)
    for span in spans:
        if not units[2 * span.offset : 2 * _end(span)].decode("utf-16-le").strip():
            continue
        url = span.url.translate(PLACEHOLDERS) if span.url else None
        language = found[0] if (found := _LANGUAGE.match(span.language or "")) else None
        known = next(built, None)
        if known is not None and (known.type, known.offset, known.length, known.url, known.language) == (
            span.type, span.offset, span.length, url, language
        ):  # fmt: skip
            yield known
        else:
            yield MessageEntity(type=span.type, offset=span.offset, length=span.length, url=url, language=language)
