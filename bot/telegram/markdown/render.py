"""The model's Markdown as Telegram shows it: text and entities, never a parse mode.

telegramify-markdown does the work. What it would lose or spoil is put right before (`mends`) and after (`_lawful`).
"""

import heapq
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count

import structlog
from aiogram.types import MessageEntity
from telegramify_markdown import MessageEntity as Span
from telegramify_markdown import RenderConfig, convert

from bot.telegram.markdown.parse import ANGLE, BACKSLASH, BREAK, tidy
from bot.telegram.markdown.workarounds import WEB_LINK, apply_workarounds

log = structlog.get_logger()

_STAND_INS = str.maketrans({ANGLE: "<", BREAK: "\n", BACKSLASH: "\\"})
_LANGUAGE = re.compile(r"[\w+#.-]{1,40}")
_ALONE = frozenset({"code", "pre"})


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text with the entities that format it; offsets and lengths are in UTF-16 units, as Telegram counts."""

    text: str
    entities: tuple[MessageEntity, ...] = ()

    @property
    def length(self) -> int:
        """The length of the text in UTF-16 units: Telegram takes 1 to 4096."""
        return utf16_length(self.text)

    @property
    def blank(self) -> bool:
        """Whether there is nothing to see, which Telegram would refuse as an empty message."""
        return all(character.isspace() or unicodedata.category(character)[0] == "C" for character in self.text)


def utf16_length(text: str) -> int:
    """Count UTF-16 units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def render(markdown: str) -> Rendered:
    """Turn Markdown, whole or cut off anywhere, into text and entities that Telegram accepts."""
    source = tidy(markdown)
    try:
        text, spans = convert(apply_workarounds(source), config=_config())
    except Exception as error:  # noqa: BLE001 - no answer may be lost to its formatting, whatever is wrong with it
        # Without the traceback: its message may hold the text.
        log.error("markdown.unrenderable", error=type(error).__name__, length=len(source))  # noqa: TRY400
        return Rendered(source.strip("\n"))
    text = text.translate(_STAND_INS).rstrip()
    return Rendered(text, tuple(_entities(text, _lawful(text, spans))))


def plain(markdown: str) -> str:
    """Turn Markdown into the same text without its formatting."""
    return render(markdown).text


@cache
def _config() -> RenderConfig:
    config = RenderConfig.isolated()
    config.cite_expandable = False  # a quote that folds itself up hides a part of the answer
    symbols = config.markdown_symbol
    symbols.heading_level_1 = symbols.heading_level_2 = symbols.heading_level_3 = symbols.heading_level_4 = ""
    symbols.unordered_list_item = "\N{BULLET}"
    symbols.task_completed = "\N{BALLOT BOX WITH CHECK}"
    symbols.task_uncompleted = "\N{BALLOT BOX}"
    symbols.image = "\N{FRAME WITH PICTURE} "
    return config


# What Telegram would not take, or take otherwise than meant.


def _lawful(text: str, spans: Iterable[Span]) -> list[Span]:
    """Order the spans so that of two that meet one holds the other, and code holds and is held by no style."""
    end_of_text = utf16_length(text)
    kept: list[Span] = []
    for span in spans:
        if span.type == "custom_emoji" or (span.type == "text_link" and not _is_good_link(span)):
            continue
        kept.append(span.copy_with(length=min(span.length, end_of_text - span.offset)))
    links = [span for span in kept if span.type == "text_link"]
    alone = [span for span in kept if span.type in _ALONE and not any(_holds(link, span) for link in links)]
    others = [span for span in kept if span.type not in _ALONE]
    pieces = [*alone, *(piece for span in others for piece in _around(span, alone))]
    return _nested([span for span in pieces if span.length > 0])


def _is_good_link(span: Span) -> bool:
    return bool(span.url and WEB_LINK.fullmatch(span.url))


def _end(span: Span) -> int:
    return span.offset + span.length


def _holds(outer: Span, inner: Span) -> bool:
    return outer.offset <= inner.offset and _end(inner) <= _end(outer)


def _around(span: Span, alone: Iterable[Span]) -> Iterator[Span]:
    """Cut the code out of a style; a quote may hold code."""
    if span.type == "blockquote":
        yield span
        return
    start = span.offset
    for code in sorted(alone, key=lambda one: one.offset):
        if start < _end(code) and code.offset < _end(span):
            yield span.copy_with(offset=start, length=code.offset - start)
            start = _end(code)
    yield span.copy_with(offset=start, length=_end(span) - start)


def _nested(spans: Iterable[Span]) -> list[Span]:
    """Split what overlaps without nesting, and drop what is held by its own kind already (quotes cannot nest)."""
    turn = count()

    def entry(span: Span) -> tuple[int, int, bool, int, Span]:
        # Of two with the same text the quote is the outer one.
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
    return sorted(result, key=lambda one: (one.offset, -one.length))  # stable: an outer one stays before its inner one


def _entities(text: str, spans: Iterable[Span]) -> Iterator[MessageEntity]:
    units = text.encode("utf-16-le")
    for span in spans:
        if not units[2 * span.offset : 2 * _end(span)].decode("utf-16-le").strip():
            continue
        language = _LANGUAGE.match(span.language or "")
        yield MessageEntity(
            type=span.type,
            offset=span.offset,
            length=span.length,
            url=span.url.translate(_STAND_INS) if span.url else None,
            language=language[0] if language else None,
        )
