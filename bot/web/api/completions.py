"""Chat completions: answered at once, or streamed with the headers withheld until the first output."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import structlog
from aiohttp import web
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponseStreamEvent
from pydantic_ai.models import StreamedResponse

from bot.web.api.gateway import ApiCall, ApiGateway
from bot.web.api.models import ModelDirectory
from bot.web.api.requests import ChatRequest, parse_chat_request
from bot.web.api.responses import DONE, ChunkEncoder, answered_model, completion, count_tokens, encode_event
from bot.web.server import HttpRoute
from core.clock import Clock
from core.errors import ContentRefused
from services.llm.models.factory import LLMModelFactory
from services.moderation.domain.verdict import Verdict

log = structlog.get_logger()

SLOW_CLIENT_S = 20.0
"""Timeout of a write, after which a client that does not read is disconnected."""
EVENT_STREAM = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class CompletionEvents:
    """A response of server-sent events, begun by the first one.

    Args:
        slow_s: longest wait for a client to take a piece.
    """

    def __init__(self, request: web.Request, id_: str, slow_s: float = SLOW_CLIENT_S) -> None:
        self._request = request
        self._slow_s = slow_s
        self.response = web.StreamResponse(headers={**EVENT_STREAM, "x-request-id": id_})

    async def send(self, data: bytes) -> None:
        """Sends encoded events.

        Raises:
            ConnectionError: the client has gone, or does not read.
        """
        if not self.response.prepared:
            await self.response.prepare(self._request)
        try:
            async with asyncio.timeout(self._slow_s):
                await self.response.write(data)
        except TimeoutError:
            log.info("web.slow_reader")
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the client does not read") from None

    async def close(self) -> web.StreamResponse:
        """Ends the response."""
        await self.response.write_eof()
        return self.response


class ChatCompletions:
    """Serves `/v1/chat/completions`."""

    def __init__(
        self, directory: ModelDirectory, factory: LLMModelFactory[Verdict], gateway: ApiGateway, clock: Clock
    ) -> None:
        self._directory = directory
        self._factory = factory
        self._gateway = gateway
        self._clock = clock

    @property
    def route(self) -> HttpRoute:
        """The route."""
        return self._gateway.route("POST", "/v1/chat/completions", self._serve)

    async def _serve(self, request: web.Request, call: ApiCall) -> web.StreamResponse:
        chat = parse_chat_request(call.body)
        # Its images are in the messages now.
        call.raw = b""
        spec = replace(
            await self._directory.spec(call.token, chat.model, chat.required),
            unusual=chat.unusual,
            is_long=self._directory.is_long(chat.messages, chat.parameters),
            may_be_empty_at=chat.may_be_empty_at,
        )
        call.facts["asked"] = chat.model
        model = self._factory.create_routed_model(spec)
        if chat.is_streamed:
            async with model.open_stream(chat.messages, chat.settings, chat.parameters) as stream:
                return await self._stream(request, call, chat, stream)
        response = await model.request(chat.messages, chat.settings, chat.parameters)
        answered = answered_model(response, chat.model)
        usage = count_tokens(response, chat.messages)
        _note(call, answered, response, chat.messages)
        body = completion(f"chatcmpl-{call.id}", int(self._clock.time()), answered, response, usage)
        return web.json_response(body)

    async def _stream(
        self, request: web.Request, call: ApiCall, chat: ChatRequest, stream: StreamedResponse
    ) -> web.StreamResponse:
        # Its first output has arrived: a failure before it was a status.
        answered = answered_model(ModelResponse([], metadata=stream.metadata), chat.model)
        encoder = ChunkEncoder(f"chatcmpl-{call.id}", int(self._clock.time()), answered, with_usage=chat.wants_usage)
        out = CompletionEvents(request, call.id)
        try:
            await _send_events(out, encoder, aiter(stream))
            response = stream.get()
            _note(call, answered, response, chat.messages)
            usage = count_tokens(response, chat.messages)
            await out.send(encoder.end(response.finish_reason) + encoder.usage(usage) + DONE)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except ContentRefused:
            call.facts["end"] = "content_filter"
            await out.send(encoder.end("content_filter") + DONE)
        except Exception as error:  # noqa: BLE001 - the status has been sent, so the error is an event; a bug is logged
            failure = self._gateway.to_error(error)
            call.facts["end"] = failure.code or failure.kind
            # Without an end marker: the sent part is no whole answer.
            await out.send(encode_event(failure.body()))
        return await out.close()


async def _send_events(
    out: CompletionEvents, encoder: ChunkEncoder, events: AsyncIterator[ModelResponseStreamEvent]
) -> None:
    opening = encoder.opening()
    async for event in events:
        chunk = encoder.event(event)
        if chunk:
            await out.send(opening + chunk)
            opening = b""
    if opening:
        await out.send(opening)


def _note(call: ApiCall, answered: str, response: ModelResponse, sent: Sequence[ModelMessage]) -> None:
    usage = count_tokens(response, sent)
    call.facts |= {
        "answered": answered,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "end": response.finish_reason,
    }
