"""Splits a growing answer into pages, each a message of its own.

The source is split, not the rendered text: later text cannot change the formatting of a page that is already sent, and
only the last page is rendered again.

Splitting the rendered text instead (telegramify-markdown's `split_entities`, frozen by rendered offset, since its
segments have no source offsets) would save 390 of 896 lines. Measured 2026-11-28: 11 of 44 cases of test_pages fail. It
splits at newlines or else inside words, emoji and flags (14 of 35 generated documents lose a word, 24 of 35 when
streamed), separates headings from their text, repeats no table header and renders the whole answer at each update.

Long texts are rendered on a thread of their own, so that the event loop keeps answering others.

A page that needs more work than its share is shown as it is written: see `RenderLimits`.

Bold and struck text that is still open when its page freezes is closed there and opened again on the next page; other
emphasis stays literal, since its end may never come.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Self

import structlog
from aiogram.types import MessageEntity

from bot.telegram.markdown.cutting import Dedenter, SplitText
from bot.telegram.markdown.formulas import FORMULA_MARKS, read_formulas
from bot.telegram.markdown.render import (
    MAX_ENTITIES,
    PLACEHOLDERS,
    Rendered,
    RenderLimits,
    TooMuchWork,
    Work,
    convert,
    nest_spans,
    read_events,
    tidy,
    to_entities,
    utf16_length,
)
from bot.telegram.markdown.splitting import split_plain, split_text
from bot.telegram.markdown.workarounds import NEEDED, apply_workarounds

log = structlog.get_logger()


MESSAGE_LIMIT: Final = 4096
"""UTF-16 units of a Telegram message."""

_LIMITS = RenderLimits()
_SMALLEST_LIMIT = 32
_CHUNK = 2048
"""Characters added before the page is measured again, so that a complete answer is split like a stream."""


@dataclass(frozen=True, slots=True)
class Page:
    """One message: self-contained Markdown and its rendered form."""

    markdown: str
    rendered: Rendered

    @property
    def blank(self) -> bool:
        """True if there is nothing to send."""
        return self.rendered.blank


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
        if NEEDED.search(source):
            source = apply_workarounds(source, own)
        if FORMULA_MARKS.search(source):
            source, events = read_formulas(source, own)
        else:
            events = read_events(source, own)
        text, spans = convert(source, events, own)
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
    return Rendered(text, tuple(to_entities(text, nest_spans(text, spans)[:MAX_ENTITIES], earlier)))


def render_plain(markdown: str) -> Rendered:
    """Returns the source itself, to be shown where it cannot be rendered."""
    return Rendered(tidy(markdown).strip("\n"))


class Pages:
    """The pages of a growing answer.

    Args:
        limit: UTF-16 units of a rendered page.
        reserve: units kept free on each page, for a footer.
        most: pages after which the rest is not rendered; None for no bound.
        work: bounds of the work of one update.
    """

    def __init__(
        self,
        limit: int = MESSAGE_LIMIT,
        *,
        reserve: int = 0,
        most: int | None = None,
        work: RenderLimits | None = None,
    ) -> None:
        if limit - reserve < _SMALLEST_LIMIT:
            raise ValueError(f"a page needs at least {_SMALLEST_LIMIT} UTF-16 units, not {limit} - {reserve}")
        self._limit = limit - reserve
        self._most = most
        self._limits = work or RenderLimits()
        self._work = Work(self._limits.update)
        self._taken = 0
        self._frozen: list[Page] = []
        self._lines = ""
        """Complete lines of the last page, without the markers of containers that began on earlier pages."""
        self._open_line = ""
        """The incomplete last line, unchanged unless `_is_open_line_split`."""
        self._is_open_line_split = False
        self._dedenters: list[Dedenter] = []
        self._live = Page("", Rendered(""))
        self._overflows = False

    @property
    def taken(self) -> int:
        """Characters of the source that are on the pages."""
        return self._taken

    @property
    def spent(self) -> int:
        """Units of work of the last update."""
        return self._work.spent

    @property
    def overflows(self) -> bool:
        """True if there is text after the last page that is allowed; it is on no page."""
        return self._overflows

    @property
    def frozen(self) -> tuple[Page, ...]:
        """Full pages; they never change."""
        return tuple(self._frozen)

    @property
    def live(self) -> Page:
        """The growing page; blank before the first output and just after a page was filled."""
        return self._live

    @property
    def all(self) -> tuple[Page, ...]:
        """All pages with visible content."""
        return (*self._frozen, *(() if self._live.blank else (self._live,)))

    def update(self, source: str) -> None:
        """Processes the whole answer so far.

        Args:
            source: starts with the source of the previous update.

        Raises:
            ValueError: it is shorter than the previous one.
        """
        if len(source) < self._taken:
            raise ValueError("an answer only grows")
        self._work = Work(self._limits.update)
        while not self._overflows and (piece := self._next_piece(source)):
            self._append(tidy(piece))
            self._taken += len(piece)
            self._measure()
            self._overflows = self._most is not None and len(self.all) > self._most
            if self._overflows:
                del self._frozen[self._most :]
                self._live = Page("", Rendered(""))

    def _next_piece(self, source: str) -> str:
        # Text that surely fits is not measured on its way.
        size = max(_CHUNK, self._limit + self._limit // 4 - len(self._lines) - len(self._open_line))
        return _drop_incomplete_end(source[self._taken : self._taken + size])

    def _append(self, piece: str) -> None:
        *whole, self._open_line = (self._open_line + piece).split("\n")
        lines: list[str] = []
        for line in whole:
            lines.append(line if self._is_open_line_split else self._dedent(line))
            self._is_open_line_split = False
        self._lines += "".join(line + "\n" for line in lines)

    def _dedent(self, line: str) -> str:
        for dedenter in self._dedenters:
            line = dedenter.line(line)
        self._dedenters = [dedenter for dedenter in self._dedenters if dedenter.path]
        return line

    def _peek(self) -> str:
        """Returns the incomplete last line without drawing conclusions from it."""
        line = self._open_line
        if not self._is_open_line_split:
            for dedenter in self._dedenters:
                line = dedenter.peek(line)
        return line

    def _measure(self) -> None:
        """Starts pages until the rest fits on the last one."""
        while self._most is None or len(self._frozen) <= self._most:
            text = self._lines + self._peek()
            rendered = self._render(text)
            if rendered is not None and not self._is_full(text, rendered):
                self._live = Page(text, rendered)
                return
            if rendered is None and utf16_length(text) <= self._limit:
                self._live = Page(text, render_plain(text))
                return
            self._start_page(text, self._split(text, rendered))

    def _render(self, text: str) -> Rendered | None:
        return render_within(text, self._work, self._limits, self._live.rendered.entities)

    def _is_full(self, text: str, rendered: Rendered) -> bool:
        # A page that shows nothing still fills, with source that renders to nothing.
        return (
            rendered.length > self._limit
            or len(text) > self._limits.source
            or (rendered.blank and utf16_length(text) > self._limit)
        )

    def _split(self, text: str, rendered: Rendered | None) -> SplitText:
        if rendered is None or rendered.blank:
            return split_plain(text, self._limit)
        try:
            return split_text(
                text, min(self._limit, max(1, rendered.length - 1)), rendered.length, self._work, render_within
            )
        except TooMuchWork:
            return split_plain(text, self._limit)
        except Exception as error:  # noqa: BLE001 - as in `render_within`: no answer may be lost to its formatting
            log.error("markdown.unsplittable", error=type(error).__name__, length=len(text))
            return split_plain(text, self._limit)

    def _start_page(self, text: str, at: SplitText) -> None:
        head = at.rendered or self._render(at.head) or render_plain(at.head)
        if not head.blank:
            self._frozen.append(Page(at.head, head))
        rest = text[at.resume :]
        open_line_starts = len(self._lines)
        dedenter = Dedenter(at.path)
        if at.resume > open_line_starts:
            self._lines, self._open_line, self._is_open_line_split = at.opening, at.escape + rest, True
        else:
            first, *lines = rest[: open_line_starts - at.resume].split("\n")
            # The rest of a split line has no container markers in front of it.
            lines = [at.escape + (first if at.within_line else dedenter.line(first)), *map(dedenter.line, lines)]
            self._lines = at.opening + "\n".join(lines)
        if dedenter.path:
            self._dedenters.append(dedenter)


def _drop_incomplete_end(piece: str) -> str:
    """Removes an incomplete end: half of a line ending or of a surrogate pair."""
    return piece[:-1] if piece and (piece[-1] == "\r" or "\ud800" <= piece[-1] <= "\udbff") else piece


@dataclass(frozen=True, slots=True)
class RenderThreadLimits:
    """Bounds of updates on the event loop itself, and of one update on the thread.

    Args:
        units: work of the page's last update, about 3 ms.
        characters: number of characters of new text.
        slice: characters of new text in one update, about a page: each update has its own bound of work.
    """

    units: int = 1200
    characters: int = 2048
    slice: int = 4096


class RenderThread:
    """Updates pages: a short update at once, a long one on the thread.

    There is one thread for all answers: rendering takes Python's lock, and several threads would leave the event loop
    less than half of its time. On one, the loop waits 5 ms at most for the lock.
    """

    def __init__(self, limits: RenderThreadLimits | None = None) -> None:
        self._limits = limits or RenderThreadLimits()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="render")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def fill(self, pages: Pages, text: str) -> None:
        """Updates pages to a text, slice by slice. After a cancellation no update is running."""
        while not pages.overflows and pages.taken < len(text):
            end = min(len(text), pages.taken + self._limits.slice)
            await self._update(pages, text[:end])
            if end == len(text):
                # Half of a line end or of a character may be left for the next update.
                return

    async def _update(self, pages: Pages, text: str) -> None:
        if pages.spent <= self._limits.units and len(text) - pages.taken <= self._limits.characters:
            pages.update(text)
            return
        update = asyncio.get_running_loop().run_in_executor(self._executor, pages.update, text)
        try:
            await asyncio.shield(update)
        except asyncio.CancelledError:
            await asyncio.wait([update])
            raise
