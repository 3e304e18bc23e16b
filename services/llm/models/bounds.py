"""Bounds of one answer: a deadline shared by many short waits, and the size of its text, thinking and tool arguments.

A timeout per wait (`asyncio.timeout`) arms and cancels a timer for every piece of a stream, which costs more than
everything else that the fallback adds. Here a wait only stores its end. The timer compares it when it fires, and mostly
re-arms itself.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType

from pydantic_ai.messages import (
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)

STANDSTILL_S = 0.1
"""Lateness of the event loop from which on a wait is prolonged by it."""
LONGEST_GRACE_S = 5.0
"""Longest such prolongation, after a machine has slept for hours."""


class Deadline:
    """Cancels waits that take too long, like `asyncio.timeout`; one wait at a time.

    Set `until`, then wrap the wait in `with deadline:`. Between waits the deadline has no effect. Close it after the
    last one.

    Args:
        prolong: called when a wait is due; returns its new end, or a past instant to let it expire. Dropped at the
            close: it is mostly a method of the deadline's owner, and the cycle would keep both until a collection.
    """

    def __init__(self, prolong: Callable[[], float] | None = None) -> None:
        self.prolong = prolong
        self.until = 0.0
        """The end of the next wait, in the event loop's time."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False
        self._due_at = 0.0

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a deadline needs a task")
        self._cancelling = task.cancelling()
        self._waiting = task
        if self._timer is None or self._due_at > self.until:
            self._arm()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Turns the cancellation by this deadline into a TimeoutError; other cancellations stay."""
        task, self._waiting = self._waiting, None
        if not self._expired or task is None:
            return
        self._expired = False
        # A higher count means that the task was cancelled from elsewhere too, which takes precedence.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def close(self) -> None:
        """Cancels the timer; no wait may follow."""
        self.prolong = None
        self._cancel_timer()

    def _arm(self) -> None:
        self._cancel_timer()
        self._due_at = self.until
        self._timer = self._loop.call_at(self.until, self._due)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        late_s = self._loop.time() - self._due_at
        self._timer = None
        if late_s > STANDSTILL_S:
            # The event loop stood still, or the machine slept: output that arrived meanwhile has not been read yet.
            self.until = self._loop.time() + min(late_s, LONGEST_GRACE_S)
        if self._waiting is None:
            return
        if self.prolong is not None and self._loop.time() >= self.until:
            self.until = self.prolong()
        if self._loop.time() < self.until:
            self._arm()
            return
        self._expired = True
        self._waiting.cancel()


MAX_TEXT = 256 << 10
"""Characters of an answer's text that are read; a longer one ends as cut."""
MAX_THINKING = 256 << 10
"""Characters of an answer's thinking that are read."""
MAX_TOOL_ARGUMENTS = 256 << 10
"""Characters of the names and arguments of all tool calls of an answer."""


class AnswerBounds:
    """Counts down how much of an answer may still be read."""

    def __init__(self) -> None:
        self._text_left = MAX_TEXT
        self._thinking_left = MAX_THINKING
        self._arguments_left = MAX_TOOL_ARGUMENTS

    def take(self, event: ModelResponseStreamEvent) -> str | None:
        """Counts an event; returns the bound that it exceeds, in words for operators."""
        match event:
            case (
                PartDeltaEvent(delta=TextPartDelta(content_delta=piece)) | PartStartEvent(part=TextPart(content=piece))
            ):
                self._text_left -= len(piece or "")
                return "more than 256 KiB of text" if self._text_left < 0 else None
            case (
                PartDeltaEvent(delta=ThinkingPartDelta(content_delta=piece))
                | PartStartEvent(part=ThinkingPart(content=piece))
            ):
                self._thinking_left -= len(piece or "")
                return "more than 256 KiB of thinking" if self._thinking_left < 0 else None
            case (
                PartDeltaEvent(delta=ToolCallPartDelta(tool_name_delta=name, args_delta=arguments))
                | PartStartEvent(part=ToolCallPart(tool_name=name, args=arguments))
            ):
                self._arguments_left -= len(name or "") + _length(arguments)
                return "more than 256 KiB of tool arguments" if self._arguments_left < 0 else None
            case _:
                return None


def _length(arguments: object) -> int:
    return 0 if arguments is None else len(arguments) if isinstance(arguments, str) else len(str(arguments))
