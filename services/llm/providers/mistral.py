"""Mistral's API, through its SDK."""

from mistralai.client import Mistral
from mistralai.client.utils.logger import NoOpLogger
from pydantic_ai.models import Model
from pydantic_ai.models.mistral import MistralModel
from pydantic_ai.providers.mistral import MistralProvider

from services.llm.providers.response_hooks import hook_in, keep_connection
from services.llm.providers.spec import ModelSpec, native_model


def mistral(order: ModelSpec) -> Model:
    """A model of Mistral's."""
    hook_in(order.http, keep_connection)
    client = Mistral(
        api_key=order.key,
        # The SDK appends /v1/chat/completions itself.
        server_url=order.base_url.removesuffix("/v1"),
        async_client=order.http,
        timeout_ms=order.timeout_ms,
        # No retries.
        retry_config=None,
        # Otherwise MISTRAL_DEBUG writes every message to the log.
        debug_logger=NoOpLogger(),
    )
    # They put another key in for MISTRAL_SA_TOKEN_PATH, and for MISTRAL_SDK_TELEMETRY send every message to Mistral
    # a second time, as a trace; tests/wire/test_requests.py tells when they move.
    hooks = client.sdk_configuration.__dict__["_hooks"]
    for each in (hooks.before_request_hooks, hooks.after_success_hooks, hooks.after_error_hooks):
        each.clear()
    return native_model(order, MistralModel, MistralProvider(mistral_client=client))
