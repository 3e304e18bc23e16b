"""A candidate's stream: buffered until its first output, then passed on under the provider's deadlines."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol, Self

from pydantic_ai.exceptions import ModelAPIError, ModelRequestTimeout
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponsePart,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
)
from pydantic_ai.models import StreamedResponse
from pydantic_ai.usage import RequestUsage

from services.llm.models.deadline import Deadline
from services.llm.providers.tolerant_streams import FinishKnown
from services.llm.request import Candidate
from services.llm.routing.attempts import Attempt
from services.llm.routing.outcomes import AnswerGivenUp, EmptyAnswer, classify
from services.llm.routing.refusal_words import Fault
from services.llm.transport_errors import is_too_large
from services.llm.usage.report import TokenUse, used_partly, used_whole

Event = ModelResponseStreamEvent

MAX_TEXT = 1 << 20
"""Characters of an answer that are read; a longer one ends as cut."""
AFTER_FINISH_S = 2.0
"""Longest time that a stream may take from its finish reason to its usage and end marker."""
GIVEN_UP = frozenset({"error", "abort", "insufficient_system_resource", "OTHER", "FINISH_REASON_UNSPECIFIED"})
"""Finish reasons of an unfinished answer that the library does not map: OpenRouter's and LiteLLM's, vLLM's, DeepSeek's,
Google's."""


class Listener(Protocol):
    """Receives the text of an answer as it is streamed."""

    def begin_part(self) -> None:
        """Start another part of the answer, such as the text after a tool call."""
        ...

    def write(self, piece: str) -> None:
        """Append a piece of text."""
        ...


def is_answer(part: ModelResponsePart) -> bool:
    """Return whether a part is shown to a user or acted on by an agent; thinking and white space are not."""
    match part:
        case TextPart(content=text):
            return bool(text.strip())
        case ThinkingPart():
            return False
        case _:
            return True


def emptiness(parts: Sequence[ModelResponsePart]) -> str:
    """Return the reason why parts contain no answer."""
    return "only thinking, no answer" if any(isinstance(part, ThinkingPart) for part in parts) else "empty answer"


def refusal(details: dict[str, Any] | None) -> str:
    """Return the provider's own words about its refusal, or a default."""
    words = (details or {}).get("refusal")
    return str(words) if words else "its content filter stopped the answer"


def unfinished_reason(reason: str | None, details: dict[str, Any] | None) -> str | None:
    """Return why a provider did not finish its answer; None if it did.

    Args:
        reason: the finish reason as the library maps it, None where it has no mapping.
        details: the response's details, with the provider's own finish reason.
    """
    named = (details or {}).get("finish_reason")
    if reason == "error" or (reason is None and named in GIVEN_UP):
        return f"gave its answer up ({named})" if named in GIVEN_UP else "gave its answer up"
    return None


@dataclass(frozen=True, slots=True)
class OpenedStream:
    """A stream up to its first output; `held` is empty where the provider's filter refused."""

    response: StreamedResponse
    events: AsyncIterator[Event]
    held: deque[Event]


async def open_stream(
    stack: AsyncExitStack, opening: AbstractAsyncContextManager[StreamedResponse], candidate: Candidate
) -> OpenedStream:
    """Wait for the first output of a stream. Nothing was passed on yet, so another candidate can still answer.

    Args:
        stack: owns the stream.
        opening: the result of `request_stream` of the candidate's model.
        candidate: its timeouts apply.

    Raises:
        ModelRequestTimeout: nothing within the candidate's first-token timeout.
        EmptyAnswer: the stream ended without output.
    """
    timeout_s = min(candidate.provider.first_token_timeout_s, candidate.provider.timeout_s)
    held: deque[Event] = deque()
    try:
        async with asyncio.timeout(timeout_s):
            response = await stack.enter_async_context(opening)
            events = aiter(response)
            async for event in events:
                if not _is_thinking_delta(event):
                    # Thinking is in the response, and is shown to no consumer.
                    held.append(event)
                if _is_output(event):
                    return OpenedStream(response, events, held)
    except TimeoutError as error:
        raise ModelRequestTimeout(candidate.model, timeout_s, setting="first_event_timeout") from error
    except Exception as error:
        if is_too_large(error):
            raise EmptyAnswer("no answer within 8 MiB", RequestUsage()) from error
        raise
    if response.finish_reason == "content_filter":
        return OpenedStream(response, events, deque())
    raise EmptyAnswer(emptiness(response.get().parts), response.usage)


def _is_thinking_delta(event: Event) -> bool:
    return isinstance(event, PartDeltaEvent) and isinstance(event.delta, ThinkingPartDelta)


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


