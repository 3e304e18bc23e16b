"""Tools for the files of a conversation: reading another part of a long document, and drawing a picture."""

from typing import Protocol

import structlog
from pydantic_ai import ModelRetry, RunContext

from core.errors import BudgetExhausted, ConsentNeeded, ContentRefused, ProviderError, StorageError
from core.messages import TextFile
from services.chat.prompts import frame_file, split_parts
from services.chat.store.files import DocumentStore
from services.chat.turn import Ability, AbilityTools, TurnContext
from services.llm.capabilities.asking import Picture
from services.llm.request import RequestSpec

log = structlog.get_logger()

IMAGES = "images"
"""The purpose of requests to draw."""
MOST_PICTURES = 2
"""Pictures that the model may draw in one turn."""
UNAVAILABLE = "The documents of this conversation cannot be read just now."


class DocumentTools:
    """The tool over the documents of a conversation. It only reads."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    def toolset(self) -> AbilityTools:
        """Returns the tool, which is offered in conversations with a long document."""
        tools = AbilityTools(Ability.READ_DOCUMENTS)
        tools.add_function(self.read_document)
        return tools

    async def read_document(self, context: RunContext[TurnContext], name: str, part: int) -> str:
        """Read a part of a long document that was sent in this conversation.

        Args:
            context: the turn.
            name: the name of the file, as it was given.
            part: the number of the part, from 1 on.
        """
        key = context.deps.conversation
        try:
            text = await self._documents.read(key, name)
            if text is None:
                names = await self._documents.names(key)
                raise ModelRetry(f"There is no such document; there are: {', '.join(names) or 'none'}")
        except StorageError as error:
            log.warning("document.read_failed", error=str(error))
            return UNAVAILABLE
        file = TextFile(name, text, by_part=True)
        if not 1 <= part <= len(split_parts(text)):
            raise ModelRetry(f"{name} has the parts 1 to {len(split_parts(text))}")
        return frame_file(file, part)


class TextToImage(Protocol):
    """Draws pictures."""

    async def draw(self, description: str, spec: RequestSpec) -> Picture:
        """Draws a picture. Raises ProviderError."""
        ...


def picture_tools() -> AbilityTools:
    """Returns the tool that draws, which is offered where a turn can show pictures."""
    tools = AbilityTools(Ability.DRAW)
    tools.add_function(draw_picture)
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
