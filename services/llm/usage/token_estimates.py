"""Token estimates: for messages that are not sent yet, and for usage that a provider did not report."""

from collections.abc import Sequence
from typing import Any

from pydantic_ai.messages import (
    BaseToolCallPart,
    BaseToolReturnPart,
    BinaryContent,
    ModelMessage,
    SystemPromptPart,
    TextContent,
    TextPart,
    ThinkingPart,
    UserContent,
    UserPromptPart,
)

ATTACHMENT_TOKENS = 1000
"""An image. Anthropic counts width x height / 750 (https://docs.anthropic.com/en/docs/build-with-claude/vision): 1,638
for the largest photo that Telegram sends. OpenAI counts 85 + 170 for each tile of 512 pixels: 765 to 1,105 for it."""

MESSAGE_TOKENS = 4
"""Overhead of a message: role and separators (OpenAI cookbook, "How to count tokens with tiktoken": 3 to 4)."""

BYTES_A_TOKEN = 4
"""The usual rule for English. UTF-8 bytes instead of characters: other scripts have fewer characters per token and more
bytes per character, which roughly cancels out."""

_PART_TOKENS = 16
"""A part of an unknown kind."""


def text_tokens(text: str) -> int:
    """Estimates the tokens of a text."""
    return -(-len(text.encode(errors="replace")) // BYTES_A_TOKEN)


def estimate_tokens(messages: Sequence[ModelMessage]) -> int:
    """Estimates the tokens of messages without a provider's tokenizer."""
    return sum(MESSAGE_TOKENS + sum(map(part_tokens, message.parts)) for message in messages)


def part_tokens(part: Any) -> int:  # noqa: ANN401  # any of some thirty kinds of part
    """Estimates the tokens of a part of a message."""
    match part:
        case UserPromptPart(content=str(text)) | TextPart(content=text) | ThinkingPart(content=text):
            return text_tokens(text)
        case SystemPromptPart(content=text):
            return text_tokens(text)
        case UserPromptPart(content=items):
            return sum(map(item_tokens, items))
        case BaseToolCallPart():
            return text_tokens(part.tool_name) + text_tokens(part.args_as_json_str())
        case BaseToolReturnPart():
            return text_tokens(part.tool_name) + text_tokens(part.model_response_str())
        case _:
            return _PART_TOKENS


def item_tokens(item: UserContent) -> int:
    """Estimates the tokens of a piece of a prompt."""
    match item:
        case str(text) | TextContent(content=text):
            return text_tokens(text)
        case BinaryContent() if item.media_type.startswith("text/"):
            return -(-len(item.data) // BYTES_A_TOKEN)
        case _:
            return ATTACHMENT_TOKENS