class CommittedStream:
    """The events of a stream after its first output: the buffered ones, then the rest as they arrive.

    The consumer's time between two events counts neither as a stall nor towards the timeout of the whole answer. One
    outcome is recorded: at the end, or with the failure that ends the stream early. A consumer that stops reading
    leaves provider health unchanged.

    A listener gets the text directly, and the consumer only the starts and ends of parts: the library passes each
    event through half a dozen generators, locks and cancel scopes, which cost more than a fifth of a turn. The
    response is assembled all the same.

    Args:
        opened: the stream so far.
        attempt: records the outcome.
        messages: what was sent, to estimate usage that the provider does not report.
        began: the event loop's time at which the request was made.
        listener: receives the text in place of the consumer.
    """

    def __init__(
        self,
        opened: OpenedStream,
        attempt: Attempt,
        messages: Sequence[ModelMessage],
        began: float,
        listener: Listener | None = None,
    ) -> None:
        self._response = opened.response
        self._events = opened.events
        self._held = opened.held
        self._listener = listener
        self._attempt = attempt
        candidate = attempt.candidate
        self._messages = messages
        self._stall_s = candidate.provider.stall_timeout_s
        self._timeout_s = candidate.provider.timeout_s
        self._loop = asyncio.get_running_loop()
        self._deadline = Deadline(self._may_wait_until)
        self._passed_on = self._loop.time()
        self._first_output_s = self._passed_on - began
        self._end_by = began + candidate.provider.timeout_s
        self._stalled_by = self._end_by
        self._over = False
        self._text_left = MAX_TEXT - sum(map(_text_length, opened.held))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event for the consumer.

        Raises:
            AnswerInterrupted: the provider broke off.
            ContentRefused: its filter ended the answer.
        """
        event = await self._next()
        if self._listener is not None:
            while not _is_for_consumer(event, self._listener):
                event = await self._next()
        return event

    async def _next(self) -> Event:
        if self._held:
            return self._held.popleft()
        if self._over:
            raise StopAsyncIteration
        now = self._loop.time()
        self._end_by += now - self._passed_on
        self._stalled_by = now + self._stall_s
        self._deadline.until = min(self._stalled_by, self._end_by, now + AFTER_FINISH_S)
        try:
            with self._deadline:
                event = await anext(self._events)
        except StopAsyncIteration:
            self.close()
            self._end()
            raise
        except Exception as error:
            self.close()
            if self._response.cancelled:
                # The stream was stopped, which closes the connection that is being read.
                raise StopAsyncIteration from error
            if is_too_large(error):
                self._end_as_cut()
                raise StopAsyncIteration from error
            if self._is_finished and classify(error, 0).fault in {Fault.HICCUP, Fault.DOWN}:
                # The answer is complete; only the end marker is missing.
                self._end()
                raise StopAsyncIteration from error
            if isinstance(error, TimeoutError):
                whole = self._end_by <= self._stalled_by
                reason = f"not finished within {self._timeout_s:g} s" if whole else f"stalled for {self._stall_s:g} s"
                raise self._attempt.broke_off(TimeoutError(reason), self._used_partly()) from error
            raise self._attempt.broke_off(error, self._used_partly()) from error
        self._passed_on = self._loop.time()
        self._text_left -= _text_length(event)
        if self._text_left < 0:
            self._end_as_cut()
        return event

    def _end_as_cut(self) -> None:
        """End an answer that exceeds a bound on what is read: it is kept, as one that ended at its length limit."""
        self.close()
        self._response.finish_reason = "length"
        self._attempt.succeeded(self._first_output_s, self._used_partly())

    def close(self) -> None:
        """End the stream and its deadline."""
        self._over = True
        self._deadline.close()

    def leave(self) -> None:
        """Record that the consumer stopped reading, unless an outcome is recorded already."""
        self.close()
        self._attempt.cancel(self._used_partly)

    def _end(self) -> None:
        if self._response.cancelled:
            return
        reason, details = self._response.finish_reason, self._response.provider_details
        if reason == "content_filter":
            raise self._attempt.refused(refusal(details), self._used_partly())
        if failed := unfinished_reason(reason, details):
            raise self._attempt.broke_off(AnswerGivenUp(failed), self._used_partly())
        if not self._is_finished:
            cut = ModelAPIError(self._response.model_name, "the stream ended without a finish_reason")
            raise self._attempt.broke_off(cut, self._used_partly())
        self._attempt.succeeded(self._first_output_s, self._used_whole())

    def _may_wait_until(self) -> float:
        """Return the end of the current wait: now after a finish reason, else at the stall or total timeout."""
        return 0.0 if self._is_finished else min(self._stalled_by, self._end_by)

    @property
    def _is_finished(self) -> bool:
        """True if the provider gave a finish reason, its own wording included, that no text has followed."""
        response = self._response
        if isinstance(response, FinishKnown) and not response.is_finish_reliable:
            return response.is_ended_by_server
        details = response.provider_details or {}
        return response.finish_reason is not None or bool(details.get("finish_reason"))

    def _used_whole(self) -> TokenUse:
        return used_whole(self._response.usage, self._response.get().parts, self._messages)

    def _used_partly(self) -> TokenUse:
        return used_partly(self._response.usage, self._response.get().parts, self._messages)


def _text_length(event: Event) -> int:
    match event:
        case PartDeltaEvent(delta=TextPartDelta(content_delta=piece)) | PartStartEvent(part=TextPart(content=piece)):
            return len(piece)
        case _:
            return 0


def _is_for_consumer(event: Event, listener: Listener) -> bool:
    """Pass an event's text to the listener; returns whether the consumer gets the event as well."""
    match event:
        case PartDeltaEvent(delta=TextPartDelta(content_delta=piece)):
            listener.write(piece)
        case PartStartEvent(part=TextPart(content=piece)):
            listener.begin_part()
            listener.write(piece)
        case _:
            pass
    return not isinstance(event, PartDeltaEvent)
