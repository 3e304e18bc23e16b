"""Answers longer than one message: pages of Markdown that stand by themselves, cut while the answer still grows.

The source is cut, not what it renders to: what a later piece does to the formatting can then never reach back into
a page that is already sent, and only the page that still grows is rendered again.
"""

from dataclasses import dataclass
from typing import Final

from bot.telegram.markdown.parse import tidy
from bot.telegram.markdown.render import Rendered, render
from bot.telegram.markdown.splitting import Dedenter, SplitText, split_text

MESSAGE_LIMIT: Final = 4096
"""UTF-16 units that a message of Telegram holds."""

_SMALLEST_LIMIT = 32
_GULP = 2048
"""Characters taken in before the page is measured again: a whole answer at once is cut like a stream."""


@dataclass(frozen=True, slots=True)
class Page:
    """One message's worth: Markdown that needs nothing of the pages around it, and what it renders to."""

    markdown: str
    rendered: Rendered

    @property
    def blank(self) -> bool:
        """Whether there is nothing to send."""
        return self.rendered.blank


class Pages:
    """The pages of an answer that grows.

    Args:
        limit: UTF-16 units that a page may render to.
        reserve: units to leave free on each page, for a footer.
    """

    def __init__(self, limit: int = MESSAGE_LIMIT, *, reserve: int = 0) -> None:
        if limit - reserve < _SMALLEST_LIMIT:
            raise ValueError(f"a page needs at least {_SMALLEST_LIMIT} UTF-16 units, not {limit} - {reserve}")
        self._limit = limit - reserve
        self._taken = 0
        self._frozen: list[Page] = []
        self._lines = ""
        """The whole lines of the live page, lifted out of the containers that were left on earlier pages."""
        self._open_line = ""
        """The line that is not ended yet, as it came, unless `_open_line_is_cut`."""
        self._open_line_is_cut = False
        self._reroots: list[Dedenter] = []
        self._live = Page("", Rendered(""))

    @property
    def frozen(self) -> tuple[Page, ...]:
        """The pages that are full: they never change."""
        return tuple(self._frozen)

    @property
    def live(self) -> Page:
        """The page that still grows; blank before the first output, or when a page has just been filled."""
        return self._live

    @property
    def all(self) -> tuple[Page, ...]:
        """The pages that there is something to see on."""
        return (*self._frozen, *(() if self._live.blank else (self._live,)))

    def update(self, source: str) -> None:
        """Take in the whole answer so far.

        Args:
            source: what the last update had, and more.

        Raises:
            ValueError: it is shorter than the last one.
        """
        if len(source) < self._taken:
            raise ValueError("an answer only grows")
        while piece := _without_half_at_end(source[self._taken : self._taken + _GULP]):
            self._take(tidy(piece))
            self._taken += len(piece)
            self._measure()

    def _take(self, piece: str) -> None:
        *whole, self._open_line = (self._open_line + piece).split("\n")
        for line in whole:
            self._lines += (line if self._open_line_is_cut else self._rerooted(line)) + "\n"
            self._open_line_is_cut = False

    def _rerooted(self, line: str) -> str:
        for reroot in self._reroots:
            line = reroot.line(line)
        self._reroots = [reroot for reroot in self._reroots if reroot.path]
        return line

    def _glance(self) -> str:
        """The open line as it looks so far, without concluding anything from it."""
        line = self._open_line
        if not self._open_line_is_cut:
            for reroot in self._reroots:
                line = reroot.glance(line)
        return line

    def _measure(self) -> None:
        while True:
            text = self._lines + self._glance()
            rendered = render(text)
            if rendered.length <= self._limit:
                self._live = Page(text, rendered)
                return
            self._turn(text, split_text(text, self._limit))

    def _turn(self, text: str, at: SplitText) -> None:
        head = render(at.head)
        if not head.blank:
            self._frozen.append(Page(at.head, head))
        rest = text[at.resume :]
        open_line_starts = len(self._lines)
        reroot = Dedenter(at.path)
        if at.resume > open_line_starts:
            self._lines, self._open_line, self._open_line_is_cut = at.opening, at.escape + rest, True
        else:
            first, *lines = rest[: open_line_starts - at.resume].split("\n")
            # The rest of a line that was cut has no container's marks in front of it.
            lines = [at.escape + (first if at.within_line else reroot.line(first)), *map(reroot.line, lines)]
            self._lines = at.opening + "\n".join(lines)
        if reroot.path:
            self._reroots.append(reroot)


def _without_half_at_end(piece: str) -> str:
    """Leave for later what the next character may belong to: half of a line end or of a surrogate pair."""
    return piece[:-1] if piece and (piece[-1] == "\r" or "\ud800" <= piece[-1] <= "\udbff") else piece


def paginate(markdown: str, limit: int = MESSAGE_LIMIT, *, reserve: int = 0) -> tuple[Page, ...]:
    """Cut a whole answer into pages that each render to at most `limit - reserve` UTF-16 units."""
    pages = Pages(limit, reserve=reserve)
    pages.update(markdown)
    return pages.all
