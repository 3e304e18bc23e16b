"""Models of OpenAI's wire format: OpenAI itself, and every server that speaks it.

Their clients leave out the two most expensive steps of the SDK, which have no effect on our requests. With 8,000 tokens
of history and an answer of 200 pieces they took a third of a turn's CPU time. They use private API of openai 3.52, with
contract tests in tests/services/llm/providers/test_openai.py.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

import httpx2
from openai import AsyncAzureOpenAI, AsyncOpenAI, AsyncStream
from openai.resources.chat import AsyncChat, AsyncCompletions
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from openai.types.chat.chat_completion_chunk import Choice
from pydantic import ValidationError
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponseStreamEvent
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.ollama import OllamaModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings, OpenAIStreamedResponse
from pydantic_ai.models.openrouter import OpenRouterModel, OpenRouterStreamedResponse
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
from services.llm.providers.spec import ModelSpec, reset_environment
from services.llm.providers.wire.event_stream import EVENTS, EventStream
from services.llm.providers.wire.tolerant_streams import HabitualModel, TolerantStream

ResponseT = TypeVar("ResponseT")


class _Completions(AsyncCompletions):
    """Chat completions that send messages and tools unchanged.

    The SDK compares each message with every message type, and each schema of a tool field by field, to find fields with
    another name on the wire. There are none. It copies `extra_body` into the request unchanged.
    """

    async def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        extra_body: object = None,
        **arguments: Any,  # noqa: ANN401 - see above
    ) -> Any:  # noqa: ANN401 - an answer or a stream, depending on the arguments
        """Requests an answer. Arguments and result are those of the SDK."""
        # Lists of our own, which are emptied below.
        unchanged: dict[str, list[Any]] = {"messages": list(messages)}  # Any: JSON
        if isinstance(tools := arguments.get("tools"), list):
            unchanged["tools"] = list(cast("list[Any]", tools))
            arguments["tools"] = ()
        # The SDK types `extra_body` as object, and merges it as a mapping.
        body = {**unchanged, **cast("dict[str, object]", extra_body or {})}
        create = cast("Callable[..., Awaitable[Any]]", super().create)
        response = await create(messages=(), extra_body=body, **arguments)
        # A stream holds the options of its request to its end. They are not sent again: the clients do not retry.
        for each in unchanged.values():
            each.clear()
        return response


class _Chat(AsyncChat):
    @cached_property
    def completions(self) -> AsyncCompletions:  # pyright: ignore[reportIncompatibleMethodOverride] - the SDK's is a cached property as well
        return _Completions(self._client)


class LeanOpenAI(AsyncOpenAI):
    """`AsyncOpenAI` with lean messages and chunks, see the module."""

    @cached_property
    def chat(self) -> AsyncChat:  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        """Chat completions."""
        return _Chat(self)

    def _process_response_data(self, *, data: object, cast_to: type[ResponseT], response: httpx2.Response) -> ResponseT:
        """Parses a piece of a stream, or a whole answer.

        The SDK builds objects field by field in Python, so that data of other types passes as well. Valid chunks are
        parsed by Pydantic in a twentieth of the time (in strict mode, so that no value is coerced); the rest is left to
        the SDK.
        """
        if cast_to is ChatCompletionChunk:
            with suppress(ValidationError):
                return cast("ResponseT", ChatCompletionChunk.model_validate(data, strict=True))
        return super()._process_response_data(data=data, cast_to=cast_to, response=response)


class LeanAzureOpenAI(LeanOpenAI, AsyncAzureOpenAI):  # pyright: ignore[reportIncompatibleVariableOverride] - as above
    """`AsyncAzureOpenAI` without the same steps."""


@dataclass
class ChatStream(TolerantStream, OpenAIStreamedResponse):
    """A stream of chat-completion chunks."""

    @property
    def received(self) -> EventStream:
        """The events as the server sends them."""
        return self._response.source.response.extensions[EVENTS]

    def _map_part_delta(self, choice: Choice) -> Iterable[ModelResponseStreamEvent]:
        delta = choice.delta
        self.note_chunk(has_output=bool(delta.content or delta.tool_calls), finish_reason=choice.finish_reason)
        yield from super()._map_part_delta(choice)


@dataclass
class OpenRouterStream(ChatStream, OpenRouterStreamedResponse):
    """A stream of OpenRouter's chunks."""


class ChatModel(HabitualModel, OpenAIChatModel):
    """A model with OpenAI's chat completions, as the servers that imitate them speak it."""

    @property
    def _streamed_response_cls(self) -> type[OpenAIStreamedResponse]:
        return ChatStream

    async def _process_streamed_response(
        self,
        response: AsyncStream[ChatCompletionChunk],
        model_request_parameters: ModelRequestParameters,
        model_settings: OpenAIChatModelSettings | None = None,
    ) -> OpenAIStreamedResponse:
        stream = await super()._process_streamed_response(response, model_request_parameters, model_settings)
        if isinstance(stream, TolerantStream):
            stream.habits = self.habits
        return stream


class OllamaChatModel(ChatModel, OllamaModel):
    """A model of Ollama."""


class OpenRouterChatModel(ChatModel, OpenRouterModel):
    """A model of OpenRouter."""

    @property
    def _streamed_response_cls(self) -> type[OpenRouterStream]:
        return OpenRouterStream


