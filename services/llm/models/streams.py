"""A stream that was committed by its first output: passed on to its consumer, with one outcome recorded at its end."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol, Self

from pydantic_ai.messages import (
    ModelMessage,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.models import StreamedResponse

from services.llm.models.candidate_call import StreamStart
from services.llm.models.stream_ends import refusal
from services.llm.models.stream_reader import StreamReader
from services.llm.models.stream_start import Event
from services.llm.routing.attempts import Attempt
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
