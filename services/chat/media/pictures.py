"""Pictures of a turn: asked for by `/image`, which asks no chat model, or by the model through a tool."""

from typing import Protocol, cast

from pydantic_ai import FunctionToolset, RunContext
from pydantic_ai.messages import ModelRequest, TextContent, UserContent, UserPromptPart
from pydantic_ai.tools import ToolDefinition

from core.errors import BudgetExhausted, ConsentNeeded, ContentRefused, ProviderError
from core.messages import Incoming
from services.chat.framing import frame
from services.chat.tools import TurnContext
from services.llm.capabilities.asking import Picture
from services.llm.request import RequestSpec

IMAGES = "images"
"""The purpose of the requests."""
MOST_PICTURES = 2
"""Pictures that the model may draw in one turn."""
_DESCRIPTION = "draw"


class TextToImage(Protocol):
    """Draws pictures."""

    async def draw(self, description: str, spec: RequestSpec) -> Picture:
        """Draws a picture. Raises ProviderError."""
        ...


def picture_prompt(incoming: Incoming) -> ModelRequest:
    """Builds the prompt of `/image`; the description stands in its metadata."""
    content: list[UserContent] = [TextContent(frame(incoming), metadata={_DESCRIPTION: incoming.text})]
    return ModelRequest([UserPromptPart(content, timestamp=incoming.sent_at)])


def find_description(prompt: ModelRequest) -> str | None:
    """Returns the description of a picture that a prompt asks for; None where it is a message to the model."""
    for part in prompt.parts:
        items = part.content if isinstance(part, UserPromptPart) and not isinstance(part.content, str) else ()
        for item in items:
            if isinstance(item, TextContent) and isinstance(item.metadata, dict):
                # Metadata is arbitrary JSON.
                found = cast("dict[str, object]", item.metadata).get(_DESCRIPTION)
                if isinstance(found, str):
                    return found
    return None


def picture_tools() -> FunctionToolset[TurnContext]:
    """Returns the tool, which is offered where a turn can show pictures."""
    tools = FunctionToolset[TurnContext](docstring_format="google", require_parameter_descriptions=True, id="pictures")
    tools.add_function(draw_picture, prepare=_only_where_shown)
    return tools


async def draw_picture(context: RunContext[TurnContext], description: str) -> str:
    """Draw a picture and show it to the user under your answer. Only when the user asks for a picture.

    Args:
        context: the turn.
        description: everything that is to be seen, in detail and in English.
    """
    draw = context.deps.draw
    if draw is None:
        return "No picture can be drawn here."
    try:
        is_drawn = await draw(description)
    except ConsentNeeded:
        return (
            "This chat has not agreed to external providers, and only those draw. The user may allow them in /privacy."
        )
    except BudgetExhausted:
        return "The budget for today is used up, so no picture was drawn."
    except ContentRefused:
        return "The provider declined to draw this."
    except ProviderError:
        return "No picture could be drawn just now. Tell the user so."
    return "It is drawn and shown under your answer." if is_drawn else f"At most {MOST_PICTURES} pictures an answer."


async def _only_where_shown(context: RunContext[TurnContext], tool: ToolDefinition) -> ToolDefinition | None:
    return tool if context.deps.draw is not None else None
