"""One request to one candidate: as its model gets it, sent, and its stream passed on with one outcome at the end."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, Self

import structlog
from pydantic_ai import RunContext
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    InstructionPart,
    ModelMessage,
    ModelRequest,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.native_tools import WebSearchTool
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from services.llm.models.refused_features import complete_stream, open_without_fields
from services.llm.models.stream_reader import Event, StreamReader, refusal
from services.llm.providers.builder import ConnectionsClosed, ModelBuilder
from services.llm.providers.wire.event_stream import pace_responses
from services.llm.request import IS_BACKED, IS_NATIVE, WEB_SEARCH, Adaptation, Candidate, Capability
from services.llm.routing.attempts import Attempt
from services.llm.routing.faults.reasons import ModelNotBuilt
from services.llm.routing.recorder import OutcomeRecorder
from services.llm.usage import TokenUse, used_partly, used_whole

log = structlog.get_logger()

NO_SEARCH = "You cannot search the web. Say so where an answer would need it."


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A request as one candidate's model gets it."""

    model: Model
    messages: list[ModelMessage]
    settings: ModelSettings | None
    parameters: ModelRequestParameters


Prepare = Callable[[Candidate, Adaptation], PreparedCall]
"""Builds the request for a candidate; an error of it is classified like one of the request."""


def build_model(builder: ModelBuilder, candidate: Candidate) -> Model:
    """Returns a candidate's model.

    Raises:
        ModelNotBuilt: the model cannot be built from the provider's settings.
        ConnectionsClosed: the process is ending.
    """
    try:
        return builder.models[candidate.provider, candidate.model]
    except ConnectionsClosed:
        raise
    except Exception as error:
        log.warning(
            "provider.model_not_built",
            provider=candidate.provider.id,
            model=candidate.model,
            error=type(error).__name__,
        )
        raise ModelNotBuilt(error) from error


def known_window(builder: ModelBuilder, candidate: Candidate) -> int | None:
    """Returns a candidate's context window, None where it is unknown or the model cannot be built."""
    try:
        return builder.context_window(candidate.provider, candidate.model)
    except Exception:  # noqa: BLE001 - reported by `build_model` when the candidate is asked
        return None


def sees_images(builder: ModelBuilder, recorder: OutcomeRecorder, candidate: Candidate) -> bool:
    """Returns whether a candidate takes images: its model has vision, and has not refused one."""
    is_refused = Capability.IMAGES in recorder.adaptation(candidate).without
    return not is_refused and builder.sees_images(candidate.provider, candidate.model)


def fit_web_search(
    parameters: ModelRequestParameters, profile: ModelProfile, adaptation: Adaptation
) -> ModelRequestParameters:
    """Returns parameters with the search that fits a model: the provider's, our tool, or a line that there is none."""
    tool = find_search(parameters)
    if tool is None:
        return parameters
    metadata = tool.metadata or {}
    others = [each for each in parameters.function_tools if each is not tool]
    may_be_native = metadata.get(IS_NATIVE, True) and Capability.WEB_SEARCH not in adaptation.without
    if may_be_native and _searches_itself(profile, has_tools=bool(others)):
        native = [*parameters.native_tools, WebSearchTool()]
        return replace(parameters, function_tools=others, native_tools=native)
    if metadata.get(IS_BACKED):
        return parameters
    told = [*(parameters.instruction_parts or ()), InstructionPart(content=NO_SEARCH)]
    return replace(parameters, function_tools=others, instruction_parts=told)


def find_search(parameters: ModelRequestParameters) -> ToolDefinition | None:
    """Returns our search tool, not one of this name that a client of the API brought."""
    named = (tool for tool in parameters.function_tools if tool.name == WEB_SEARCH)
    return next((tool for tool in named if IS_BACKED in (tool.metadata or {})), None)


def _searches_itself(profile: ModelProfile, *, has_tools: bool) -> bool:
    if WebSearchTool not in profile.get("supported_native_tools", frozenset()):
        return False
    # Gemini before version 3 refuses its own search beside functions.
    return not has_tools or profile.get("google_supports_tool_combination", True)


def has_image(message: ModelMessage) -> bool:
    """Returns whether a message holds an image."""
    return isinstance(message, ModelRequest) and any(
        isinstance(part, UserPromptPart) and not isinstance(part.content, str) and any(map(is_image, part.content))
        for part in message.parts
    )


