"""Groq's API, through its SDK: over the shared connections, and with a finish reason for refused tool calls.

The SDK accepts only a client of the older `httpx`. With 256 concurrent streams its connection pool takes four times
the CPU (measured: 20 s against 5 s for 1,024 answers), and a second pool would need its own shutdown and
proxies. So its requests are sent through the provider's `httpx2` client.
"""

from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import httpx2
from groq import AsyncGroq, AsyncStream
from groq.types import chat
from groq.types.chat.chat_completion_chunk import XGroq
from pydantic_ai.messages import ModelResponseStreamEvent
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.groq import GroqModel, GroqStreamedResponse
from pydantic_ai.providers.groq import GroqProvider

from services.llm.providers.spec import ModelSpec, build_native_model, reset_environment
from services.llm.providers.wire.event_stream import EVENTS, EventStream
from services.llm.providers.wire.tolerant_streams import HabitualModel, TolerantStream, to_tolerant


def build_groq(spec: ModelSpec) -> Model:
    """Returns a model served by Groq."""
    client = AsyncGroq(
        api_key=spec.key,
        # The SDK appends /openai/v1/chat/completions.
        base_url=spec.base_url.removesuffix("/openai/v1"),
        http_client=httpx.AsyncClient(transport=SharedTransport(spec.http), trust_env=False),
        timeout=httpx.Timeout(**spec.http.timeout.as_dict()),
        max_retries=0,
    )
    reset_environment(client)
    return build_native_model(spec, GroqChatModel, GroqProvider(groq_client=client))


class SharedTransport(httpx.AsyncBaseTransport):
    """Sends the requests of an `httpx` client through an `httpx2` client.

    Args:
        client: the sending client. The transport does not close it.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request and streams the body of its response.

        Raises:
            httpx.TransportError: the class of the same name as that of the error in `httpx2`.
        """
        forwarded = httpx2.Request(
            request.method,
            str(request.url),
            headers=request.headers.raw,
            content=await request.aread(),
            extensions=dict(request.extensions),
        )
        with _translate_errors():
            response = await self._client.send(forwarded, stream=True)
        return httpx.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=_RawBody(response),
            extensions={EVENTS: response.extensions[EVENTS]},
        )


class _RawBody(httpx.AsyncByteStream):
    """The body of a response as received, not decompressed."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translate_errors():
            async for piece in self._response.aiter_raw():
                yield piece

    async def aclose(self) -> None:
        await self._response.aclose()


@contextmanager
def _translate_errors() -> Generator[None]:
    """Raises the error of the same name in `httpx`: both libraries have the same error tree."""
    try:
        yield
    except httpx2.TransportError as error:
        error_class = getattr(httpx, type(error).__name__, httpx.TransportError)
        raise error_class(str(error)) from error


@dataclass
class GroqStream(TolerantStream, GroqStreamedResponse):
    """A stream that sets a finish reason when Groq rejects the arguments of a tool call.

    The adapter turns that error into the tool call, so that the model can correct it, but sets no finish reason, so the
    stream would count as cut.
    """

    @property
    def received(self) -> EventStream:
        """The events as the server sends them."""
        return self._response.source.response.extensions[EVENTS]

    def _map_chunk(self, chunk: chat.ChatCompletionChunk) -> Iterator[ModelResponseStreamEvent]:
        for choice in chunk.choices[:1]:
            has_output = bool(choice.delta.content or choice.delta.tool_calls)
            self.note_chunk(has_output=has_output, finish_reason=choice.finish_reason)
        if chunk.usage is not None and (chunk.x_groq is None or chunk.x_groq.usage is None):
            # Servers that imitate Groq report usage as OpenAI does.
            chunk.x_groq = XGroq(usage=chunk.usage)
        yield from super()._map_chunk(chunk)

    def _map_tool_use_failed(self, failed_generation: Any) -> Iterator[ModelResponseStreamEvent]:  # noqa: ANN401 - its type is private
        yield from super()._map_tool_use_failed(failed_generation)
        self.finish_reason = "tool_call"


class GroqChatModel(HabitualModel, GroqModel):
    """Groq's model, with a finish reason on every complete stream."""

    async def _process_streamed_response(
        self, response: AsyncStream[chat.ChatCompletionChunk], model_request_parameters: ModelRequestParameters
    ) -> GroqStream:
        stream = await super()._process_streamed_response(response, model_request_parameters)
        return to_tolerant(stream, GroqStream, self.habits)
