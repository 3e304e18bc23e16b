"""One request to one candidate, plain or streamed: ask under its deadline, require an answer, record the outcome."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import structlog
from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelRequestTimeout
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings

from services.llm.models.stream_start import StreamStart, open_stream, refusal
from services.llm.models.streams import StreamReader
from services.llm.providers.builder import ConnectionsClosed, ModelBuilder
from services.llm.providers.wire.event_stream import pace_responses
from services.llm.providers.wire.response_hooks import omit_fields
from services.llm.request import Adaptation, Candidate, Capability
from services.llm.routing.attempts import Attempt
from services.llm.routing.faults.reasons import ModelNotBuilt
from services.llm.routing.recorder import OutcomeRecorder
from services.llm.usage import TokenUse, used_whole

log = structlog.get_logger()

_AT_LENGTH = ("length",)
COLLECTED_WINDOW_S = 2.0
"""Longest time for which the text of a plain request is held: it is read as a whole."""


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
        return builder.model(candidate.provider, candidate.model)
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


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """A complete answer before its outcome is recorded."""

    response: ModelResponse
    took_s: float
    used: TokenUse


async def request_answer(
    attempt: Attempt,
    prepare: Prepare,
    messages: Sequence[ModelMessage],
    *,
    is_parsed: bool = False,
) -> PlainAnswer | None:
    """Asks an attempt's candidate for a whole answer; returns None where the next one is to be asked.

    Args:
        attempt: records a failure and a refusal.
        prepare: builds the request.
        messages: the sent messages, to estimate usage that the provider does not report.
        is_parsed: the answer is read by code, not by a user. One that ended at the token limit is passed on, since a
            model that spent its tokens on thinking is no failure of its provider.

    Raises:
        ContentRefused: the candidate's filter refused.
    """
    try:
        async with AsyncExitStack() as stack:
            start = await _start_stream(
                stack, attempt, prepare, None, merges_arrivals=True, may_be_empty_at=_AT_LENGTH if is_parsed else ()
            )
            start.hold_text(COLLECTED_WINDOW_S, attempt.candidate)
            reader = StreamReader(start.opened, attempt.candidate, start.began, attempt.longest_stream_s, start.pacing)
            response = await _collect(reader)
    except Exception as error:  # noqa: BLE001 - `failed` classifies it and re-raises bugs of ours
        await attempt.failed(error)
        return None
    used = used_whole(response.usage, response.parts, messages)
    if is_parsed:
        used = replace(used, is_answer=False)
    if response.finish_reason == "content_filter":
        raise attempt.refused(refusal(response.provider_details), used)
    return PlainAnswer(response, start.opened.first_output_at - start.began, used)


async def _collect(reader: StreamReader) -> ModelResponse:
    """Reads a stream to its end and returns its whole answer."""
    try:
        while True:
            await reader.read()
    except StopAsyncIteration:
        return reader.response.get()
    finally:
        reader.close()


async def request_stream_start(
    stack: AsyncExitStack,
    attempt: Attempt,
    prepare: Prepare,
    messages: Sequence[ModelMessage],
    run_context: RunContext[Any] | None,
    *,
    merges_arrivals: bool = False,
) -> StreamStart | None:
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
        start = await _start_stream(stack, attempt, prepare, run_context, merges_arrivals=merges_arrivals)
    except Exception as error:  # noqa: BLE001 - `failed` classifies it and re-raises bugs of ours
        await stack.aclose()
        await attempt.failed(error)
        return None
    response = start.opened.response
    if not start.opened.held and response.finish_reason == "content_filter":
        raise attempt.refused(refusal(response.provider_details), used_whole(response.usage, (), messages))
    return start


async def _start_stream(
    stack: AsyncExitStack,
    attempt: Attempt,
    prepare: Prepare,
    run_context: RunContext[Any] | None,
    *,
    merges_arrivals: bool,
    may_be_empty_at: Collection[str] = (),
) -> StreamStart:
    """Opens a stream and waits for its first output, which is recorded."""
    call = prepare(attempt.candidate, attempt.adaptation)
    began = asyncio.get_running_loop().time()
    with pace_responses() as pacing:
        pacing.merges_arrivals = merges_arrivals
        opened = await open_stream(
            stack,
            _open(attempt, call, run_context),
            attempt.candidate,
            _first_output_timeout_s(attempt),
            longest_s=attempt.longest_stream_s,
            may_be_empty_at={*may_be_empty_at, *attempt.may_be_empty_at},
        )
    if opened.held:
        attempt.opened()
    return StreamStart(opened, began, pacing)


class _WholeAnswer(CompletedStreamedResponse):
    """A stream of an answer that is complete; its metadata can be set, as that of any stream."""

    def get(self) -> ModelResponse:
        """Returns the answer."""
        return replace(super().get(), metadata=self.metadata)


def _open(
    attempt: Attempt, call: PreparedCall, run_context: RunContext[Any] | None
) -> AbstractAsyncContextManager[StreamedResponse]:
    if Capability.STREAMING in attempt.adaptation.without:
        return _complete_stream(attempt.candidate, call, attempt.adaptation.without)
    opening = call.model.request_stream(call.messages, call.settings, call.parameters, run_context)
    omitted = _omitted_fields(attempt.adaptation.without)
    return _without_fields(opening, omitted) if omitted else opening


_ALWAYS_SENT = {
    # The last is Google's; the others are OpenAI's and Anthropic's.
    Capability.TOOL_CHOICE: frozenset({"tool_choice", "parallel_tool_calls", "toolConfig"}),
    Capability.SETTINGS: frozenset({"stream_options"}),
}
"""Fields of requests that the SDKs always send."""


def _omitted_fields(without: frozenset[Capability]) -> frozenset[str]:
    return frozenset[str]().union(*(names for each, names in _ALWAYS_SENT.items() if each in without))


@asynccontextmanager
async def _without_fields(
    opening: AbstractAsyncContextManager[StreamedResponse], omitted: frozenset[str]
) -> AsyncGenerator[StreamedResponse]:
    async with AsyncExitStack() as stack:
        with omit_fields(omitted):
            stream = await stack.enter_async_context(opening)
        yield stream


def _first_output_timeout_s(attempt: Attempt) -> float:
    """Returns the longest time to the first output: the last candidate may use its whole timeout."""
    provider = attempt.candidate.provider
    is_last = not attempt.has_candidates_left or Capability.STREAMING in attempt.adaptation.without
    return provider.timeout_s if is_last else min(provider.first_token_timeout_s, provider.timeout_s)


@asynccontextmanager
async def _complete_stream(
    candidate: Candidate, call: PreparedCall, without: frozenset[Capability]
) -> AsyncGenerator[StreamedResponse]:
    """Opens a stream of a whole answer, for a model that refuses to stream."""
    response = await _request(candidate, call, without)
    stream = _WholeAnswer(response, model_request_parameters=call.parameters, replay_events=True)
    stream.finish_reason, stream.provider_details = response.finish_reason, response.provider_details
    yield stream


async def _request(candidate: Candidate, call: PreparedCall, without: frozenset[Capability]) -> ModelResponse:
    timeout_s = candidate.provider.timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            with omit_fields(_omitted_fields(without)):
                return await call.model.request(call.messages, call.settings, call.parameters)
    except TimeoutError as error:
        raise ModelRequestTimeout(candidate.model, timeout_s) from error
