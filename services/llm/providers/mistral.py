"""Mistral's API, through its SDK."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
from mistralai.client import Mistral
from mistralai.client.models import CompletionChunk, CompletionEvent
from mistralai.client.utils.eventstreaming import EventStreamAsync
from mistralai.client.utils.logger import NoOpLogger
from pydantic_ai.messages import ModelResponseStreamEvent
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.mistral import MistralModel, MistralStreamedResponse
from pydantic_ai.profiles import DEFAULT_THINKING_TAGS
from pydantic_ai.providers.mistral import MistralProvider

from services.llm.providers.spec import ModelSpec, build_native_model
from services.llm.providers.wire.event_stream import EVENTS, EventStream
from services.llm.providers.wire.response_hooks import add_response_hook, keep_connection
from services.llm.providers.wire.tolerant_streams import HabitualModel, TolerantStream, to_tolerant


def build_mistral(spec: ModelSpec) -> Model:
    """Returns a model served by Mistral."""
    add_response_hook(spec.http, keep_connection)
    client = Mistral(
        api_key=spec.key,
        # The SDK appends /v1/chat/completions.
        server_url=spec.base_url.removesuffix("/v1"),
        # Never used, but without it the SDK makes one that loads the certificate authorities again.
        client=httpx2.Client(verify=spec.tls),
        async_client=spec.http,
        timeout_ms=spec.timeout_ms,
        # No retries.
        retry_config=None,
        # Overrides MISTRAL_DEBUG, which logs every message.
        debug_logger=NoOpLogger(),
    )
    # The hooks replace the key if MISTRAL_SA_TOKEN_PATH is set, and with MISTRAL_SDK_TELEMETRY send every message to
    # Mistral again as a trace. Private attribute of mistralai 3.7; tests/wire/test_requests.py fails if it moves.
    hooks = client.sdk_configuration.__dict__["_hooks"]
    for registered in (hooks.before_request_hooks, hooks.after_success_hooks, hooks.after_error_hooks):
        registered.clear()
    return build_native_model(spec, MistralChatModel, MistralProvider(mistral_client=client))


@dataclass
class MistralStream(TolerantStream, MistralStreamedResponse):
    """A stream of Mistral's chunks."""

    @property
    def received(self) -> EventStream:
        """The events as the server sends them."""
        return self._response.source.response.extensions[EVENTS]

    def _map_chunk(self, chunk: CompletionChunk) -> Iterator[ModelResponseStreamEvent]:
        for choice in chunk.choices[:1]:
            has_output = bool(choice.delta.content or choice.delta.tool_calls)
            self.note_chunk(has_output=has_output, finish_reason=choice.finish_reason)
        yield from super()._map_chunk(chunk)
        # Sent by filters in front of Mistral; pydantic-ai's adapter does not know this reason.
        if any(choice.finish_reason == "content_filter" for choice in chunk.choices[:1]):
            self.finish_reason = "content_filter"

    def _map_text_delta(self, text: str) -> Iterator[ModelResponseStreamEvent]:
        # The library expects thinking in parts of its own, as Mistral sends it; models behind gateways use tags.
        if self.model_request_parameters.output_tools:
            yield from super()._map_text_delta(text)
        else:
            yield from self._parts_manager.handle_text_delta(
                vendor_part_id="content", content=text, thinking_tags=DEFAULT_THINKING_TAGS
            )


class MistralChatModel(HabitualModel, MistralModel):
    """Mistral's model."""

    async def _process_streamed_response(
        self, response: EventStreamAsync[CompletionEvent], model_request_parameters: ModelRequestParameters
    ) -> MistralStream:
        stream = await super()._process_streamed_response(response, model_request_parameters)
        return to_tolerant(stream, MistralStream, self.habits)
