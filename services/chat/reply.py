"""Answers in progress: a turn writes each, a surface displays it, and Stop finds it by its conversation."""

import asyncio
import secrets
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from itertools import count
from typing import TYPE_CHECKING

from core.messages import ConversationKey

if TYPE_CHECKING:
    from services.preferences import StreamMode


class ReplyPhase(Enum):
    """State of an answer; every state except RUNNING is final."""

    RUNNING = auto()
    COMPLETE = auto()
    STOPPED = auto()
    """The user pressed Stop."""
    INTERRUPTED = auto()
    """Cut off by the provider or by a shutdown."""
    FAILED = auto()
    """There is no answer; `notice` has the reason."""


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture that belongs to an answer."""

    data: bytes
    name: str


@dataclass(frozen=True, slots=True)
class AskedCall:
    """A call of a tool that acts, which its user is to allow.

    Args:
        id: id of the stored call.
        what: the server, the tool and the arguments, on one line.
    """

    id: int
    what: str


class Reply:
    """One answer. Writing a chunk is an append; a waiting reader wakes only when there is enough to show.

    Args:
        window_s: longest time for which its text may be held, to be written together with the text that follows.
    """

    def __init__(self, window_s: float = 0.0) -> None:
        self.window_s = window_s
        self.phase = ReplyPhase.RUNNING
        self.notice: str | None = None
        """A line for the user in their language: an error, or that the answer was stopped."""
        self.heading = ""
        """Markdown above the text, such as a quoted transcript; set before any text."""
        self.pictures: list[ShownPicture] = []
        """Pictures that follow the text, or stand in its place."""
        self.footer: str | None = None
        """Small print under the answer."""
        self.turn_id: int | None = None
        """Id of the turn in the database, once it is stored."""
        self.earlier_ids: tuple[int, ...] = ()
        """Message ids of an earlier attempt that a crash or a shutdown cut off; the answer continues in them."""
        self.is_resumed = False
        """True if an earlier attempt had begun the turn, in this process or in another one."""
        self.is_handed_back = False
        """True if a shutdown cut it off and another process will produce it again."""
        self.is_cut = False
        """True if the answer ended at a limit of its length: there is more to say."""
        self.is_silent = False
        """True if nothing is to be shown: the user was told the reason a moment ago."""
        self.asked_calls: tuple[AskedCall, ...] = ()
        """Calls of tools that wait for the user's permission."""
        self.needs_consent = False
        """True if `notice` asks for consent to remote providers; the message waits for the decision."""
        self.stream_mode: StreamMode | None = None
        """The chat's choice of how the answer is shown while it is written, known before its first text."""
        self.provider: str | None = None
        """The provider that answered."""
        self.model: str | None = None
        self.failed_over: tuple[tuple[str, str], ...] = ()
        """Providers that were asked and failed, with the reason: before `provider`, or all of them."""
        self._pieces: list[str] = []
        self._length = 0
        self._gap = ""
        self._watchers: list[tuple[int, asyncio.Future[None]]] = []
        self._wake_at = sys.maxsize
        self._activity: str | None = None
        self._activity_watchers: list[asyncio.Future[None]] = []
        self._on_stop: Callable[[], object] | None = None
        self._stop_wanted = False

    @property
    def text(self) -> str:
        """The text so far, in the model's Markdown. It only grows."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def shown(self) -> str:
        """The heading and the text so far."""
        return self.heading + self.text

    @property
    def activity(self) -> str | None:
        """A line in the user's language about the tool work since the last text; None if there is none."""
        return self._activity

    def show_activity(self, line: str | None) -> None:
        """Shows the work in progress until further text is written."""
        if self.phase is ReplyPhase.RUNNING and line != self._activity:
            self._activity = line
            self._wake_activity()

    async def wait_activity(self, seen: str | None) -> None:
        """Waits until the activity is another one than `seen`, or the answer has ended."""
        while self._activity == seen and self.phase is ReplyPhase.RUNNING:
            watcher = asyncio.get_running_loop().create_future()
            self._activity_watchers.append(watcher)
            try:
                await watcher
            finally:
                self._activity_watchers = [other for other in self._activity_watchers if other is not watcher]

    @property
    def stop_wanted(self) -> bool:
        """True if the user pressed Stop."""
        return self._stop_wanted

    def begin_part(self) -> None:
        """Starts a new paragraph for the next text, after a tool call."""
        self._gap = "\n\n" if self._length else ""

    def write(self, piece: str) -> None:
        """Appends text; ignored after the end."""
        if self.phase is not ReplyPhase.RUNNING:
            return
        if self._gap and piece:
            piece, self._gap = self._gap + piece, ""
        self._pieces.append(piece)
        self._length += len(piece)
        if self._activity is not None and piece.strip():
            self._activity = None
            self._wake_activity()
        if self._length > self._wake_at:
            self._wake()

    def end(self, phase: ReplyPhase, notice: str | None = None, footer: str | None = None) -> None:
        """Ends the answer; only the first call counts."""
        if self.phase is not ReplyPhase.RUNNING:
            return
        self.phase, self.notice, self.footer = phase, notice, footer
        self._wake()
        self._wake_activity()

    def stop(self) -> None:
        """Stops the answer at the user's request. Idempotent; ignored after the end."""
        if self.phase is ReplyPhase.RUNNING and not self._stop_wanted:
            self._stop_wanted = True
            if self._on_stop is not None:
                self._on_stop()

    def on_stop(self, act: Callable[[], object]) -> None:
        """Registers the callback that cancels the generation."""
        self._on_stop = act
        if self._stop_wanted:
            act()

    async def wait_beyond(self, length: int) -> None:
        """Waits until the text is longer than `length` characters or the answer has ended."""
        while self._length <= length and self.phase is ReplyPhase.RUNNING:
            watcher = (length, asyncio.get_running_loop().create_future())
            self._watchers.append(watcher)
            self._wake_at = min(self._wake_at, length)
            try:
                await watcher[1]
            finally:
                self._watchers = [other for other in self._watchers if other is not watcher]
                self._wake_at = min((watched for watched, _ in self._watchers), default=sys.maxsize)

    def _wake_activity(self) -> None:
        for future in self._activity_watchers:
            if not future.done():
                future.set_result(None)

    def _wake(self) -> None:
        for length, future in self._watchers:
            if not future.done() and (self._length > length or self.phase is not ReplyPhase.RUNNING):
                future.set_result(None)


class ActiveReplies:
    """At most one answer per conversation; each has a number that its Stop button carries."""

    def __init__(self) -> None:
        # Each replica numbers from its own random start: a button of one must not match an answer of another.
        self._numbers = count(secrets.randbelow(2**40))
        self._replies: dict[ConversationKey, tuple[int, Reply]] = {}

    @contextmanager
    def register(self, key: ConversationKey, reply: Reply) -> Generator[int]:
        """Registers an answer while the context lasts. Yields its number."""
        number = next(self._numbers)
        self._replies[key] = (number, reply)
        try:
            yield number
        finally:
            del self._replies[key]

    def stop(self, key: ConversationKey, number: int | None = None) -> bool:
        """Stops the answer of a conversation, or only the one with this number. Returns False if there is none."""
        entry = self._replies.get(key)
        if entry is None or (number is not None and number != entry[0]):
            return False
        entry[1].stop()
        return True

    def stop_chat(self, chat_id: int) -> bool:
        """Stops every answer of a chat in all topics. Returns False if there is none."""
        replies = [reply for key, (_, reply) in self._replies.items() if key.chat_id == chat_id]
        for reply in replies:
            reply.stop()
        return bool(replies)
