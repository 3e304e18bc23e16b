"""AgentSteps: no run is open while a model answers; corrections are counted over the steps."""

import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic_ai import Agent, AgentRun
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import BinaryImage, FilePart, ModelMessage, ModelRequest, ModelResponse
from pydantic_ai.models import CompletedStreamedResponse, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.test import TestModel as ScriptedModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import UsageLimits

from services.chat.agent_steps import AgentSteps
from services.chat.reply import ReplyPhase
from tests.support.chat_harness import ChatHarness
from tests.support.fake_llm.server import Behaviour, LLMServer, answer, stall, tool_call


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


class Painter(ScriptedModel):
    """A model that answers with a picture alone."""

    @asynccontextmanager
    async def open_stream(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> AsyncGenerator[StreamedResponse]:
        del messages, settings
        picture = FilePart(BinaryImage(b"\x89PNG", media_type="image/png"))
        yield CompletedStreamedResponse(ModelResponse([picture]), model_request_parameters=parameters)


async def test_answer_without_text_fails() -> None:
    """It is kept in the messages; nothing of it could be shown."""
    agent: Agent[Any, str] = Agent()
    model: Any = Painter()  # of a RoutedModel it has the stream
    steps = AgentSteps(agent, model, None, UsageLimits(), lambda _: None)
    with pytest.raises(UnexpectedModelBehavior):
        await steps.run([ModelRequest.user_text_prompt("Hello?")])
    assert [type(part) for message in steps.messages for part in message.parts] == [FilePart]
