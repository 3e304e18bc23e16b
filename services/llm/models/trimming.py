"""Shortens a conversation at turn borders, so that it fits into a context window.

A turn begins with the user's message and ends before the next one: a tool call is never parted from its result. The
system text, a summary and the newest turn are always kept.
"""

from collections.abc import Sequence
from dataclasses import replace

from pydantic_ai.messages import (
    CompactionPart,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    SystemPromptPart,
    UserPromptPart,
)

from services.llm.usage import estimate_tokens

ANSWER_SHARE = 0.25
"""Part of a context window that is left for the answer."""


def trim(messages: Sequence[ModelMessage], limit: int) -> tuple[list[ModelMessage], bool]:
    """Returns the newest turns within a limit, and whether they are within it.

    Args:
        messages: the whole conversation.
        limit: limit in estimated tokens.
    """
    if estimate_tokens(messages) <= limit:
        return list(messages), True
    starts = _turn_starts(messages)
    for start in starts[1:]:
        kept = _with_system(_lasting_parts(messages[:start]), messages[start:])
        if estimate_tokens(kept) <= limit:
            return kept, True
    kept = keep_newest_turn(messages)
    return kept, estimate_tokens(kept) <= limit


def keep_newest_turn(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """Returns the newest turn, with the system text of the earlier ones."""
    starts = _turn_starts(messages)
    if not starts or starts[-1] == 0:
        return list(messages)
    return _with_system(_lasting_parts(messages[: starts[-1]]), messages[starts[-1] :])


def has_earlier_turns(messages: Sequence[ModelMessage]) -> bool:
    """Returns whether something comes before the newest turn."""
    starts = _turn_starts(messages)
    return bool(starts) and starts[-1] > 0


def _turn_starts(messages: Sequence[ModelMessage]) -> list[int]:
    return [
        place
        for place, message in enumerate(messages)
        if isinstance(message, ModelRequest) and any(isinstance(part, UserPromptPart) for part in message.parts)
    ]


def _lasting_parts(messages: Sequence[ModelMessage]) -> list[ModelRequestPart]:
    return [
        part
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, SystemPromptPart | CompactionPart)
    ]


def _with_system(system: Sequence[ModelRequestPart], messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    first = messages[0]
    if not system or not isinstance(first, ModelRequest):
        return list(messages)
    own = [part for part in first.parts if isinstance(part, SystemPromptPart)]
    rest = [part for part in first.parts if not isinstance(part, SystemPromptPart)]
    return [replace(first, parts=[*system, *own, *rest]), *messages[1:]]
