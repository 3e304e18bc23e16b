"""Reads a stream from its first output to its end, under the deadlines of its provider."""

import asyncio

from pydantic_ai.messages import ToolCallPart

from core.transport_errors import is_too_large
from services.llm.models.bounds import Deadline
from services.llm.models.stream_ends import (
    AFTER_FINISH_S,
    is_finished,
    lacks_end_marker_only,
    require_finish,
    unfinished_reason,
)
from services.llm.models.stream_start import Event, OpenedStream
from services.llm.providers.wire.response_hooks import Pacing
from services.llm.request import Candidate
from services.llm.routing.faults.reasons import AnswerGivenUp


class StreamReader:
    """Reads a stream from its first output to its end, under the deadlines of its provider.

    The consumer's time between two events counts neither as a stall nor towards the longest time in all.

    Args:
        opened: the stream so far.
        candidate: its stall timeout applies.
        began: the event loop's time at which the request was made.
        longest_s: longest time in all.
        pacing: the pace at which it is handed on.
    """

    def __init__(
        self, opened: OpenedStream, candidate: Candidate, began: float, longest_s: float, pacing: Pacing
    ) -> None:
        self.response = opened.response
        self._pacing = pacing
        self.is_over = False
        self._events = opened.events
        self._held = opened.held
        self._stall_s = candidate.provider.stall_timeout_s
        self._longest_s = longest_s
        self._loop = asyncio.get_running_loop()
        self._deadline = Deadline(self._may_wait_until)
        self._passed_on = self._loop.time()
        self._end_by = began + longest_s
        self._stalled_by = self._end_by
        self._bounds = opened.bounds

    async def read(self) -> Event:
        """Returns the next event.

        Raises:
            StopAsyncIteration: the answer is complete, or ended at a bound: then its finish reason is `length`.
            TimeoutError: the stream stalled, or takes too long in all.
            Exception: the stream ended otherwise, or without a finish reason.
        """
        if self._held:
            return self._held.popleft()
        if self.is_over:
            raise StopAsyncIteration
        now = self._loop.time()
        self._end_by += now - self._passed_on
        self._stalled_by = now + self._stall_s - self._pacing.held_s
        self._deadline.until = min(self._stalled_by, self._end_by, now + AFTER_FINISH_S)
        try:
            with self._deadline:
                event = await anext(self._events)
        except StopAsyncIteration:
            self.close()
            require_finish(self.response)
            raise
        except Exception as error:
            self.close()
            self._translate(error)
            raise
        self._passed_on = self._loop.time()
        if exceeded := self._bounds.take(event):
            self._end_as_cut(exceeded)
        return event

    def close(self) -> None:
        """Ends the stream and its deadline."""
        self.is_over = True
        self._deadline.close()

    def _translate(self, error: Exception) -> None:
        """Raises the error that tells more about a stream that ended early; returns where there is none.

        Raises:
            StopAsyncIteration: its answer counts as complete.
            AnswerGivenUp: its provider reports that it did not finish.
            TimeoutError: the deadline that has passed.
        """
        if self.response.cancelled:
            # The stream was stopped, which closes the connection that is being read.
            raise StopAsyncIteration from error
        if is_too_large(error):
            self._end_as_cut("more than 8 MiB in all")
            raise StopAsyncIteration from error
        if lacks_end_marker_only(self.response, error):
            failed = unfinished_reason(self.response.finish_reason, self.response.provider_details)
            if failed:
                raise AnswerGivenUp(failed, self.response.usage) from error
            raise StopAsyncIteration from error
        if isinstance(error, TimeoutError):
            is_whole = self._end_by <= self._stalled_by
            raise TimeoutError(
                f"not finished within {self._longest_s:g} s" if is_whole else f"stalled for {self._stall_s:g} s"
            ) from error

    def _end_as_cut(self, exceeded: str) -> None:
        """Ends an answer that exceeds a bound of its size: it is kept, as one that ended at its length limit.

        Raises:
            AnswerGivenUp: it ended within a tool call, which cannot be run.
        """
        self.close()
        parts = self.response.get().parts
        if parts and isinstance(parts[-1], ToolCallPart):
            raise AnswerGivenUp(exceeded, self.response.usage)
        self.response.finish_reason = "length"

    def _may_wait_until(self) -> float:
        """Returns the end of the current wait: now after a finish reason, else at the stall or total timeout."""
        return 0.0 if is_finished(self.response) else min(self._stalled_by, self._end_by)
