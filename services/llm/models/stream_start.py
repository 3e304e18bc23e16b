"""Reads a candidate's stream up to its first text: until then, another candidate can still answer.

The end of a stream tells whether it is an answer: with output or without, finished, given up or refused.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any

from pydantic_ai.exceptions import ModelAPIError, ModelRequestTimeout
from pydantic_ai.messages import (
    ModelResponsePart,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
)
from pydantic_ai.models import StreamedResponse
from pydantic_ai.usage import RequestUsage

from core.transport_errors import is_too_large
from services.llm.models.bounds import AnswerBounds, Deadline
from services.llm.providers.wire.event_stream import Pacing
from services.llm.providers.wire.tolerant_streams import TolerantStream
from services.llm.request import Candidate
from services.llm.routing.faults.outcomes import classify
from services.llm.routing.faults.reasons import AnswerGivenUp, EmptyAnswer
from services.llm.routing.faults.refusal_words import Fault

Event = ModelResponseStreamEvent
AFTER_FINISH_S = 2.0
"""Longest time that a stream may take from its finish reason to its usage and end marker."""
GIVEN_UP = frozenset({"error", "abort", "insufficient_system_resource", "OTHER", "FINISH_REASON_UNSPECIFIED"})
"""Finish reasons of an unfinished answer that the library does not map: OpenRouter's and LiteLLM's, vLLM's, DeepSeek's,
Google's."""


@dataclass(frozen=True, slots=True)
class OpenedStream:
    """A stream up to its first text, or to its end where it calls tools only.

    Args:
        held: the events so far; empty where the provider's filter refused.
        first_output_at: the event loop's time.
        bounds: the output that may still be read.
    """

    response: StreamedResponse
    events: AsyncIterator[Event]
    held: deque[Event]
    first_output_at: float
    bounds: AnswerBounds


@dataclass(frozen=True, slots=True)
class StreamStart:
    """A stream after its first output, the event loop's time at which it was requested, and the pace of its rest."""

    opened: OpenedStream
    began: float
    pacing: Pacing

    def hold_text(self, window_s: float, candidate: Candidate) -> None:
        """Holds text for up to a window from now on, which stays far below the stall deadline."""
        self.pacing.window_s = min(window_s, candidate.provider.stall_timeout_s / 4)


async def open_stream(
    stack: AsyncExitStack,
    opening: AbstractAsyncContextManager[StreamedResponse],
    candidate: Candidate,
    timeout_s: float,
    *,
    longest_s: float,
    may_be_empty_at: Collection[str] = (),
) -> OpenedStream:
    """Reads a stream up to its first text. Nothing was passed on yet, so another candidate can still answer.

    Thinking ends the wait for the first output: from then on the stall timeout of the provider applies. A tool call
    commits to nothing before it is complete, so a stream without text is read to its end.

    Args:
        stack: owns the stream.
        opening: the result of `request_stream` of the candidate's model.
        candidate: candidate whose stall timeout applies after the first output.
        timeout_s: longest time to the first output, thinking included.
        longest_s: longest time to the first text.
        may_be_empty_at: finish reasons with which a stream may be without output.

    Raises:
        ModelRequestTimeout: nothing within the timeout.
        EmptyAnswer: the stream ended without output, or exceeds a bound before it.
        AnswerGivenUp: its provider reports that it did not finish.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + timeout_s
    deadline = Deadline()
    deadline.until = ends_at
    first: _OpeningReader | None = None
    try:
        with deadline:
            response = await stack.enter_async_context(opening)
        first = _OpeningReader(response, ends_at, candidate.provider.stall_timeout_s, loop.time() + longest_s)
        await first.read()
    except TimeoutError as error:
        if first is not None and first.has_begun:
            raise TimeoutError(f"stalled for {candidate.provider.stall_timeout_s:g} s") from error
        raise ModelRequestTimeout(candidate.model, timeout_s, setting="first_event_timeout") from error
    except Exception as error:
        if not is_too_large(error):
            raise
        raise EmptyAnswer("no answer within 8 MiB", RequestUsage()) from error
    finally:
        deadline.close()
    return first.result(may_be_empty_at)


class _OpeningReader:
    """Reads a stream up to its first text or to its end, under the deadline to its first output."""

    def __init__(self, response: StreamedResponse, ends_at: float, stall_s: float, latest_end: float) -> None:
        self.output_at: float | None = None
        """The event loop's time of the first output."""
        self._response = response
        self._events = aiter(response)
        self._loop = asyncio.get_running_loop()
        self._deadline = Deadline(self._may_wait_until)
        self._ends_at = ends_at
        self._stall_s = stall_s
        self._latest_end = max(ends_at, latest_end)
        self.has_begun = False
        """True after the first output or thinking."""
        self._silent_until: float | None = None
        """The end of the silence that a finish reason allows, once one was seen."""
        self._held: deque[Event] = deque()
        self._bounds = AnswerBounds()
        self._has_text = False

    async def read(self) -> None:
        """Reads until the first text, the end, or two seconds of silence after a finish reason."""
        response = self._response
        try:
            while not self._has_text and (event := await self._next()) is not None:
                self._take(event)
        except Exception as error:
            if not lacks_end_marker_only(response, error):
                raise
            self._events = _no_events()
            for event in response.end_text() if isinstance(response, TolerantStream) else ():
                self._take(event)
        finally:
            self._deadline.close()

    def result(self, may_be_empty_at: Collection[str]) -> OpenedStream:
        """Returns the stream so far.

        Raises:
            EmptyAnswer: it ended without output.
            AnswerGivenUp: its provider reports that it did not finish.
        """
        response = self._response
        if not self._has_text:
            if response.finish_reason == "content_filter":
                self._held.clear()
            else:
                _require_output(response, may_be_empty_at, has_output=self.output_at is not None)
        return OpenedStream(response, self._events, self._held, self.output_at or self._loop.time(), self._bounds)

    async def _next(self) -> Event | None:
        self._silent_until = None
        self._deadline.until = min(self._ends_at, self._loop.time() + AFTER_FINISH_S)
        with self._deadline:
            return await anext(self._events, None)

    def _may_wait_until(self) -> float:
        now = self._loop.time()
        if is_finished(self._response):
            self._silent_until = self._silent_until or now + AFTER_FINISH_S
            return min(self._silent_until, self._ends_at)
        return min(self._ends_at, now + AFTER_FINISH_S)

    def _take(self, event: Event) -> None:
        if exceeded := self._bounds.take(event):
            raise EmptyAnswer(exceeded, self._response.usage)
        # Thinking is in the response, and is shown to no consumer.
        if not (isinstance(event, PartDeltaEvent) and isinstance(event.delta, ThinkingPartDelta)):
            self._held.append(event)
        is_output = _is_output(event)
        if not (is_output or _is_thinking(event)):
            return
        self.has_begun = True
        self._ends_at = min(self._loop.time() + self._stall_s, self._latest_end)
        if is_output:
            self.output_at = self.output_at or self._loop.time()
            self._has_text = _is_text(event)