def is_image(content: object) -> bool:
    """Returns whether a piece of a prompt is an image."""
    return isinstance(content, ImageUrl) or (isinstance(content, BinaryContent) and content.is_image)


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


async def open_stream(
    stack: AsyncExitStack,
    attempt: Attempt,
    prepare: Prepare,
    messages: Sequence[ModelMessage],
    run_context: RunContext[Any] | None,
    *,
    merges_arrivals: bool = False,
) -> StreamReader | None:
    """Opens a stream and waits for its first output; returns None where the next candidate is to be asked.

    Args:
        stack: owns the stream; it is closed before a failure is recorded.
        attempt: records a failure and a refusal.
        prepare: builds the request.
        messages: the sent messages, to estimate usage that the provider does not report.
        run_context: passed on to the model.
        merges_arrivals: whether text that arrives in one read may be one piece.

    Raises:
        ContentRefused: the candidate's filter refused.
    """
    try:
        reader = await start_stream(stack, attempt, prepare, run_context, merges_arrivals=merges_arrivals)
    except Exception as error:  # noqa: BLE001 - `failed` classifies it and re-raises bugs of ours
        await stack.aclose()
        await attempt.failed(error)
        return None
    response = reader.response
    if not reader.held and response.finish_reason == "content_filter":
        raise attempt.refused(refusal(response.provider_details), used_whole(response.usage, (), messages))
    return reader


async def start_stream(
    stack: AsyncExitStack,
    attempt: Attempt,
    prepare: Prepare,
    run_context: RunContext[Any] | None,
    *,
    merges_arrivals: bool,
    may_be_empty_at: Collection[str] = (),
) -> StreamReader:
    """Opens a stream and waits for its first output, which is recorded."""
    call = prepare(attempt.candidate, attempt.adaptation)
    with pace_responses() as pacing:
        pacing.merges_arrivals = merges_arrivals
        reader = StreamReader(attempt.candidate, attempt.longest_stream_s, pacing)
        await reader.open(
            stack,
            _open(attempt, call, run_context),
            _first_output_timeout_s(attempt),
            {*may_be_empty_at, *attempt.may_be_empty_at},
        )
    if reader.held:
        attempt.opened()
    return reader


def _open(
    attempt: Attempt, call: PreparedCall, run_context: RunContext[Any] | None
) -> AbstractAsyncContextManager[StreamedResponse]:
    without = attempt.adaptation.without
    if Capability.STREAMING in without:
        request = partial(call.model.request, call.messages, call.settings, call.parameters)
        return complete_stream(request, attempt.candidate, call.parameters, without)
    opening = call.model.request_stream(call.messages, call.settings, call.parameters, run_context)
    return open_without_fields(opening, without) if without else opening


def _first_output_timeout_s(attempt: Attempt) -> float:
    """Returns the longest time to the first output: the last candidate may use its whole timeout."""
    provider = attempt.candidate.provider
    is_last = not attempt.has_candidates_left or Capability.STREAMING in attempt.adaptation.without
    return provider.timeout_s if is_last else min(provider.first_token_timeout_s, provider.timeout_s)


class CommittedStream:
    """The events of a stream after its first output: the buffered ones, then the rest as they arrive.

    One outcome is recorded: at the end, or with the failure that ends the stream early. A consumer that stops reading
    leaves provider health unchanged.

    A listener gets the text directly, and the consumer only the starts and ends of parts: the library passes each
    event through half a dozen generators, locks and cancel scopes, which cost more than a fifth of a turn. The
    response is assembled all the same.

    Args:
        reader: reads the stream from its first output on.
        attempt: records the outcome.
        messages: the sent messages, to estimate usage that the provider does not report.
        listener: receives the text in place of the consumer.
    """

    def __init__(
        self,
        reader: StreamReader,
        attempt: Attempt,
        messages: Sequence[ModelMessage],
        listener: Listener | None = None,
    ) -> None:
        self._reader: StreamReader | None = reader
        """None once the stream was left: the response holds this object, and the cycle would outlast the request."""
        if listener is not None:
            reader.hold_text(listener.window_s)
        self._listener = listener
        self._attempt = attempt
        self._messages = messages
        self._first_output_s = reader.first_output_s
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
