"""Reads a candidate's stream: up to its first text, while another candidate can still answer, then to its end.

The end of a stream tells whether it is an answer: with output or without, finished, given up or refused.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
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
    ToolCallPartDelta,
)
from pydantic_ai.models import StreamedResponse
from pydantic_ai.usage import RequestUsage

from core.clock import Deadline
from core.transport_errors import is_too_large
from services.llm.providers.wire.event_stream import Pacing
from services.llm.providers.wire.tolerant_streams import TolerantStream
from services.llm.request import Candidate
from services.llm.routing.faults.outcomes import classify
from services.llm.routing.faults.reasons import AnswerGivenUp, EmptyAnswer
from services.llm.routing.faults.refusal_words import Fault

Event = ModelResponseStreamEvent
AFTER_FINISH_S = 2.0
"""Longest time that a stream may take from its finish reason to its usage and end marker."""
MAX_TEXT = 256 << 10
"""Characters of an answer's text that are read, of its thinking, and of the names and arguments of its tool calls; an
answer with more ends as cut."""
GIVEN_UP = frozenset({"error", "abort", "insufficient_system_resource", "OTHER", "FINISH_REASON_UNSPECIFIED"})
"""Finish reasons of an unfinished answer that the library does not map: OpenRouter's and LiteLLM's, vLLM's, DeepSeek's,
Google's."""


