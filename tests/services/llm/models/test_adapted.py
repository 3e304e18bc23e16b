"""Conversations are shortened at turn borders."""

import pytest
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

from services.llm.models.adapted import AdaptableRequest, has_earlier_turns, keep_newest_turn, trim
from services.llm.request import Adaptation, Capability
from services.llm.usage import estimate_tokens

CALL = ToolCallPart("current_time", {}, "c1")
CONVERSATION: list[ModelMessage] = [
    ModelRequest([SystemPromptPart("Be brief."), UserPromptPart("first " * 50)]),
    ModelResponse([TextPart("yes " * 50)]),
    ModelRequest([UserPromptPart("what time? " * 20)]),
    ModelResponse([CALL]),
    ModelRequest([ToolReturnPart("current_time", "eight " * 20, "c1")]),
    ModelResponse([TextPart("Eight.")]),
    ModelRequest([UserPromptPart("thanks")]),
]
TOOL = ToolDefinition(name="current_time", description="Tells the time.", parameters_json_schema={"type": "object"})


def starts(messages: list[ModelMessage]) -> list[str]:
    """Return the beginning of each user message."""
    return [
        str(part.content)[:5]
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, UserPromptPart)
    ]


@pytest.mark.parametrize("limit", range(0, estimate_tokens(CONVERSATION) + 20, 7))
def test_trim_parts_no_call_from_its_result(limit: int) -> None:
    """At every limit: whole turns, the system text, the newest message; within the limit wherever that is possible."""
    kept, is_within = trim(CONVERSATION, limit)

    parts = [part for message in kept for part in message.parts]
    calls = [part.tool_call_id for part in parts if isinstance(part, ToolCallPart)]
    assert calls == [part.tool_call_id for part in parts if isinstance(part, ToolReturnPart)]
    assert [part.content for part in parts if isinstance(part, SystemPromptPart)] == ["Be brief."]
    assert starts(kept)[-1] == "thank"
    assert is_within == (estimate_tokens(kept) <= limit)
    if not is_within:
        assert kept == keep_newest_turn(CONVERSATION)


def test_newest_turn_has_nothing_before_it() -> None:
    assert has_earlier_turns(CONVERSATION)
    assert not has_earlier_turns(keep_newest_turn(CONVERSATION))


def test_system_text_moves_into_the_first_user_message() -> None:
    """And the instructions with it; nothing is left in the system role."""
    request = AdaptableRequest(CONVERSATION, None, ModelRequestParameters())

    sent, _, _ = request.apply(Adaptation(frozenset({Capability.SYSTEM_ROLE})))

    parts = [part for message in sent for part in message.parts]
    assert not any(isinstance(part, SystemPromptPart) for part in parts)
    first = next(part for part in parts if isinstance(part, UserPromptPart))
    assert str(first.content).startswith("Be brief.\n\nfirst ")
    assert starts(sent)[1:] == ["what ", "thank"]


def test_request_without_tools_keeps_their_results_as_text() -> None:
    """A model that refuses tools refuses calls in the history too."""
    request = AdaptableRequest(CONVERSATION, None, ModelRequestParameters(function_tools=[TOOL]))

    sent, _, parameters = request.apply(Adaptation(frozenset({Capability.TOOLS})))

    assert parameters.function_tools == []
    parts = [part for message in sent for part in message.parts]
    assert not any(isinstance(part, ToolCallPart | ToolReturnPart) for part in parts)
    assert any("eight" in str(part.content) for part in parts if isinstance(part, UserPromptPart))


def test_tools_make_room_in_the_smallest_window() -> None:
    """Once nothing more can be left out of the messages."""
    request = AdaptableRequest(CONVERSATION, None, ModelRequestParameters(function_tools=[TOOL]))

    sent, _, parameters = request.apply(Adaptation(max_input=10))

    assert starts(sent) == ["thank"]
    assert parameters.function_tools == []
