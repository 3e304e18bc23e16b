"""Usage of a request to a provider, reported to a meter.

Every request to a model, streamed or plain, is counted once where it passes: in `Attempts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponsePart, ToolCallPart
from pydantic_ai.usage import RequestUsage

from core.config.providers import ProviderSettings
from services.llm.request import RequestSpec
from services.llm.usage.token_estimates import estimate_tokens


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
    """

    at: float
    provider: ProviderSettings
    model: str
    spec: RequestSpec
    end: RequestEnd
    is_failure: bool
    used: TokenUse


class UsageMeter(Protocol):
    """Counts requests."""

    def count(self, report: RequestReport) -> None:
        """Counts a request. Must neither block nor raise."""
        ...


def used_whole(usage: RequestUsage, parts: Sequence[ModelResponsePart], sent: Sequence[ModelMessage]) -> TokenUse:
    """Returns the usage of a completed request, estimated where the provider did not report it.

    Args:
        usage: as reported by the provider.
        parts: of the response.
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
