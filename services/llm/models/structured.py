"""A value of a Pydantic model as an answer.

How it is asked for (by a tool, by the provider's own JSON mode, or in words) is decided for each model by what that
can do: one mode for a chain of different models would be wrong for some of them.
"""

from collections.abc import Mapping
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.tools import ToolDefinition

from services.llm.models.direct import MalformedAnswer

OUTPUT_TOOL = "final_result"
MAX_TOKENS = 1000

Out = TypeVar("Out", bound=BaseModel)


class StructuredOutput(Generic[Out]):
    """The shape of a Pydantic model.

    Args:
        output: the model.
        max_tokens: the most that an answer may be long.
    """

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
        """The most that an answer may be long."""
        return self._max_tokens

    def parameters(self, profile: Mapping[str, object]) -> ModelRequestParameters:
        """How a model of that profile is asked for it: `auto` is what the profile says suits it best."""
        asked = ModelRequestParameters(output_mode="auto", output_object=self._object, output_tools=[self._tool])
        by_tool = profile.get("default_structured_output_mode", "tool") == "tool"
        if by_tool and not profile.get("supports_tools", True):
            is_native = profile.get("supports_json_schema_output", False)
            return asked.with_default_output_mode("native" if is_native else "prompted")
        return asked

    def read(self, response: ModelResponse) -> Out:
        """The value of a response.

        A weak model writes down what it should have called the tool with; that is as good.

        Raises:
            Misfit: it has none that validates.
        """
        for part in response.parts:
            if isinstance(part, ToolCallPart) and part.tool_name == OUTPUT_TOOL:
                return self._validated(part.args_as_json_str())
        text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
        # Fences and phrases around it are not worth a second request.
        return self._validated(text[max(text.find("{"), 0) : text.rfind("}") + 1])

    def _validated(self, encoded: str) -> Out:
        try:
            return self._output.model_validate_json(encoded)
        except ValidationError as error:
            wrong = sorted({".".join(map(str, fault["loc"])) for fault in error.errors()} - {""})
            named = f": {', '.join(wrong[:5])}" if wrong else ""
            # Without the cause: it quotes what was answered.
            raise MalformedAnswer(f"not the structure that was asked for{named}") from None
