"""Creates the models that the rest of the application uses; each request goes through the fallback service.

Structured answers are validated by a Pydantic model. The output mode (tool call, the provider's JSON mode, or a prompt)
depends on the capabilities of each model: one mode for a chain of different models would be wrong for some of them.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from core.messages import ChatRef
from services.llm.models.direct import DirectModel, MalformedAnswer
from services.llm.models.name_generator import NameGenerator, ThreadNameOutput
from services.llm.models.routed import RoutedModel
from services.llm.models.summariser import Summariser, SummaryOutput
from services.llm.providers.builder import ModelBuilder
from services.llm.request import ModelChoice, RequestSpec
from services.llm.routing.fallback import LLMProviderFallback

OUTPUT_TOOL = "final_result"
MAX_TOKENS = 1000

Out = TypeVar("Out", bound=BaseModel)


class StructuredOutput(Generic[Out]):
    """The output shape of a Pydantic model."""

    def __init__(self, output: type[Out], max_tokens: int = MAX_TOKENS) -> None:
        self._output = output
        self._max_tokens = max_tokens
        schema = output.model_json_schema()
        described: str | None = schema.pop("description", None)
        name = schema.pop("title", output.__name__)
        self._object = OutputObjectDefinition(json_schema=schema, name=name, description=described)
        self._tool = ToolDefinition(
            name=OUTPUT_TOOL, description=described or "Give the result.", parameters_json_schema=schema, kind="output"
        )

    @property
    def max_tokens(self) -> int:
        """The token limit of an answer."""
        return self._max_tokens

    def parameters(self, profile: Mapping[str, object]) -> ModelRequestParameters:
        """Returns the request parameters for a model of that profile; `auto` follows the profile's preference."""
        base = ModelRequestParameters(output_mode="auto", output_object=self._object, output_tools=[self._tool])
        by_tool = profile.get("default_structured_output_mode", "tool") == "tool"
        if by_tool and not profile.get("supports_tools", True):
            is_native = profile.get("supports_json_schema_output", False)
            return base.with_default_output_mode("native" if is_native else "prompted")
        return base

    def read(self, response: ModelResponse) -> Out:
        """Parses a response: the tool call, or the JSON in its text, as weak models write it instead of the call.

        Raises:
            MalformedAnswer: nothing in it validates.
        """
        for part in response.parts:
            if isinstance(part, ToolCallPart) and part.tool_name == OUTPUT_TOOL:
                return self._validate(part.args_as_json_str())
        text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
        # Fences and phrases around the JSON are tolerated: they are not worth a second request.
        return self._validate(text[max(text.find("{"), 0) : text.rfind("}") + 1])

    def _validate(self, encoded: str) -> Out:
        try:
            return self._output.model_validate_json(encoded)
        except ValidationError as error:
            wrong = sorted({".".join(map(str, fault["loc"])) for fault in error.errors()} - {""})
            named = f": {', '.join(wrong[:5])}" if wrong else ""
            # Without the cause, which quotes the answer.
            raise MalformedAnswer(f"not the requested structure{named}") from None


CHAT = "chat"
NAMING = "naming"
SUMMARY = "summary"

Verdict_co = TypeVar("Verdict_co", bound=BaseModel, covariant=True)


class LLMModelFactory(Generic[Verdict_co]):
    """Creates models for agents and for direct requests.

    Args:
        verdict: the Pydantic model that moderation models answer with.
    """

    def __init__(self, fallback: LLMProviderFallback, builder: ModelBuilder, verdict: type[Verdict_co]) -> None:
        self._fallback = fallback
        self._builder = builder
        self._verdict = verdict
        self.create_routed_model = partial(RoutedModel, fallback, builder)
        """Creates a model for the requests of a `RequestSpec`."""

    def create_llm_model_with_fallback(
        self,
        context: str | None = None,
        model_settings: ModelSettings | None = None,
        force_provider: ModelChoice | str | None = None,
    ) -> RoutedModel:
        """Returns a model that asks the providers in the order of the fallback service, anew for each request.

        Args:
            context: the purpose of the requests, `chat` by default.
            model_settings: settings of every request.
            force_provider: an explicit choice of a provider, or of one of its models.

        Raises:
            UnknownProvider: the choice is not a configured provider.
        """
        choice = ModelChoice(force_provider) if isinstance(force_provider, str) else force_provider
        return self.create_routed_model(RequestSpec(context or CHAT, choice=choice), model_settings)

    def create_moderation_model(
        self, context: str, *, local_only: bool = False, chat: ChatRef | None = None
    ) -> DirectModel[Verdict_co]:
        """Returns a model that answers each request with a verdict.

        Args:
            context: the purpose of the requests: `moderation`.
            local_only: excludes remote providers.
            chat: the moderated chat, such as `telegram:-100`.
        """
        spec = RequestSpec(context, chat=chat, local_only=local_only)
        return DirectModel(self._fallback, self._builder, spec, StructuredOutput(self._verdict))

    def create_summariser(self, spec: RequestSpec) -> Summariser:
        """Returns a model that summarises a conversation.

        Args:
            spec: spec of the conversation's own requests: user, chat, choice and consent.
        """
        summary = replace(spec, purpose=SUMMARY, required=frozenset())
        return Summariser(DirectModel(self._fallback, self._builder, summary, SummaryOutput()))

    def create_name_generator_model(
        self,
        language: str | None,
        max_length: int,
        *,
        local_only: bool = False,
        chat: ChatRef | None = None,
        stands_back: bool = False,
    ) -> NameGenerator:
        """Returns a model that names conversations.

        Args:
            language: the user's, an IETF tag, if known.
            max_length: maximum characters of a name.
            local_only: excludes remote providers.
            chat: the chat of the conversation, such as `telegram:123`.
            stands_back: waits for no slot and leaves its own to a question; cancelled by that.
        """
        spec = RequestSpec(NAMING, chat=chat, local_only=local_only, stands_back=stands_back)
        model = DirectModel(self._fallback, self._builder, spec, ThreadNameOutput(max_length))
        return NameGenerator(model, language, max_length)
