"""A candidate's stream: held back until its first output, then passed on under the provider's deadlines."""

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

from services.llm.models.deadline import Deadline
from services.llm.request import Candidate
from services.llm.routing.attempts import Attempts
from services.llm.routing.outcomes import AnswerGivenUp, EmptyAnswer, Fault, classify
from services.llm.usage.report import TokenUse, used_partly, used_whole

Event = ModelResponseStreamEvent

AFTER_FINISH_S = 2.0
"""How long a stream that has given its finish reason may take to what it says after it, and to its end marker."""
GIVEN_UP = frozenset({"error", "abort", "insufficient_system_resource", "OTHER", "FINISH_REASON_UNSPECIFIED"})
"""Finish reasons that are none to be content with and that the library does not know: OpenRouter's and LiteLLM's,
vLLM's, DeepSeek's, Google's."""


class Listener(Protocol):
    """Hears the text of an answer while it is made."""

    def begin_part(self) -> None:
        """What comes now is another part of the answer, such as what is said after a tool was used."""
        ...

    def write(self, piece: str) -> None:
        """A piece of text."""
        ...


def is_answer(part: ModelResponsePart) -> bool:
    """Whether a part is something a user gets to see or an agent acts on; thinking and white space are not."""
    match part:
        case TextPart(content=text):
            return bool(text.strip())
        case ThinkingPart():
            return False
        case _:
            return True


def emptiness(parts: Sequence[ModelResponsePart]) -> str:
    """Why parts without an answer in them are none, in a few words."""
    return "only thinking, no answer" if any(isinstance(part, ThinkingPart) for part in parts) else "empty answer"


def refusal(details: dict[str, Any] | None) -> str:
    """What a provider says about its refusal, in its own words where it sent any."""
    words = (details or {}).get("refusal")
    return str(words) if words else "its content filter stopped the answer"


def failed_end(reason: str | None, details: dict[str, Any] | None) -> str | None:
    """Why an answer that ended so was not finished, in a few words; None if it was, as far as its provider says.

    Args:
        reason: the finish reason in the library's words, None where it has none for what came.
        details: the response's, with the reason in the provider's words.
    """
    named = (details or {}).get("finish_reason")
    if reason == "error" or (reason is None and named in GIVEN_UP):
        return f"gave its answer up ({named})" if named in GIVEN_UP else "gave its answer up"
    return None


@dataclass(frozen=True, slots=True)
class OpenedStream:
    """A stream up to its first output; `held` is empty where the provider's filter refused to answer."""

    response: StreamedResponse
    events: AsyncIterator[Event]
    held: deque[Event]


async def open_stream(
    stack: AsyncExitStack, opening: AbstractAsyncContextManager[StreamedResponse], candidate: Candidate
) -> OpenedStream:
    """Wait for the first output of a stream; nobody has seen any of it, so a failure may be tried elsewhere.

    Args:
        stack: closes the stream.
        opening: what `request_stream` of the candidate's model returned.
        candidate: for its deadline.

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
                held.append(event)
                if _is_output(event):
                    return OpenedStream(response, events, held)
    except TimeoutError as error:
        raise ModelRequestTimeout(candidate.model, timeout_s, setting="first_event_timeout") from error
    if response.finish_reason == "content_filter":
        return OpenedStream(response, events, deque())
    raise EmptyAnswer(emptiness(response.get().parts), response.usage)


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
    """The events of a stream whose output has begun: first those held back, then the rest as they come.

    The time that the consumer takes between two events does not count, neither as a stall nor against the time for a
    whole answer. The outcome is reported once: at the end, or with the failure that ends it early; a consumer that
    leaves blames nobody.

    With a listener the text goes straight to it, and the consumer is told of where parts begin and end: the library
    passes each event through half a dozen generators, locks and cancel scopes, which cost more than a fifth of a turn.
    The response that is built meanwhile is the same.

    Args:
        opened: the stream so far.
        attempts: learns the outcome.
        candidate: for its stall timeout and its timeout for a whole answer.
        messages: what it was sent.
        began: when the request was made, in the event loop's time.
        listener: hears the text, in place of the consumer.
    """

    def __init__(
        self,
        opened: OpenedStream,
        attempts: Attempts,
        candidate: Candidate,
        messages: Sequence[ModelMessage],
        began: float,
        listener: Listener | None = None,
    ) -> None:
        self._response = opened.response
        self._events = opened.events
        self._held = opened.held
        self._listener = listener
        self._attempts = attempts
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

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event that is the consumer's.

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
                # Somebody stopped the stream, which tears the connection down under whoever reads it.
                raise StopAsyncIteration from error
            if self._is_finished and classify(error, 0).fault in {Fault.HICCUP, Fault.DOWN}:
                # The answer is whole: what is missing is the end marker.
                self._end()
                raise StopAsyncIteration from error
            if isinstance(error, TimeoutError):
                whole = self._end_by <= self._stalled_by
                reason = f"not finished within {self._timeout_s:g} s" if whole else f"stalled for {self._stall_s:g} s"
                raise self._attempts.broke_off(TimeoutError(reason), self._used_partly()) from error
            raise self._attempts.broke_off(error, self._used_partly()) from error
        self._passed_on = self._loop.time()
        return event

    def close(self) -> None:
        """Nothing more comes."""
        self._over = True
        self._deadline.close()

    def leave(self) -> None:
        """Nobody reads on; after an outcome there is nothing left to leave."""
        self.close()
        self._attempts.left(self._used_partly)

    def _end(self) -> None:
        if self._response.cancelled:
            return
        reason, details = self._response.finish_reason, self._response.provider_details
        if reason == "content_filter":
            raise self._attempts.refused(refusal(details), self._used_partly())
        if failed := failed_end(reason, details):
            raise self._attempts.broke_off(AnswerGivenUp(failed), self._used_partly())
        if not self._is_finished:
            cut = ModelAPIError(self._response.model_name, "the stream ended without a finish_reason")
            raise self._attempts.broke_off(cut, self._used_partly())
        self._attempts.succeeded(self._first_output_s, self._used_whole())

    def _may_wait_until(self) -> float:
        """A stream that has said why it ends need not be waited for; one that has not, as long as it may be silent."""
        return 0.0 if self._is_finished else min(self._stalled_by, self._end_by)

    @property
    def _is_finished(self) -> bool:
        """Whether the provider has said why the answer ends, be it in words of its own."""
        details = self._response.provider_details or {}
        return self._response.finish_reason is not None or bool(details.get("finish_reason"))

    def _used_whole(self) -> TokenUse:
        return used_whole(self._response.usage, self._response.get().parts, self._messages)

    def _used_partly(self) -> TokenUse:
        return used_partly(self._response.usage, self._response.get().parts, self._messages)


def _is_for_consumer(event: Event, listener: Listener) -> bool:
    """Tell the listener what it hears of an event, and whether the consumer has a use for the event as well."""
    match event:
        case PartDeltaEvent(delta=TextPartDelta(content_delta=piece)):
            listener.write(piece)
        case PartStartEvent(part=TextPart(content=piece)):
            listener.begin_part()
            listener.write(piece)
        case _:
            pass
    return not isinstance(event, PartDeltaEvent)
