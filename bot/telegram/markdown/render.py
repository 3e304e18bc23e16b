"""Renders the model's Markdown as text and entities. No parse mode is used.

`workarounds` prepares the source, `convert` walks it, and `_nest_spans` makes the entities acceptable.

The library's `convert` parses again until no price looks like a formula, which a text of dollars can make as many times
as it has dollars. Its walker (`EventWalker`, pinned to 1.4) takes events, so that code stands in for formulas here.
"""

import heapq
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, count
from typing import Final

import structlog
from aiogram.types import MessageEntity
from telegramify_markdown import MessageEntity as Span
from telegramify_markdown import RenderConfig
from telegramify_markdown.converter import (
    EventWalker,
    _TextBuffer,  # pyright: ignore[reportPrivateUsage] - see `_Buffer`
)

from bot.telegram.markdown.formulas import mark_formulas, needs_conversion, to_unicode
from bot.telegram.markdown.parse import (
    PLACEHOLDERS,
    Event,
    RenderLimits,
    TooMuchWork,
    Work,
    check_depth,
    read_settled,
    tidy,
)
from bot.telegram.markdown.workarounds import NEEDED, WEB_LINK, apply_workarounds

log = structlog.get_logger()

MAX_ENTITIES: Final = 100
"""Entities of a message that Telegram uses; it ignores the others."""

_LIMITS = RenderLimits()
_LANGUAGE = re.compile(r"[\w+#.-]{1,40}")
_ALONE = frozenset({"code", "pre"})


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


def render(markdown: str) -> Rendered:
    """Renders Markdown, complete or cut off anywhere, as text and entities that Telegram accepts.

    A text that would take more work than its share is returned as it is.
    """
    return render_within(markdown, Work(_LIMITS.text)) or render_plain(markdown)


def render_plain(markdown: str) -> Rendered:
    """Returns the source itself, to be shown where it cannot be rendered."""
    return Rendered(tidy(markdown).strip("\n"))


def render_within(
    markdown: str, work: Work, limits: RenderLimits = _LIMITS, earlier: Sequence[MessageEntity] = ()
) -> Rendered | None:
    """Renders a text if that takes no more than `limits.text` and than the rest of `work`; otherwise None.

    Args:
        earlier: the entities of the beginning of a text that grows; they are not built again.
    """
    own = Work(min(limits.text, work.left))
    try:
        if len(markdown) > 2 * limits.source:
            return None
        source = tidy(markdown)
        text, spans = convert(apply_workarounds(source, own) if NEEDED.search(source) else source, own)
    except TooMuchWork:
        return None
    except BaseException as error:
        # The parser's panics are no `Exception`. No answer may be lost to a fault in its formatting.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        # Without the traceback: its message may contain the text.
        log.error("markdown.unrenderable", error=type(error).__name__, length=len(markdown))
        return None
    finally:
        work.spent += own.spent
    text = text.translate(PLACEHOLDERS).rstrip()
    return Rendered(text, tuple(_to_entities(text, _nest_spans(text, spans)[:MAX_ENTITIES], earlier)))


def plain(markdown: str) -> str:
    """Renders Markdown as text without formatting."""
    return render(markdown).text


def convert(text: str, work: Work) -> tuple[str, list[Span]]:
    """Converts a text after `apply_workarounds`. The result may contain placeholders.

    Raises:
        TooMuchWork: it needs more than `work` allows.
    """
    if "\\(" in text or "\\[" in text:
        text = mark_formulas(text, work)
    text, events = read_settled(text, work)
    check_depth(events)
    work.charge(len(events))
    walker = EventWalker(_config(), text)
    walker._buf = _Buffer()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - see there
    shown, spans, _ = walker.walk(tuple(_without_formulas(events, work) if "$" in text else events))
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


# Entities that Telegram rejects or interprets differently.


def _nest_spans(text: str, spans: Iterable[Span]) -> list[Span]:
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


def _to_entities(text: str, spans: Iterable[Span], earlier: Sequence[MessageEntity]) -> Iterator[MessageEntity]:
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
