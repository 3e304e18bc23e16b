"""Google's Gemini API, through its SDK."""

from typing import Any

from google.genai import Client
from google.genai.client import DebugConfig
from google.genai.types import HttpOptions
from pydantic_ai.models import Model
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.providers.google import GoogleProvider

from services.llm.kinds.order import Order, native_model


def google(order: Order) -> Model:
    """A model of Google's."""
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
    return native_model(order, GoogleModel, GoogleProvider(client=client))
