"""Bounds of one answer: characters of its text, its thinking and its tool arguments."""

from pydantic_ai.messages import (
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)

MAX_TEXT = 256 << 10
"""Characters of an answer's text that are read; a longer one ends as cut."""
MAX_THINKING = 256 << 10
"""Characters of an answer's thinking that are read."""
MAX_TOOL_ARGUMENTS = 256 << 10
"""Characters of the names and arguments of all tool calls of an answer."""


class AnswerBounds:
    """Counts down how much of an answer may still be read."""

    def __init__(self) -> None:
        self._text_left = MAX_TEXT
        self._thinking_left = MAX_THINKING
        self._arguments_left = MAX_TOOL_ARGUMENTS

    def take(self, event: ModelResponseStreamEvent) -> str | None:
        """Count an event; returns the bound that it exceeds, in words for operators."""
        match event:
            case (
                PartDeltaEvent(delta=TextPartDelta(content_delta=piece)) | PartStartEvent(part=TextPart(content=piece))
            ):
                self._text_left -= len(piece)
                return "more than 256 KiB of text" if self._text_left < 0 else None
            case (
                PartDeltaEvent(delta=ThinkingPartDelta(content_delta=piece))
                | PartStartEvent(part=ThinkingPart(content=piece))
            ):
                self._thinking_left -= len(piece or "")
                return "more than 256 KiB of thinking" if self._thinking_left < 0 else None
            case (
                PartDeltaEvent(delta=ToolCallPartDelta(tool_name_delta=name, args_delta=arguments))
                | PartStartEvent(part=ToolCallPart(tool_name=name, args=arguments))
            ):
                self._arguments_left -= len(name or "") + _length(arguments)
                return "more than 256 KiB of tool arguments" if self._arguments_left < 0 else None
            case _:
                return None


def _length(arguments: object) -> int:
    return 0 if arguments is None else len(arguments) if isinstance(arguments, str) else len(str(arguments))
