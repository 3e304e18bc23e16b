"""Anthropic's messages API, through its SDK."""

from anthropic import AsyncAnthropic
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

from services.llm.providers.spec import ModelSpec, build_native_model, reset_environment


def build_anthropic(spec: ModelSpec) -> Model:
    """Returns a model served by Anthropic."""
    client = AsyncAnthropic(
        api_key=spec.key,
        # The SDK appends /v1/messages itself.
        base_url=spec.base_url.removesuffix("/v1"),
        http_client=spec.http,
        timeout=spec.http.timeout,
        max_retries=0,
    )
    reset_environment(client)
    return build_native_model(spec, AnthropicModel, AnthropicProvider(anthropic_client=client))
