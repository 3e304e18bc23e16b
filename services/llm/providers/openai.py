"""The kinds that speak OpenAI's wire, through its SDK."""

import re
from collections.abc import Callable, Mapping

from openai import AsyncOpenAI
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.ollama import OllamaModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.openrouter import OpenRouterModel
from pydantic_ai.profiles import ModelProfile, merge_profile
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers import Provider
from pydantic_ai.providers.azure import AzureProvider
from pydantic_ai.providers.deepseek import DeepSeekProvider
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.providers.openrouter import OpenRouterProvider
from pydantic_ai.settings import ModelSettings

from core.config.providers import ProviderKind
from services.llm.providers.openai_clients import LeanAzureOpenAI, LeanOpenAI
from services.llm.providers.spec import ModelSpec, forget_environment


def _openai_client(order: ModelSpec, headers: Mapping[str, str] | None = None) -> AsyncOpenAI:
    client = LeanOpenAI(
        api_key=order.key,
        base_url=order.base_url,
        http_client=order.http,
        timeout=order.http.timeout,
        max_retries=0,
    )
    forget_environment(client, headers)
    return client


def _chat_model(
    order: ModelSpec,
    model_class: type[OpenAIChatModel],
    sdk_provider: Provider[AsyncOpenAI],
    extra: ModelProfile | None = None,
) -> Model:
    """A chat-completions model with the profile of its family.

    The `profile` argument is the last layer of the library's merging, so what is set here holds whatever the
    provider's and the family's own profiles say.
    """
    # Without this a stream that was cut passes for a complete answer. Every kind that we speak to sends a reason.
    ours = merge_profile(extra, OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True))
    if order.family == order.wire_name:
        return model_class(order.wire_name, provider=sdk_provider, profile=ours)
    resolved = model_class(order.family, provider=sdk_provider, profile=ours).profile
    return model_class(order.wire_name, provider=sdk_provider, profile=lambda _: resolved)


def openai(order: ModelSpec) -> Model:
    """A model of OpenAI's."""
    return _chat_model(order, OpenAIChatModel, OpenAIProvider(openai_client=_openai_client(order)))


def openai_compatible(order: ModelSpec) -> Model:
    """A model behind any other server that speaks the wire: vLLM, LM Studio, llama.cpp, a LiteLLM proxy."""
    sdk_provider = OpenAICompatibleProvider(order.provider.id, openai_client=_openai_client(order))
    # Chat templates of local servers take one system message, at the start.
    one_system_message = OpenAIModelProfile(openai_chat_supports_multiple_system_messages=False)
    return _chat_model(order, OpenAIChatModel, sdk_provider, merge_profile(one_system_message, _limit_field(order)))


def ollama(order: ModelSpec) -> Model:
    """A model that Ollama serves."""
    return _chat_model(order, OllamaModel, OllamaProvider(openai_client=_openai_client(order)), _limit_field(order))


_TAKES_MAX_COMPLETION_TOKENS = re.compile(r"(openai/)?(gpt-[5-9]|o\d)")


def _limit_field(order: ModelSpec) -> ModelProfile:
    """Send the limit of an answer as `max_tokens`, which every compatible server knows.

    OpenAI's reasoning families, should a gateway pass one on, refuse that field and take `max_completion_tokens`.
    """
    newer = _TAKES_MAX_COMPLETION_TOKENS.match(order.family) is not None
    return OpenAIModelProfile(openai_chat_supports_max_completion_tokens=newer)


def openrouter(order: ModelSpec) -> Model:
    """A model that OpenRouter passes on."""
    # The name that OpenRouter shows for an application in its operator's account.
    client = _openai_client(order, {"X-Title": "Understudy"})
    return _chat_model(order, OpenRouterModel, OpenRouterProvider(openai_client=client))


def azure_openai(order: ModelSpec) -> Model:
    """A deployment on Azure."""
    if order.provider.api_version is None:
        raise ValueError(f"provider {order.provider.id} has no API version")
    client = LeanAzureOpenAI(
        azure_endpoint=order.base_url,
        api_version=order.provider.api_version,
        api_key=order.key,
        http_client=order.http,
        timeout=order.http.timeout,
        max_retries=0,
    )
    forget_environment(client)
    return _chat_model(order, OpenAIChatModel, AzureProvider(openai_client=client))


class DeepSeekModel(OpenAIChatModel):
    """DeepSeek's model, without the answers that DeepSeek gave up.

    It says so by a finish reason of its own, `insufficient_system_resource`, which the library does not know. Of a
    stream that leaves no finish reason, which is enough; of a plain answer nobody would notice.
    """

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask for an answer.

        Raises:
            UnexpectedModelBehavior: it was given up.
        """
        response = await super().request(messages, model_settings, model_request_parameters)
        if response.finish_reason is None:
            raise UnexpectedModelBehavior("the answer was given up")
        return response


def deepseek(order: ModelSpec) -> Model:
    """A model of DeepSeek's."""
    return _chat_model(order, DeepSeekModel, DeepSeekProvider(openai_client=_openai_client(order)))


KINDS: Mapping[ProviderKind, Callable[[ModelSpec], Model]] = {
    ProviderKind.OPENAI_COMPATIBLE: openai_compatible,
    ProviderKind.OPENAI: openai,
    ProviderKind.OLLAMA: ollama,
    ProviderKind.OPENROUTER: openrouter,
    ProviderKind.AZURE_OPENAI: azure_openai,
    ProviderKind.DEEPSEEK: deepseek,
}
