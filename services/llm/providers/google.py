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

from services.llm.providers.spec import ModelSpec, build_native_model
from services.llm.providers.wire.response_hooks import add_response_hook, collect_responses, record_response


def build_google(spec: ModelSpec) -> Model:
    """Returns a model served by Google."""
    return build_native_model(spec, GeminiModel, GoogleProvider(client=build_google_client(spec)))


def build_google_client(spec: ModelSpec) -> Client:
    """Returns a client of Google's API."""
    add_response_hook(spec.http, record_response)
    # Without these the SDK loads the certificate authorities three times, for clients and a socket that are never used.
    client_args: dict[str, Any] = {"verify": spec.tls, "ssl": spec.tls}
    options = HttpOptions(
        # The SDK appends the version.
        base_url=spec.base_url.removesuffix("/v1beta"),
        api_version="v1beta",
        httpx_async_client=spec.http,
        timeout=spec.timeout_ms,
        client_args=client_args,
        async_client_args=client_args,
        # No `retry_options` means one attempt.
    )
    return Client(
        # Overrides GOOGLE_GENAI_USE_VERTEXAI.
        vertexai=False,
        api_key=spec.key,
        http_options=options,
        # Overrides GOOGLE_GENAI_CLIENT_MODE, which can replay recorded answers.
        debug_config=DebugConfig(client_mode=None, replays_directory=None, replay_id=None),
    )


class GeminiModel(GoogleModel):
    """Google's model, with the response of a stream closed after an error.

    The SDK leaves the response open and its connection in use until it is garbage collected.
    """

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Opens a stream."""
        async with AsyncExitStack() as stack:
            with collect_responses() as responses:
                opening = super().request_stream(messages, model_settings, model_request_parameters, run_context)
                try:
                    stream = await stack.enter_async_context(opening)
                finally:
                    for response in responses:
                        stack.push_async_callback(response.aclose)
            yield stream
