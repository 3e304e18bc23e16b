"""What a request to a provider used, for whoever counts it.

Every request to a model, streamed or plain, with an agent or without, passes `Attempts`; that is where it is counted,
once, with what the provider said of it.
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
    """How a request to one provider ended."""

    ANSWERED = "answered"
    STOPPED = "stopped"
    """Nobody wanted the rest of it."""
    INTERRUPTED = "interrupted"
    """The provider broke off after its first output."""
    REFUSED = "refused"
    """Its content filter."""
    FAILED = "failed"
    """There was no answer."""


@dataclass(frozen=True, slots=True)
class TokenUse:
    """What a request used.

    Args:
        usage: tokens by kind.
        is_estimated: whether that is, in part at least, our estimate, because the provider did not say.
        is_answer: whether what came is for somebody to read, and not a step of a tool loop.
    """

    usage: RequestUsage
    is_estimated: bool = False
    is_answer: bool = False


NOTHING = TokenUse(RequestUsage())
"""What a request used that nothing came of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReport:
    """One request to one provider, when it was over.

    Args:
        at: seconds since the epoch.
        provider: who was asked.
        model: for which of its models.
        spec: the request.
        end: what became of it.
        is_failure: whether that is the provider's fault.
        used: what it used.
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
        """Take note of a request; must not block, and must not fail."""
        ...


def used_whole(usage: RequestUsage, parts: Sequence[ModelResponsePart], sent: Sequence[ModelMessage]) -> TokenUse:
    """What a request used that came to its end.

    Args:
        usage: what the provider said.
        parts: what came.
        sent: what it was sent.
    """
    is_answer = not any(isinstance(part, ToolCallPart) for part in parts)
    if usage.input_tokens or usage.output_tokens:
        return TokenUse(usage, is_answer=is_answer)
    estimate = RequestUsage(
        input_tokens=estimate_tokens(sent), output_tokens=estimate_tokens([ModelResponse(list(parts))])
    )
    return TokenUse(estimate, is_estimated=True, is_answer=is_answer)


def used_partly(usage: RequestUsage, parts: Sequence[ModelResponsePart], sent: Sequence[ModelMessage]) -> TokenUse:
    """What a request used that did not come to its end, after its first output.

    Most providers say what it used at the end only, some say the input at the beginning: what was said counts, and
    what is known to be more than that is estimated.
    """
    read = usage.input_tokens or estimate_tokens(sent)
    written = max(usage.output_tokens, estimate_tokens([ModelResponse(list(parts))]))
    is_estimated = (read, written) != (usage.input_tokens, usage.output_tokens)
    return TokenUse(replace(usage, input_tokens=read, output_tokens=written), is_estimated, is_answer=True)


def used_by_prompt(sent: Sequence[ModelMessage]) -> TokenUse:
    """What a request used that was given up before its first output: its prompt, which was read all the same."""
    return TokenUse(RequestUsage(input_tokens=estimate_tokens(sent)), is_estimated=True)
