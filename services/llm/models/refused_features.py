"""Requests to models that refuse to stream, or a field that the SDKs always send."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace

from pydantic_ai.exceptions import ModelRequestTimeout
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import CompletedStreamedResponse, ModelRequestParameters, StreamedResponse

from services.llm.providers.wire.response_hooks import omit_fields
from services.llm.request import Candidate, Capability

_ALWAYS_SENT = {
    # The last is Google's; the others are OpenAI's and Anthropic's.
    Capability.TOOL_CHOICE: frozenset({"tool_choice", "parallel_tool_calls", "toolConfig"}),
    Capability.SETTINGS: frozenset({"stream_options"}),
}
"""Fields of requests that the SDKs always send."""


def _omitted_fields(without: frozenset[Capability]) -> frozenset[str]:
    return frozenset[str]().union(*(names for each, names in _ALWAYS_SENT.items() if each in without))


@asynccontextmanager
async def open_without_fields(
    opening: AbstractAsyncContextManager[StreamedResponse], without: frozenset[Capability]
) -> AsyncGenerator[StreamedResponse]:
    """Opens a stream whose request lacks the fields of refused capabilities."""
    async with AsyncExitStack() as stack:
        with omit_fields(_omitted_fields(without)):
            stream = await stack.enter_async_context(opening)
        yield stream


class _WholeAnswer(CompletedStreamedResponse):
    """A stream of an answer that is complete; its metadata can be set, as that of any stream."""

    def get(self) -> ModelResponse:
        """Returns the answer."""
        return replace(super().get(), metadata=self.metadata)


@asynccontextmanager
async def complete_stream(
    request: Callable[[], Awaitable[ModelResponse]],
    candidate: Candidate,
    parameters: ModelRequestParameters,
    without: frozenset[Capability],
) -> AsyncGenerator[StreamedResponse]:
    """Opens a stream of a whole answer, for a model that refuses to stream."""
    timeout_s = candidate.provider.timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            with omit_fields(_omitted_fields(without)):
                response = await request()
    except TimeoutError as error:
        raise ModelRequestTimeout(candidate.model, timeout_s) from error
    stream = _WholeAnswer(response, model_request_parameters=parameters, replay_events=True)
    stream.finish_reason, stream.provider_details = response.finish_reason, response.provider_details
    yield stream
