"""Google's Gemini API, through its SDK."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from google.genai import Client
from google.genai.client import DebugConfig
from google.genai.types import HttpOptions
from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.settings import ModelSettings

from services.llm.providers.response_hooks import hook_in, note, noting
from services.llm.providers.spec import ModelSpec, native_model


def google(order: ModelSpec) -> Model:
    """A model of Google's."""
    hook_in(order.http, note)
    # Without these the SDK reads the certificate authorities twice, for clients that nobody uses.
    unused: dict[str, Any] = {"verify": order.tls}
    options = HttpOptions(
        # The SDK appends the version itself.
        base_url=order.base_url.removesuffix("/v1beta"),
        api_version="v1beta",
        httpx_async_client=order.http,
        timeout=order.timeout_ms,
        client_args=unused,
        async_client_args=unused,
        # No `retry_options` means one attempt.
    )
    client = Client(
        # Otherwise GOOGLE_GENAI_USE_VERTEXAI decides.
        vertexai=False,
        api_key=order.key,
        http_options=options,
        # Otherwise GOOGLE_GENAI_CLIENT_MODE may have it answer from recordings.
        debug_config=DebugConfig(client_mode=None, replays_directory=None, replay_id=None),
    )
    return native_model(order, GeminiModel, GoogleProvider(client=client))


class GeminiModel(GoogleModel):
    """Google's model, with streams that are closed.

    After an error in mid-stream the SDK leaves the response open, and its connection in use, until the garbage
    collector comes by.
    """

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Open a stream."""
        async with AsyncExitStack() as stack:
            with noting() as responses:
                opening = super().request_stream(messages, model_settings, model_request_parameters, run_context)
                try:
                    stream = await stack.enter_async_context(opening)
                finally:
                    for response in responses:
                        stack.push_async_callback(response.aclose)
            yield stream