def build_client(spec: ModelSpec, headers: Mapping[str, str] | None = None, *, version: str = "") -> AsyncOpenAI:
    """Returns a client of a server with OpenAI's wire format.

    Args:
        spec: the provider and its connections.
        headers: sent with every request.
        version: the path of the API where the base URL does not end in it, such as `/v1`.
    """
    client = LeanOpenAI(
        api_key=spec.key,
        base_url=spec.base_url.removesuffix(version) + version,
        http_client=spec.http,
        timeout=spec.http.timeout,
        max_retries=0,
    )
    reset_environment(client, headers)
    return client


def _build_chat_model(
    spec: ModelSpec,
    model_class: type[OpenAIChatModel],
    sdk_provider: Provider[AsyncOpenAI],
    extra: ModelProfile | None = None,
) -> Model:
    """Returns a chat-completions model with the profile of its family.

    The `profile` argument is the last layer that the library merges, so it overrides the profiles of the provider and
    the family.
    """
    # Without this a cut stream counts as a complete answer. Every kind here sends a finish reason.
    overrides = merge_profile(extra, OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True))
    if spec.family == spec.wire_name:
        return model_class(spec.wire_name, provider=sdk_provider, profile=overrides)
    resolved = model_class(spec.family, provider=sdk_provider, profile=overrides).profile
    return model_class(spec.wire_name, provider=sdk_provider, profile=lambda _: resolved)


def build_openai(spec: ModelSpec) -> Model:
    """Returns a model served by OpenAI."""
    return _build_chat_model(spec, ChatModel, OpenAIProvider(openai_client=build_client(spec)))


def build_openai_compatible(spec: ModelSpec) -> Model:
    """Returns a model of any other server with this wire format: vLLM, LM Studio, llama.cpp, a LiteLLM proxy."""
    sdk_provider = OpenAICompatibleProvider(spec.provider.id, openai_client=build_client(spec))
    # Chat templates of local servers accept one system message only, at the start.
    one_system_message = OpenAIModelProfile(openai_chat_supports_multiple_system_messages=False)
    return _build_chat_model(
        spec, ChatModel, sdk_provider, merge_profile(one_system_message, _select_limit_field(spec))
    )


def build_ollama(spec: ModelSpec) -> Model:
    """Returns a model served by Ollama."""
    return _build_chat_model(
        spec, OllamaChatModel, OllamaProvider(openai_client=build_client(spec)), _select_limit_field(spec)
    )


_REQUIRES_MAX_COMPLETION_TOKENS = re.compile(r"(openai/)?(gpt-[5-9]|o\d)")


def _select_limit_field(spec: ModelSpec) -> ModelProfile:
    """Sends the token limit of an answer as `max_tokens`, which every compatible server accepts.

    OpenAI's reasoning families behind a gateway reject that field and require `max_completion_tokens`.
    """
    is_required = _REQUIRES_MAX_COMPLETION_TOKENS.match(spec.family) is not None
    return OpenAIModelProfile(openai_chat_supports_max_completion_tokens=is_required)


def build_openrouter(spec: ModelSpec) -> Model:
    """Returns a model served through OpenRouter."""
    # The application name that OpenRouter displays in the operator's account.
    client = build_client(spec, {"X-Title": "Understudy"})
    return _build_chat_model(spec, OpenRouterChatModel, OpenRouterProvider(openai_client=client))


def build_azure_client(spec: ModelSpec) -> AsyncAzureOpenAI:
    """Returns a client of an Azure resource."""
    if spec.provider.api_version is None:
        raise ValueError(f"provider {spec.provider.id} has no API version")
    client = LeanAzureOpenAI(
        azure_endpoint=spec.base_url,
        api_version=spec.provider.api_version,
        api_key=spec.key,
        http_client=spec.http,
        timeout=spec.http.timeout,
        max_retries=0,
    )
    reset_environment(client)
    return client


def build_azure_openai(spec: ModelSpec) -> Model:
    """Returns a deployment on Azure."""
    client = build_azure_client(spec)
    return _build_chat_model(spec, ChatModel, AzureProvider(openai_client=client))


class DeepSeekModel(ChatModel):
    """DeepSeek's model, which raises on an unfinished answer.

    DeepSeek marks one with the finish reason `insufficient_system_resource`, which the library drops. A stream without
    a finish reason is rejected already; a plain answer would pass as complete.
    """

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Requests an answer.

        Raises:
            UnexpectedModelBehavior: DeepSeek did not finish it.
        """
        response = await super().request(messages, model_settings, model_request_parameters)
        if response.finish_reason is None:
            raise UnexpectedModelBehavior("the answer was given up")
        return response


def build_deepseek(spec: ModelSpec) -> Model:
    """Returns a model served by DeepSeek."""
    return _build_chat_model(spec, DeepSeekModel, DeepSeekProvider(openai_client=build_client(spec)))


BUILDERS: Mapping[ProviderKind, Callable[[ModelSpec], Model]] = {
    ProviderKind.OPENAI_COMPATIBLE: build_openai_compatible,
    ProviderKind.OPENAI: build_openai,
    ProviderKind.OLLAMA: build_ollama,
    ProviderKind.OPENROUTER: build_openrouter,
    ProviderKind.AZURE_OPENAI: build_azure_openai,
    ProviderKind.DEEPSEEK: build_deepseek,
}
