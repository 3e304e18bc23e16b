"""Tells how a stream ended: with an answer or without one, finished, given up or refused by its provider."""

from collections.abc import Sequence
from typing import Any

from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelResponsePart, TextPart, ThinkingPart
from pydantic_ai.models import StreamedResponse

from services.llm.providers.wire.tolerant_streams import TolerantStream
from services.llm.routing.faults.outcomes import classify
from services.llm.routing.faults.reasons import AnswerGivenUp
from services.llm.routing.faults.refusal_words import Fault

AFTER_FINISH_S = 2.0
"""Longest time that a stream may take from its finish reason to its usage and end marker."""
GIVEN_UP = frozenset({"error", "abort", "insufficient_system_resource", "OTHER", "FINISH_REASON_UNSPECIFIED"})
"""Finish reasons of an unfinished answer that the library does not map: OpenRouter's and LiteLLM's, vLLM's, DeepSeek's,
Google's."""


def is_answer(part: ModelResponsePart) -> bool:
    """Returns whether a part is shown to a user or acted on by an agent; thinking and white space are not."""
    match part:
        case TextPart(content=text):
            return bool(text.strip())
        case ThinkingPart():
            return False
        case _:
            return True


def emptiness(parts: Sequence[ModelResponsePart]) -> str:
    """Returns the reason why parts contain no answer."""
    return "only thinking, no answer" if any(isinstance(part, ThinkingPart) for part in parts) else "empty answer"


def refusal(details: dict[str, Any] | None) -> str:
    """Returns the provider's own words about its refusal, or a default."""
    words = (details or {}).get("refusal")
    return str(words) if words else "its content filter stopped the answer"


def unfinished_reason(reason: str | None, details: dict[str, Any] | None) -> str | None:
    """Returns why a provider did not finish its answer; None if it did.

    Args:
        reason: the finish reason as the library maps it, None where it has no mapping.
        details: the response's details, with the provider's own finish reason.
    """
    named = (details or {}).get("finish_reason")
    if reason == "error" or (reason is None and named in GIVEN_UP):
        return f"gave its answer up ({named})" if named in GIVEN_UP else "gave its answer up"
    return None


def is_finished(response: StreamedResponse) -> bool:
    """Returns whether a provider gave a finish reason, its own wording included, that no text has followed."""
    if isinstance(response, TolerantStream) and not response.is_finish_reliable:
        return response.is_ended_by_server
    return response.finish_reason is not None or bool((response.provider_details or {}).get("finish_reason"))


def lacks_end_marker_only(response: StreamedResponse, error: Exception) -> bool:
    """Returns whether a stream that broke off, or fell silent, was finished by its provider before."""
    return is_finished(response) and classify(error, 0).fault in {Fault.HICCUP, Fault.DOWN}


def require_finish(response: StreamedResponse) -> None:
    """Checks that a stream that has ended was finished by its provider.

    Raises:
        AnswerGivenUp: its provider reports that it did not finish.
        ModelAPIError: it ended without a finish reason.
    """
    if response.cancelled or response.finish_reason == "content_filter":
        return
    if failed := unfinished_reason(response.finish_reason, response.provider_details):
        raise AnswerGivenUp(failed)
    if not is_finished(response):
        raise ModelAPIError(response.model_name, "the stream ended without a finish_reason")
