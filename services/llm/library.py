"""The fallback service for scripts: `open_llm`. The daemon opens its providers by the same functions."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Generic, TypeVar

from pydantic import BaseModel
from pydantic_ai.messages import ModelMessage, ModelResponse, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from core.clock import Clock, SystemClock
from core.config.settings import Settings, load_settings
from core.db.database import Database, resolve_url
from core.errors import UnknownProvider
from core.redis.client import open_redis
from services.llm.capabilities.embeddings import AUTO, Embeddings
from services.llm.models.direct import DirectModel
from services.llm.models.factory import LLMModelFactory
from services.llm.models.name_generator import NameGenerator
from services.llm.models.routed import RoutedModel, last_provenance
from services.llm.openai_messages import parse_messages
from services.llm.providers.builder import ModelBuilder
from services.llm.request import ModelChoice, RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.opening import open_fallback
from services.llm.routing.status import ServiceStatus
from services.moderation.domain.verdict import Verdict

SCRIPT = "script"
"""Purpose of the requests of a script, in logs and metrics."""

VerdictT = TypeVar("VerdictT", bound=BaseModel)


class LLM(Generic[VerdictT]):
    """The providers of the settings, for a script.

    Attributes:
        fallback: the fallback service: force, clear, report, status.
    """

    def __init__(
        self,
        fallback: LLMProviderFallback,
        factory: LLMModelFactory[VerdictT],
        embeddings: Embeddings | None,
    ) -> None:
        self.fallback = fallback
        self._factory = factory
        self._embeddings = embeddings

    def create_llm_model_with_fallback(
        self,
        context: str | None = None,
        model_settings: ModelSettings | None = None,
        force_provider: ModelChoice | str | None = None,
    ) -> RoutedModel:
        """Returns a pydantic-ai model that asks the providers in order, anew for each request.

        Args:
            context: the purpose of the requests, in logs and metrics.
            model_settings: settings of every request.
            force_provider: a provider, or one of its models, that is asked first.

        Raises:
            UnknownProvider: it is not configured.
        """
        return self._factory.create_llm_model_with_fallback(context or SCRIPT, model_settings, force_provider)

    def create_moderation_model(self, context: str = "moderation") -> DirectModel[VerdictT]:
        """Returns a model that answers each request with a verdict."""
        return self._factory.create_moderation_model(context)

    def create_name_generator_model(self, language: str | None = None, max_length: int = 40) -> NameGenerator:
        """Returns a model that names conversations.

        Args:
            language: IETF tag of the language of the names.
            max_length: maximum characters of a name.
        """
        return self._factory.create_name_generator_model(language, max_length)

    def get_provider_status(self) -> ServiceStatus:
        """Returns the state of every provider; `as_dict()` has it as JSON values."""
        return self.fallback.get_provider_status()

    async def chat_complete(
        self,
        messages: Sequence[Mapping[str, object]],
        temperature: float | None = None,
        *,
        model: str | None = None,
        max_tokens: int | None = None,
    ) -> tuple[str, str]:
        """Returns the model that answered, as `<provider>/<model>`, and its text.

        Args:
            messages: messages in OpenAI's format: `[{"role": "user", "content": "Hello?"}]`.
            temperature: sampling temperature.
            model: `<provider>` or `<provider>/<model>` that is asked first.
            max_tokens: limit of the answer.

        Raises:
            InvalidRequest: the messages have another format.
            ProviderError: no provider answered.
        """
        sent, settings = parse_messages(list(messages)), _settings(temperature, max_tokens)
        response = await self._model(model).request(sent, settings, ModelRequestParameters())
        return _answered(response), response.text or ""

    async def chat_complete_stream(
        self,
        messages: Sequence[Mapping[str, object]],
        temperature: float | None = None,
        *,
        model: str | None = None,
        max_tokens: int | None = None,
    ) -> AsyncIterator[str]:
        """Yields the text of an answer as it comes. Arguments as for `chat_complete`.

        Raises:
            InvalidRequest: the messages have another format.
            AnswerInterrupted: the provider broke off after its first text.
            ProviderError: no provider answered.
        """
        sent, settings = parse_messages(list(messages)), _settings(temperature, max_tokens)
        async with self._model(model).open_stream(sent, settings, ModelRequestParameters()) as stream:
            async for event in stream:
                match event:
                    case PartDeltaEvent(delta=TextPartDelta(content_delta=text)) if text:
                        yield text
                    case PartStartEvent(part=TextPart(content=text)) if text:
                        yield text
                    case _:
                        pass

    async def embed(self, texts: Sequence[str], model: str = AUTO) -> Sequence[Sequence[float]]:
        """Returns a vector for each text, in order.

        Args:
            texts: texts to embed, at least one.
            model: `auto` for the first model of EMBEDDING_PROVIDERS, another model, or `<provider>/<model>`.

        Raises:
            UnknownProvider: EMBEDDING_PROVIDERS has no such model.
            ProviderError: no provider of the model answered.
        """
        if self._embeddings is None:
            raise UnknownProvider(model, [])
        return (await self._embeddings.embed(texts, RequestSpec(SCRIPT), model)).vectors

    def _model(self, name: str | None) -> RoutedModel:
        if name is None or name == AUTO:
            return self.create_llm_model_with_fallback()
        provider, _, model = name.partition("/")
        return self.create_llm_model_with_fallback(force_provider=ModelChoice(provider, model or None))


@asynccontextmanager
async def open_llm(settings: Settings | None = None, *, clock: Clock | None = None) -> AsyncGenerator[LLM[Verdict]]:
    """Opens the providers for a script, with the state of the bot where REDIS_URL names its Redis.

    Args:
        settings: None for those of the environment and of `.env`.
        clock: source of time.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    settings, clock = settings or load_settings(), clock or SystemClock()
    async with AsyncExitStack() as stack:
        redis = open_redis(settings.redis_url.get_secret_value() if settings.redis_url is not None else None)
        stack.push_async_callback(redis.aclose)
        chat = await open_fallback(stack, settings, redis, clock)
        builder = ModelBuilder(clock)
        stack.push_async_callback(builder.aclose)
        embeddings: Embeddings | None = None
        if settings.embedders:
            settings.prepare_data_dir()
            database = Database(resolve_url(settings))
            stack.push_async_callback(database.close)
            await database.start()
            opened = await open_fallback(
                stack, settings, redis, clock,
                providers=settings.embedders, capability="embeddings", shedding=chat.shedding,
            )  # fmt: skip
            embeddings = Embeddings(opened.fallback, builder, database)
        yield LLM(chat.fallback, LLMModelFactory(chat.fallback, builder, Verdict), embeddings)


def _settings(temperature: float | None, max_tokens: int | None) -> ModelSettings:
    settings = ModelSettings()
    if temperature is not None:
        settings["temperature"] = temperature
    if max_tokens is not None:
        settings["max_tokens"] = max_tokens
    return settings


def _answered(response: ModelResponse) -> str:
    sent: list[ModelMessage] = [response]
    known = last_provenance(sent)
    return f"{known.provider}/{known.model}" if known is not None else response.model_name or ""
