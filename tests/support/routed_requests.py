"""Requests to a model without an agent."""

from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

TIME_TOOL = ToolDefinition(
    name="current_time",
    description="The time in a zone.",
    parameters_json_schema={"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
)


async def ask(
    model: Model,
    text: str = "How are you?",
    *,
    streamed: bool = False,
    tools: tuple[ToolDefinition, ...] = (),
    settings: ModelSettings | None = None,
) -> ModelResponse:
    """Make one request, plain or streamed and read to its end."""
    messages = [ModelRequest(parts=[UserPromptPart(text)])]
    parameters = ModelRequestParameters(function_tools=list(tools))
    if not streamed:
        return await model.request(messages, settings, parameters)
    async with model.request_stream(messages, settings, parameters) as stream:
        async for _ in stream:
            pass
        return stream.get()


def piece_of(event: ModelResponseStreamEvent) -> str:
    """Return the text that an event of a stream adds."""
    match event:
        case PartStartEvent(part=TextPart(content=content)):
            return content
        case PartDeltaEvent(delta=TextPartDelta(content_delta=content)):
            return content
        case _:
            return ""
