"""Structured output: answers that are validated by a Pydantic model.

The output mode (tool call, the provider's JSON mode, or a prompt) depends on the capabilities of each model: one mode
for a chain of different models would be wrong for some of them.
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
            raise MalformedAnswer(f"not the structure that was asked for{named}") from None
