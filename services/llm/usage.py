"""Usage of a request to a provider, reported to a meter, and token estimates where a provider reports none.

Every request to a model, streamed or plain, is counted once where it passes: in `Attempts`. Estimates also size
messages before they are sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from pydantic_ai.messages import (
    BaseToolCallPart,
    BaseToolReturnPart,
    BinaryContent,
    CompactionPart,
    ModelMessage,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextContent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.usage import RequestUsage

from core.config.providers import ProviderSettings
from services.llm.request import RequestSpec

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


def part_tokens(part: object) -> int:
    """Estimates the tokens of a part of a message, of some thirty kinds."""
    match part:
        case UserPromptPart(content=str(text)) | TextPart(content=text) | ThinkingPart(content=text):
            return text_tokens(text)
        case SystemPromptPart(content=text) | CompactionPart(content=str(text)):
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


class RequestEnd(StrEnum):
    """The result of a request to one provider."""

    ANSWERED = "answered"
    STOPPED = "stopped"
    """The consumer stopped reading."""
    INTERRUPTED = "interrupted"
    """The provider failed after its first output."""
    REFUSED = "refused"
    """Stopped by the provider's content filter."""
    FAILED = "failed"
    """No answer."""


@dataclass(frozen=True, slots=True)
class TokenUse:
    """Tokens of a request.

    Args:
        usage: tokens by kind.
        is_estimated: whether the count is partly an estimate, because the provider did not report it.
        is_answer: whether the result is read by a user, unlike a step of a tool loop.
    """

    usage: RequestUsage
    is_estimated: bool = False
    is_answer: bool = False


NOTHING = TokenUse(RequestUsage())
"""Usage of a request without a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReport:
    """One finished request to one provider.

    Args:
        at: seconds since the epoch.
        is_failure: whether the provider is at fault.
        first_output_s: seconds to the first output of a streamed answer, or to the end of a plain one.
    """

    at: float
    provider: ProviderSettings
    model: str
    spec: RequestSpec
    end: RequestEnd
    is_failure: bool
    used: TokenUse
    first_output_s: float | None = None


class UsageMeter(Protocol):
    """Counts requests."""

    def count(self, report: RequestReport) -> None:
        """Counts a request. Must neither block nor raise."""
        ...


def used_whole(usage: RequestUsage, parts: Sequence[ModelResponsePart], sent: Sequence[ModelMessage]) -> TokenUse:
    """Returns the usage of a completed request, estimated where the provider did not report it.

    Args:
        usage: usage reported by the provider.
        parts: parts of the response.
        sent: the messages of the request.
    """
    is_answer = not any(isinstance(part, ToolCallPart) for part in parts)
    if usage.input_tokens or usage.output_tokens:
        return TokenUse(usage, is_answer=is_answer)
    estimate = RequestUsage(
        input_tokens=estimate_tokens(sent), output_tokens=estimate_tokens([ModelResponse(list(parts))])
    )
    return TokenUse(estimate, is_estimated=True, is_answer=is_answer)


def used_partly(usage: RequestUsage, parts: Sequence[ModelResponsePart], sent: Sequence[ModelMessage]) -> TokenUse:
    """Returns the usage of a request that ended early after its first output.

    Most providers report usage only at the end, some report the input at the start: reported counts are used, and the
    rest is estimated.
    """
    read = usage.input_tokens or estimate_tokens(sent)
    written = max(usage.output_tokens, estimate_tokens([ModelResponse(list(parts))]))
    is_estimated = (read, written) != (usage.input_tokens, usage.output_tokens)
    return TokenUse(replace(usage, input_tokens=read, output_tokens=written), is_estimated, is_answer=True)


def used_by_prompt(sent: Sequence[ModelMessage]) -> TokenUse:
    """Returns the usage of a request that ended before its first output: its prompt, which the provider read."""
    return TokenUse(RequestUsage(input_tokens=estimate_tokens(sent)), is_estimated=True)
