"""An answer while it is being made: the turn writes it, a surface watches it."""

import asyncio
import sys
from collections.abc import Callable
from enum import Enum, auto


class ReplyPhase(Enum):
    """Where an answer stands; all but RUNNING are ends."""

    RUNNING = auto()
    COMPLETE = auto()
    STOPPED = auto()
    """The user pressed Stop."""
    INTERRUPTED = auto()
    """The provider, or a shutdown, broke it off."""
    FAILED = auto()
    """There is no answer, and `notice` says why."""


class Reply:
    """One answer. Writing a piece costs an append; nobody is woken before there is enough for a watcher."""

    def __init__(self) -> None:
        self.phase = ReplyPhase.RUNNING
        self.notice: str | None = None
        """A line for the user, in their language: what went wrong, or that it was stopped."""
        self.footer: str | None = None
        """A small line under the answer."""
        self.turn_id: int | None = None
        """The turn in the database, once it is there."""
        self.earlier_ids: tuple[int, ...] = ()
        """The messages of an earlier attempt at it, which a crash or a shutdown broke off: it goes on in them."""
        self.is_handed_back = False
        """Whether it was broken off by a shutdown, and is made anew by itself after that."""
        self.needs_consent = False
        """Whether `notice` asks if remote providers may answer; the message waits for that."""
        self.provider: str | None = None
        """Who gave the answer."""
        self.model: str | None = None
        self.failed_over: tuple[tuple[str, str], ...] = ()
        """Who was asked before and did not answer, with the reason."""
        self._pieces: list[str] = []
        self._length = 0
        self._gap = ""
        self._watchers: list[tuple[int, asyncio.Future[None]]] = []
        self._wake_at = sys.maxsize
        self._on_stop: Callable[[], object] | None = None
        self._stop_wanted = False

    @property
    def text(self) -> str:
        """All of it so far, in the model's Markdown; it only grows."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def retryable(self) -> bool:
        """Whether the same message may be asked again."""
        return self.turn_id is not None and self.phase is not ReplyPhase.RUNNING

    @property
    def stop_wanted(self) -> bool:
        """Whether the user pressed Stop."""
        return self._stop_wanted

    def begin_part(self) -> None:
        """What is said next, after a tool was used, is a paragraph of its own."""
        self._gap = "\n\n" if self._length else ""

    def write(self, piece: str) -> None:
        """Add to the text; one that has ended stays as it is."""
        if self.phase is not ReplyPhase.RUNNING:
            return
        if self._gap and piece:
            piece, self._gap = self._gap + piece, ""
        self._pieces.append(piece)
        self._length += len(piece)
        if self._length > self._wake_at:
            self._wake()

    def end(self, phase: ReplyPhase, notice: str | None = None, footer: str | None = None) -> None:
        """Bring it to its end; the first end counts."""
        if self.phase is not ReplyPhase.RUNNING:
            return
        self.phase, self.notice, self.footer = phase, notice, footer
        self._wake()

    def stop(self) -> None:
        """The user wants no more of it. Nothing happens to an answer that has ended, nor at the second press."""
        if self.phase is ReplyPhase.RUNNING and not self._stop_wanted:
            self._stop_wanted = True
            if self._on_stop is not None:
                self._on_stop()

    def on_stop(self, act: Callable[[], object]) -> None:
        """What stops the making of it."""
        self._on_stop = act
        if self._stop_wanted:
            act()

    async def changed(self, seen: int) -> None:
        """Return when the text is longer than `seen` characters or the answer has ended."""
        while self._length <= seen and self.phase is ReplyPhase.RUNNING:
            watcher = (seen, asyncio.get_running_loop().create_future())
            self._watchers.append(watcher)
            self._wake_at = min(self._wake_at, seen)
            try:
                await watcher[1]
            finally:
                self._watchers = [other for other in self._watchers if other is not watcher]
                self._wake_at = min((length for length, _ in self._watchers), default=sys.maxsize)

    def _wake(self) -> None:
        for seen, future in self._watchers:
            if not future.done() and (self._length > seen or self.phase is not ReplyPhase.RUNNING):
                future.set_result(None)
