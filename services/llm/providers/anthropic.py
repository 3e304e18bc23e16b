"""Anthropic's messages API, through its SDK."""

from anthropic import AsyncAnthropic
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

from services.llm.providers.spec import ModelSpec, forget_environment, native_model


def anthropic(order: ModelSpec) -> Model:
    """A model of Anthropic's."""
    client = AsyncAnthropic(
        api_key=order.key,
        # The SDK appends /v1/messages itself.
        base_url=order.base_url.removesuffix("/v1"),
        http_client=order.http,
        timeout=order.http.timeout,
        max_retries=0,
    )
    forget_environment(client)
    return native_model(order, AnthropicModel, AnthropicProvider(anthropic_client=client))
