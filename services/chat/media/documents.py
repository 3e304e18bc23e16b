"""Long documents: divided into parts, and the tool by which a model reads another part than the first."""

import structlog
from pydantic_ai import FunctionToolset, ModelRetry, RunContext
from pydantic_ai.tools import ToolDefinition

from core.errors import StorageError
from core.messages import TextFile
from services.chat.framing import frame_file, split_parts
from services.chat.store.documents import DocumentStore
from services.chat.tools import TurnContext

log = structlog.get_logger()

UNAVAILABLE = "The documents of this conversation cannot be read just now."


class DocumentTools:
    """The tool over the documents of a conversation. It only reads."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    def toolset(self) -> FunctionToolset[TurnContext]:
        """Returns the tool, which is offered in conversations with a long document."""
        tools = FunctionToolset[TurnContext](
            docstring_format="google", require_parameter_descriptions=True, id="documents"
        )
        tools.add_function(self.read_document, prepare=_only_with_documents)
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


async def _only_with_documents(context: RunContext[TurnContext], tool: ToolDefinition) -> ToolDefinition | None:
    return tool if context.deps.has_documents else None
