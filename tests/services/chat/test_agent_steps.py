"""AgentSteps: no run is open while a model answers; corrections are counted over the steps."""

import gc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic_ai import Agent, AgentRun
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import (
    BinaryImage,
    FilePart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    RetryFeedbackPart,
    TextPart,
)
from pydantic_ai.models import CompletedStreamedResponse, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.test import TestModel as ScriptedModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import UsageLimits

from core.config.providers import ProviderKind
from core.db.database import Database
from services.chat.agent_steps import MOST_CONTINUATIONS, AgentSteps
from services.chat.reply import ReplyPhase
from services.chat.store.history import parse_messages
from tests.support.chat_harness import ChatHarness, chat_harness
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import Behaviour, LLMServer, answer, cut, stall, status, tool_call


@pytest.mark.parametrize("steps", [(), (tool_call("current_time", {}),)], ids=["first step", "after a tool call"])
async def test_no_run_is_open_while_the_model_answers(
    harness: ChatHarness, first: LLMServer, steps: tuple[Behaviour, ...]
) -> None:
    """An open run is most of the memory of a turn that waits."""
    first.script(*steps, stall(after_pieces=2))
    reply, turn = harness.begin()
    await reply.wait_beyond(0)
    assert not [each for each in gc.get_objects() if isinstance(each, AgentRun)]
    reply.stop()
    await turn
    assert reply.text


@pytest.mark.parametrize(
    ("zones", "phase"),
    [
        (["Xanadu", "Xanadu"], ReplyPhase.COMPLETE),
        (["Xanadu", "Xanadu", "Xanadu"], ReplyPhase.FAILED),
        (["Xanadu", "Xanadu", "UTC", "Xanadu", "Xanadu"], ReplyPhase.COMPLETE),  # counted anew after a right call
        (["Xanadu", "UTC", "Xanadu", "Xanadu", "Xanadu"], ReplyPhase.FAILED),
    ],
)
async def test_wrong_calls_in_a_row_are_counted_over_steps(
    harness: ChatHarness, first: LLMServer, zones: list[str], phase: ReplyPhase
) -> None:
    """Two corrections are given, as within one run of the library."""
    first.script(*(tool_call("current_time", {"time_zone": zone}) for zone in zones), answer("Noon."))
    reply = await harness.say()
    assert reply.phase is phase


@pytest.fixture
async def claude(file: Database, first: LLMServer) -> AsyncIterator[ChatHarness]:
    async with chat_harness(file, provider_at(first, ProviderKind.ANTHROPIC)) as harness:
        yield harness


@pytest.mark.parametrize(
    ("then", "phase", "stored"),
    [
        (answer("a second half."), ReplyPhase.COMPLETE, ["A half,", "a second half."]),
        (cut(after_pieces=1), ReplyPhase.INTERRUPTED, ["A half,", "The"]),
        (status(400), ReplyPhase.INTERRUPTED, ["A half,"]),
    ],
    ids=["continued", "broken off", "refused"],
)
async def test_paused_answer_is_continued(
    claude: ChatHarness, first: LLMServer, then: Behaviour, phase: ReplyPhase, stored: list[str]
) -> None:
    """The partial answer is sent back, and kept if its continuation fails."""
    first.default = then
    first.script(answer("A half,", finish="pause_turn"))
    reply = await claude.say()
    assert (reply.phase, reply.text.split("\n\n")) == (phase, stored)
    assert [each["content"][0]["text"] for each in first.requests[1].json["messages"]] == ["Hello?", "A half,"]
    row = await claude.row(reply)
    responses = [each for each in parse_messages(row.messages or "", row.id) if isinstance(each, ModelResponse)]
    assert [[part.content for part in each.parts if isinstance(part, TextPart)] for each in responses] == [stored]
    assert responses[0].state == ("complete" if phase is ReplyPhase.COMPLETE else "interrupted")


async def test_answer_that_is_paused_again_and_again_ends(claude: ChatHarness, first: LLMServer) -> None:
    first.default = answer("More", finish="pause_turn")
    reply = await claude.say()
    assert reply.phase is ReplyPhase.INTERRUPTED
    assert len(first.requests) == 1 + MOST_CONTINUATIONS


async def test_turns_of_a_conversation_have_its_id(harness: ChatHarness, first: LLMServer) -> None:
    """As within a run of the library, which takes it from the newest message that has one."""
    first.script(tool_call("current_time", {}), answer("Noon."), answer("One."))
    rows = [await harness.row(await harness.say()) for _ in range(2)]
    stored = [each for row in rows for each in parse_messages(row.messages or "", row.id)]
    answers = [each for each in stored if isinstance(each, ModelResponse)]
    assert len({each.conversation_id for each in answers} - {None}) == 1
    assert len(answers) == 3
    assert all(each.run_id for each in answers)


class Painter(ScriptedModel):
    """A model that answers with so many pictures, then with text."""

    def __init__(self, pictures: int) -> None:
        super().__init__()
        self._pictures = pictures

    @asynccontextmanager
    async def open_stream(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> AsyncGenerator[StreamedResponse]:
        del messages, settings
        self._pictures -= 1
        picture = FilePart(BinaryImage(b"\x89PNG", media_type="image/png"))
        part = picture if self._pictures >= 0 else TextPart("A cat.")
        yield CompletedStreamedResponse(ModelResponse([part]), model_request_parameters=parameters)


async def paint(pictures: int, steps: list[ModelMessage]) -> None:
    agent: Agent[Any, str] = Agent()
    model: Any = Painter(pictures)  # of a RoutedModel it has the stream
    await AgentSteps(agent, model, None, UsageLimits(), lambda _: None, steps).run(
        [ModelRequest.user_text_prompt("Hello?")]
    )


async def test_answer_without_text_is_asked_for_again() -> None:
    """As within a run of the library: twice, and nothing of such an answer could be shown."""
    messages: list[ModelMessage] = []
    await paint(2, messages)
    parts = [type(part) for message in messages for part in message.parts]
    assert parts == [FilePart, RetryFeedbackPart, FilePart, RetryFeedbackPart, TextPart]
    messages = []
    with pytest.raises(UnexpectedModelBehavior):
        await paint(3, messages)
    assert [type(part) for message in messages for part in message.parts] == [*parts[:-1], FilePart]