async def _no_events() -> AsyncIterator[Event]:
    """Yields nothing."""
    return
    yield


def _require_output(response: StreamedResponse, may_be_empty_at: Collection[str], *, has_output: bool) -> None:
    if has_output:
        require_finish(response)
        if response.finish_reason == "length" and _ends_in_half_call(response.get().parts):
            raise AnswerGivenUp("cut within a tool call", response.usage)
    elif response.finish_reason not in may_be_empty_at:
        raise EmptyAnswer(emptiness(response.get().parts), response.usage)


def _ends_in_half_call(parts: Sequence[ModelResponsePart]) -> bool:
    """Returns whether the last part is a tool call with arguments that break off."""
    if not parts or not isinstance(parts[-1], ToolCallPart) or not isinstance(parts[-1].args, str):
        return False
    try:
        json.loads(parts[-1].args or "{}")
    except ValueError:
        return True
    return False


def _is_text(event: Event) -> bool:
    match event:
        case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return bool(text.strip())
        case _:
            return False


def _is_thinking(event: Event) -> bool:
    match event:
        case (
            PartStartEvent(part=ThinkingPart(content=text))
            | PartDeltaEvent(delta=ThinkingPartDelta(content_delta=text))
        ):
            return bool(text)
        case _:
            return False


def _is_output(event: Event) -> bool:
    match event:
        case PartStartEvent(part=part):
            return is_answer(part)
        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return bool(text.strip())
        case PartDeltaEvent(delta=delta):
            return not isinstance(delta, ThinkingPartDelta)
        case _:
            return False


def is_answer(part: ModelResponsePart) -> bool:
    """Returns whether a part is shown to a user or acted on by an agent; thinking and white space are not."""
    match part:
        case TextPart(content=text):
            return bool(text.strip())
        case ThinkingPart():
            return False
        case _:
            return True


def emptiness(parts: Sequence[ModelResponsePart]) -> str:
    """Returns the reason why parts contain no answer."""
    return "only thinking, no answer" if any(isinstance(part, ThinkingPart) for part in parts) else "empty answer"


def refusal(details: dict[str, Any] | None) -> str:
    """Returns the provider's own words about its refusal, or a default."""
    words = (details or {}).get("refusal")
    return str(words) if words else "its content filter stopped the answer"


def unfinished_reason(reason: str | None, details: dict[str, Any] | None) -> str | None:
    """Returns why a provider did not finish its answer; None if it did.

    Args:
        reason: the finish reason as the library maps it, None where it has no mapping.
        details: the response's details, with the provider's own finish reason.
    """
    named = (details or {}).get("finish_reason")
    if reason == "error" or (reason is None and named in GIVEN_UP):
        return f"gave its answer up ({named})" if named in GIVEN_UP else "gave its answer up"
    return None


def is_finished(response: StreamedResponse) -> bool:
    """Returns whether a provider gave a finish reason, its own wording included, that no text has followed."""
    if isinstance(response, TolerantStream) and not response.is_finish_reliable:
        return response.is_ended_by_server
    return response.finish_reason is not None or bool((response.provider_details or {}).get("finish_reason"))


def lacks_end_marker_only(response: StreamedResponse, error: Exception) -> bool:
    """Returns whether a stream that broke off, or fell silent, was finished by its provider before."""
    return is_finished(response) and classify(error, 0).fault in {Fault.HICCUP, Fault.DOWN}


def require_finish(response: StreamedResponse) -> None:
    """Checks that a stream that has ended was finished by its provider.

    Raises:
        AnswerGivenUp: its provider reports that it did not finish.
        ModelAPIError: it ended without a finish reason.
    """
    if response.cancelled or response.finish_reason == "content_filter":
        return
    if failed := unfinished_reason(response.finish_reason, response.provider_details):
        raise AnswerGivenUp(failed)
    if not is_finished(response):
        raise ModelAPIError(response.model_name, "the stream ended without a finish_reason")
