"""Groq's API, through its SDK: over our connections, and with an end for tool calls that Groq refused.

The SDK speaks the older `httpx` and takes no other client. With 256 streams at once that one's connection pool takes
four times the CPU (measured: 20 s against 5 s for 1,024 answers), and a second pool would be one more thing to close
and to give proxies to. So its requests are handed on to the provider's own `httpx2` client.
"""

from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import httpx
import httpx2
from groq import AsyncGroq, AsyncStream
from groq.types import chat
from pydantic_ai.messages import ModelResponseStreamEvent
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.groq import GroqModel, GroqStreamedResponse
from pydantic_ai.providers.groq import GroqProvider

from services.llm.providers.spec import ModelSpec, forget_environment, native_model


def groq(order: ModelSpec) -> Model:
    """A model that Groq serves."""
    client = AsyncGroq(
        api_key=order.key,
        # The SDK appends /openai/v1/chat/completions itself.
        base_url=order.base_url.removesuffix("/openai/v1"),
        http_client=httpx.AsyncClient(transport=SharedTransport(order.http), trust_env=False),
        timeout=httpx.Timeout(**order.http.timeout.as_dict()),
        max_retries=0,
    )
    forget_environment(client)
    return native_model(order, GroqChatModel, GroqProvider(groq_client=client))


class SharedTransport(httpx.AsyncBaseTransport):
    """Sends what an `httpx` client asks for through an `httpx2` client.

    Args:
        client: who sends; it is not closed here.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the body of its response is read as it comes.

        Raises:
            httpx.TransportError: of the same name as what the other client raised.
        """
        onward = httpx2.Request(
            request.method,
            str(request.url),
            headers=request.headers.raw,
            content=await request.aread(),
            extensions=dict(request.extensions),
        )
        with _translated():
            answer = await self._client.send(onward, stream=True)
        return httpx.Response(answer.status_code, headers=answer.headers.raw, stream=_ErrorReadingBody(answer))


class _ErrorReadingBody(httpx.AsyncByteStream):
    """A response's bytes as they came over the wire, still compressed if they were."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            async for piece in self._answer.aiter_raw():
                yield piece

    async def aclose(self) -> None:
        await self._answer.aclose()


@contextmanager
def _translated() -> Generator[None]:
    """Raise the older library's error of the same name: the two have the same tree."""
    try:
        yield
    except httpx2.TransportError as error:
        known = getattr(httpx, type(error).__name__, httpx.TransportError)
        raise known(str(error)) from error


class _Stream(GroqStreamedResponse):
    """A stream whose end says so when Groq found the arguments of a tool call wrong.

    The adapter turns that error into the tool call, for the model to be told what was wrong with it, but gives it no
    finish reason: it would pass for a stream that was cut.
    """

    def _map_tool_use_failed(self, failed_generation: Any) -> Iterator[ModelResponseStreamEvent]:  # noqa: ANN401 - its type is private
        yield from super()._map_tool_use_failed(failed_generation)
        self.finish_reason = "tool_call"


class GroqChatModel(GroqModel):
    """Groq's model, with streams that end properly."""

    async def _process_streamed_response(
        self, response: AsyncStream[chat.ChatCompletionChunk], model_request_parameters: ModelRequestParameters
    ) -> _Stream:
        opened = await super()._process_streamed_response(response, model_request_parameters)
        return _Stream(**{each.name: getattr(opened, each.name) for each in fields(opened) if each.init})