class StreamReader:
    """Reads the stream of one request, under the deadlines of its provider.

    The consumer's time between two events counts neither as a stall nor towards the longest time in all.

    Args:
        candidate: candidate whose stall timeout applies after the first output.
        longest_s: longest time in all.
        pacing: the pace at which the stream is handed on.
    """

    response: StreamedResponse
    """Set once the stream is open."""

    def __init__(self, candidate: Candidate, longest_s: float, pacing: Pacing) -> None:
        self._candidate = candidate
        self._stall_s = candidate.provider.stall_timeout_s
        self._longest_s = longest_s
        self._pacing = pacing
        self._loop = asyncio.get_running_loop()
        self.began = self._loop.time()
        """The event loop's time at which the request was made."""
        self.held: deque[Event] = deque()
        """The events up to the first text, for the consumer; empty where the provider's filter refused."""
        self.output_at: float | None = None
        """The event loop's time of the first output."""
        self.is_over = False
        self._lengths = {"text": 0, "thinking": 0, "tool arguments": 0}
        self._has_begun = False
        """True after the first output or thinking."""
        self._has_text = False
        self._silent_until: float | None = None
        """The end of the silence that a finish reason allows, once one was seen before the first text."""
        self._passed_on = self.began
        self._end_by = self._stalled_by = self.began + longest_s

    @property
    def first_output_s(self) -> float:
        """The time from the request to the first output, in seconds."""
        return (self.output_at or self._loop.time()) - self.began

    def hold_text(self, window_s: float) -> None:
        """Holds text for up to a window from now on, which stays far below the stall deadline."""
        self._pacing.window_s = min(window_s, self._stall_s / 4)

    async def open(
        self,
        stack: AsyncExitStack,
        opening: AbstractAsyncContextManager[StreamedResponse],
        timeout_s: float,
        may_be_empty_at: Collection[str] = (),
    ) -> None:
        """Reads the stream up to its first text. Nothing was passed on yet, so another candidate can still answer.

        Thinking ends the wait for the first output: from then on the stall timeout of the provider applies. A tool call
        commits to nothing before it is complete, so a stream without text is read to its end.

        Args:
            stack: owns the stream.
            opening: the result of `request_stream` of the candidate's model.
            timeout_s: longest time to the first output, thinking included.
            may_be_empty_at: finish reasons with which a stream may be without output.

        Raises:
            ModelRequestTimeout: nothing within the timeout.
            EmptyAnswer: the stream ended without output, or exceeds a bound before it.
            AnswerGivenUp: its provider reports that it did not finish.
        """
        deadline = Deadline()
        self._text_by = deadline.until = self._loop.time() + timeout_s
        try:
            with deadline:
                self.response = await stack.enter_async_context(opening)
            self._events = aiter(self.response)
            self._latest_text = max(self._text_by, self._loop.time() + self._longest_s)
            deadline.prolong = self._may_wait_for_text_until
            await self._read_beginning(deadline)
        except TimeoutError as error:
            if self._has_begun:
                raise TimeoutError(f"stalled for {self._stall_s:g} s") from error
            raise ModelRequestTimeout(self._candidate.model, timeout_s, setting="first_event_timeout") from error
        except Exception as error:
            if not is_too_large(error):
                raise
            raise EmptyAnswer("no answer within 8 MiB", RequestUsage()) from error
        finally:
            deadline.close()
        if not self._has_text:
            if self.response.finish_reason == "content_filter":
                self.held.clear()
            else:
                _require_output(self.response, may_be_empty_at, has_output=self.output_at is not None)
        self._passed_on = self._loop.time()
        self.output_at = self.output_at or self._passed_on
        self._deadline = Deadline(self._may_wait_until)

    async def _read_beginning(self, deadline: Deadline) -> None:
        """Reads until the first text, the end, or two seconds of silence after a finish reason."""
        try:
            while not self._has_text:
                self._silent_until = None
                deadline.until = min(self._text_by, self._loop.time() + AFTER_FINISH_S)
                with deadline:
                    event = await anext(self._events, None)
                if event is None:
                    return
                self._take(event)
        except Exception as error:
            response = self.response
            if not lacks_end_marker_only(response, error):
                raise
            self._events = _no_events()
            for event in response.end_text() if isinstance(response, TolerantStream) else ():
                self._take(event)

    def _take(self, event: Event) -> None:
        """Holds an event of the beginning; thinking is in the response, and is shown to no consumer."""
        if exceeded := self._count(event):
            raise EmptyAnswer(exceeded, self.response.usage)
        is_output = is_hidden = False
        match event:
            case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=thought)):
                is_hidden, has_content = True, bool(thought)
            case PartStartEvent(part=ThinkingPart(content=thought)):
                has_content = bool(thought)
            case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                has_content = is_output = bool(text.strip())
                self._has_text = self._has_text or is_output
            case _:
                has_content = is_output = isinstance(event, PartStartEvent | PartDeltaEvent)
        if not is_hidden:
            self.held.append(event)
        if has_content:
            self._has_begun = True
            self._text_by = min(self._loop.time() + self._stall_s, self._latest_text)
        if is_output:
            self.output_at = self.output_at or self._loop.time()

    def _may_wait_for_text_until(self) -> float:
        now = self._loop.time()
        if is_finished(self.response):
            self._silent_until = self._silent_until or now + AFTER_FINISH_S
            return min(self._silent_until, self._text_by)
        return min(self._text_by, now + AFTER_FINISH_S)

    async def read(self) -> Event:
        """Returns the next event.

        Raises:
            StopAsyncIteration: the answer is complete, or ended at a bound: then its finish reason is `length`.
            TimeoutError: the stream stalled, or takes too long in all.
            Exception: the stream ended otherwise, or without a finish reason.
        """
        if self.held:
            return self.held.popleft()
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
        if exceeded := self._count(event):
            self._end_as_cut(exceeded)
        return event

    def close(self) -> None:
        """Ends the stream and its deadline."""
        self.is_over = True
        self._deadline.close()

    def _count(self, event: Event) -> str | None:
        """Counts the characters of an event; returns the bound that they exceed, in words for operators."""
        match event:
            case PartDeltaEvent(delta=TextPartDelta(content_delta=text)) | PartStartEvent(part=TextPart(content=text)):
                kind, length = "text", len(text or "")
            case (
                PartDeltaEvent(delta=ThinkingPartDelta(content_delta=thought))
                | PartStartEvent(part=ThinkingPart(content=thought))
            ):
                kind, length = "thinking", len(thought or "")
            case (
                PartDeltaEvent(delta=ToolCallPartDelta(tool_name_delta=name, args_delta=arguments))
                | PartStartEvent(part=ToolCallPart(tool_name=name, args=arguments))
            ):
                kind, length = "tool arguments", len(name or "") + len(str(arguments or ""))
            case _:
                return None
        self._lengths[kind] += length
        return f"more than 256 KiB of {kind}" if self._lengths[kind] > MAX_TEXT else None

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
