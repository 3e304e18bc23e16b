"""Mistral's API, through its SDK."""

from mistralai.client import Mistral
from mistralai.client.utils.logger import NoOpLogger
from pydantic_ai.models import Model
from pydantic_ai.models.mistral import MistralModel
from pydantic_ai.providers.mistral import MistralProvider

from services.llm.providers.response_hooks import add_response_hook, keep_connection
from services.llm.providers.spec import ModelSpec, build_native_model


def build_mistral(spec: ModelSpec) -> Model:
    """Return a model served by Mistral."""
    add_response_hook(spec.http, keep_connection)
    client = Mistral(
        api_key=spec.key,
        # The SDK appends /v1/chat/completions.
        server_url=spec.base_url.removesuffix("/v1"),
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
    return build_native_model(spec, MistralModel, MistralProvider(mistral_client=client))
