"""Streams after their first output: read under deadlines and passed on, with one outcome recorded at the end."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Protocol, Self

from pydantic_ai.messages import (
    ModelMessage,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
)
from pydantic_ai.models import StreamedResponse

from core.transport_errors import is_too_large
from services.llm.models.bounds import Deadline
from services.llm.models.stream_start import (
    AFTER_FINISH_S,
    Event,
    OpenedStream,
    StreamStart,
    is_finished,
    lacks_end_marker_only,
    refusal,
    require_finish,
    unfinished_reason,
)
from services.llm.providers.wire.event_stream import Pacing
from services.llm.request import Candidate
from services.llm.routing.attempts import Attempt
from services.llm.routing.faults.reasons import AnswerGivenUp
from services.llm.usage import TokenUse, used_partly, used_whole


class Listener(Protocol):
    """Receives the text of an answer as it is streamed."""

    @property
    def window_s(self) -> float:
        """Longest time for which text may be held, to come together with the text that follows; 0: none."""
        ...

    def begin_part(self) -> None:
        """Starts another part of the answer, such as the text after a tool call."""
        ...

    def write(self, piece: str) -> None:
        """Appends a piece of text."""
        ...


class StreamReader:
    """Reads a stream from its first output to its end, under the deadlines of its provider.

    The consumer's time between two events counts neither as a stall nor towards the longest time in all.

    Args:
        opened: the stream so far.
        candidate: candidate whose stall timeout applies.
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


class CommittedStream:
    """The events of a stream after its first output: the buffered ones, then the rest as they arrive.

    One outcome is recorded: at the end, or with the failure that ends the stream early. A consumer that stops reading
    leaves provider health unchanged.

    A listener gets the text directly, and the consumer only the starts and ends of parts: the library passes each
    event through half a dozen generators, locks and cancel scopes, which cost more than a fifth of a turn. The
    response is assembled all the same.

    Args:
        start: the stream so far.
        attempt: records the outcome.
        messages: the sent messages, to estimate usage that the provider does not report.
        listener: receives the text in place of the consumer.
    """

    def __init__(
        self,
        start: StreamStart,
        attempt: Attempt,
        messages: Sequence[ModelMessage],
        listener: Listener | None = None,
    ) -> None:
        opened = start.opened
        self._reader: StreamReader | None = StreamReader(
            opened, attempt.candidate, start.began, attempt.longest_stream_s, start.pacing
        )
        """None once the stream was left: the response holds this object, and the cycle would outlast the request."""
        if listener is not None:
            start.hold_text(listener.window_s, attempt.candidate)
        self._listener = listener
        self._attempt = attempt
        self._messages = messages
        self._first_output_s = opened.first_output_at - start.began
        self._is_recorded = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Returns the next event for the consumer.

        Raises:
            AnswerInterrupted: the provider broke off.
            ContentRefused: its filter ended the answer.
        """
        listener = self._listener
        while (reader := self._reader) is not None:
            try:
                event = await reader.read()
            except StopAsyncIteration:
                self._end(reader.response)
                raise
            except Exception as error:
                # A consumer that reads on finds the end, which is no answer then.
                self._is_recorded = True
                raise self._attempt.broke_off(error, self._used_partly(reader.response)) from error
            if listener is None or _is_for_consumer(event, listener):
                return event
        raise StopAsyncIteration

    def leave(self) -> None:
        """Records that the consumer stopped reading, unless an outcome is recorded already; no event follows."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
            self._attempt.cancel(partial(self._used_partly, reader.response))

    def _end(self, response: StreamedResponse) -> None:
        if response.cancelled or self._is_recorded:
            return
        self._is_recorded = True
        if response.finish_reason == "content_filter":
            raise self._attempt.refused(refusal(response.provider_details), self._used_partly(response))
        self._attempt.succeeded(self._first_output_s, used_whole(response.usage, response.get().parts, self._messages))

    def _used_partly(self, response: StreamedResponse) -> TokenUse:
        return used_partly(response.usage, response.get().parts, self._messages)


def _is_for_consumer(event: Event, listener: Listener) -> bool:
    """Passes an event's text to the listener; returns whether the consumer gets the event as well."""
    match event:
        case PartDeltaEvent(delta=TextPartDelta(content_delta=piece)):
            listener.write(piece)
        case PartStartEvent(part=TextPart(content=piece)):
            listener.begin_part()
            listener.write(piece)
        case _:
            pass
    return not isinstance(event, PartDeltaEvent)
