"""AgentSteps does what one run of the library's agent does, step by step; this fails where the library changes that."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import pytest
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponsePart,
    NativeToolCallPart,
    NativeToolReturnPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
)
from pydantic_ai.models import CompletedStreamedResponse, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.test import TestModel as Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import UsageLimits

from services.chat.agent_steps import AgentSteps

LIMITS = UsageLimits(request_limit=4, tool_calls_limit=5)
TEXT = TextPart("Done.")
WRONG = ToolCallPart("refuse", "{}")
UNKNOWN = ToolCallPart("nothing", "{}")
MISTYPED = ToolCallPart("double", '{"number": "two"}')
CUT_OFF = ToolCallPart("double", '{"number": ')
RIGHT = ToolCallPart("double", '{"number": 2}')
FAILING = ToolCallPart("fail", "{}")
SEARCH = (NativeToolCallPart("web_search", {}, "1"), NativeToolReturnPart("web_search", "found", "1"))
THOUGHT = ThinkingPart("Hm.")

SCRIPTS: dict[str, list[list[ModelResponsePart]]] = {
    "text": [[TEXT]],
    "text before a search": [[TEXT, *SEARCH]],
    "call": [[RIGHT], [TEXT]],
    "call after text": [[TEXT, RIGHT], [TEXT]],
    "call after a thought": [[THOUGHT, RIGHT], [TEXT]],
    "calls in parallel": [[RIGHT, WRONG, UNKNOWN], [TEXT]],
    "unknown tool": [[UNKNOWN], [UNKNOWN], [TEXT]],
    "unknown tool too often": [[UNKNOWN]] * 3 + [[TEXT]],
    "mistyped arguments": [[MISTYPED], [CUT_OFF], [TEXT]],
    "mistyped arguments too often": [[MISTYPED]] * 3 + [[TEXT]],
    "refused call": [[WRONG, WRONG], [WRONG], [TEXT]],
    "refused call too often": [[WRONG]] * 3 + [[TEXT]],
    "refused calls between right ones": [[WRONG], [RIGHT], [WRONG], [TEXT]],
    "a tool that fails": [[FAILING], [TEXT]],
    "too many requests": [[RIGHT]] * 5,
    "too many calls": [[RIGHT] * 3, [RIGHT] * 3, [TEXT]],
    "nothing": [[], [TEXT]],
    "a thought alone": [[THOUGHT], [THOUGHT], [TEXT]],
    "a thought alone too often": [[THOUGHT]] * 3 + [[TEXT]],
}


class Scripted(Model):
    """A model that gives prepared responses, and keeps what it was sent."""

    def __init__(self, script: Sequence[Sequence[ModelResponsePart]]) -> None:
        super().__init__()
        self._left = deepcopy(list(script))
        self.sent: list[list[tuple[str, ...]]] = []

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        del run_context
        async with self.open_stream(messages, model_settings, model_request_parameters) as stream:
            yield stream

    @asynccontextmanager
    async def open_stream(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> AsyncGenerator[StreamedResponse]:
        del settings
        self.sent.append([*shape(messages), tuple(tool.name for tool in parameters.function_tools)])
        yield CompletedStreamedResponse(ModelResponse(self._left.pop(0)), model_request_parameters=parameters)


def create_agent() -> Agent[None, str]:
    agent = Agent(deps_type=type(None), instructions="Be brief.", retries=2)

    @agent.tool_plain
    async def double(number: int) -> int:
        return 2 * number

    @agent.tool_plain
    async def refuse() -> str:
        raise ModelRetry("Not like this.")

    @agent.tool_plain
    async def fail() -> str:
        raise ValueError("a bug")

    del double, refuse, fail
    return agent


def shape(messages: Sequence[ModelMessage]) -> list[tuple[str, ...]]:
    """Return the kinds, tools and contents of the parts."""
    return [
        (part.part_kind, getattr(part, "tool_name", ""), str(getattr(part, "content", "")))
        for message in messages
        for part in message.parts
    ]


HISTORY: list[ModelMessage] = [
    ModelRequest.user_text_prompt("Hello"), ModelResponse([TextPart("Hello!")]), ModelRequest.user_text_prompt("And?"),
]  # fmt: skip


async def run_of_the_library(model: Model) -> tuple[str | None, list[tuple[str, ...]]]:
    async with create_agent().iter(message_history=HISTORY, model=model, usage_limits=LIMITS) as run:
        try:
            async for node in run:
                if Agent.is_model_request_node(node):
                    async with node.stream(run.ctx) as events:
                        async for _ in events:
                            pass
        except (AgentRunError, ValueError) as error:
            return type(error).__name__, shape(run.new_messages())
        return None, shape(run.new_messages())


async def run_in_steps(model: Any) -> tuple[str | None, list[tuple[str, ...]]]:
    """Any: of a RoutedModel it has the stream."""
    steps = AgentSteps(create_agent(), model, None, LIMITS, lambda _: None)
    try:
        await steps.run(HISTORY)
    except (AgentRunError, ValueError) as error:
        return type(error).__name__, shape(steps.messages)
    return None, shape(steps.messages)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
async def test_steps_do_what_a_run_of_the_library_does(script: list[list[ModelResponsePart]]) -> None:
    """The refusal of the last call, after which none is admitted, is kept in the messages as well."""
    model, other = Scripted(script), Scripted(script)
    error, messages = await run_of_the_library(model)
    own_error, own_messages = await run_in_steps(other)
    assert (own_error, other.sent) == (error, model.sent)
    assert own_messages[: len(messages)] == messages
    assert len(own_messages) - len(messages) <= (error is not None)
