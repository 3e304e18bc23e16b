"""Renders the model's Markdown as text and entities. No parse mode is used.

telegramify-markdown converts. `workarounds` prepares the source, and `_nest_spans` makes the entities acceptable.
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
        return all(character.isspace() or unicodedata.category(character)[0] == "C" for character in self.text)


def utf16_length(text: str) -> int:
    """Returns the length in UTF-16 units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def render(markdown: str) -> Rendered:
    """Renders Markdown, complete or cut off anywhere, as text and entities that Telegram accepts."""
    source = tidy(markdown)
    try:
        text, spans = convert(apply_workarounds(source), config=_config())
    except Exception as error:  # noqa: BLE001 - no answer may be lost to its formatting, whatever is wrong with it
        # Without the traceback: its message may contain the text.
        log.error("markdown.unrenderable", error=type(error).__name__, length=len(source))  # noqa: TRY400
        return Rendered(source.strip("\n"))
    text = text.translate(_STAND_INS).rstrip()
    return Rendered(text, tuple(_to_entities(text, _nest_spans(text, spans))))


def plain(markdown: str) -> str:
    """Renders Markdown as text without formatting."""
    return render(markdown).text


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


def _nest_spans(text: str, spans: Iterable[Span]) -> list[Span]:
    """Orders spans so that overlapping ones are nested, and code neither contains a style nor is contained in one."""
    end_of_text = utf16_length(text)
    kept: list[Span] = []
    for span in spans:
        if span.type == "custom_emoji" or (span.type == "text_link" and not _is_web_link(span)):
            continue
        kept.append(span.copy_with(length=min(span.length, end_of_text - span.offset)))
    links = [span for span in kept if span.type == "text_link"]
    alone = [span for span in kept if span.type in _ALONE and not any(_holds(link, span) for link in links)]
    others = [span for span in kept if span.type not in _ALONE]
    pieces = [*alone, *(piece for span in others for piece in _exclude_code(span, alone))]
    return _nest([span for span in pieces if span.length > 0])


def _is_web_link(span: Span) -> bool:
    return bool(span.url and WEB_LINK.fullmatch(span.url))


def _end(span: Span) -> int:
    return span.offset + span.length


def _holds(outer: Span, inner: Span) -> bool:
    return outer.offset <= inner.offset and _end(inner) <= _end(outer)


def _exclude_code(span: Span, alone: Iterable[Span]) -> Iterator[Span]:
    """Removes the code from a style; a quote may contain code."""
    if span.type == "blockquote":
        yield span
        return
    start = span.offset
    for code in sorted(alone, key=lambda one: one.offset):
        if start < _end(code) and code.offset < _end(span):
            yield span.copy_with(offset=start, length=code.offset - start)
            start = _end(code)
    yield span.copy_with(offset=start, length=_end(span) - start)


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


def _to_entities(text: str, spans: Iterable[Span]) -> Iterator[MessageEntity]:
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
