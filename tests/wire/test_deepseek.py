"""Peculiarities of DeepSeek: keep-alive comments while queued, thinking that must be sent back, unfinished answers."""

import json

import pytest
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import ModelRequest, ModelResponse, ThinkingPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters

from core.config.providers import ProviderKind, ProviderSettings
from services.llm.providers.builder import ModelBuilder
from services.llm.routing.faults.outcomes import classify
from services.llm.routing.faults.refusal_words import Fault
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import Exchange, LLMServer
from tests.support.routed_requests import TIME_TOOL, ask

STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


@pytest.fixture
def deepseek(server: LLMServer) -> ProviderSettings:
    """The provider."""
    return provider_at(server, ProviderKind.DEEPSEEK)


@STREAMED
async def test_keep_alive_comments_before_the_answer(
    server: LLMServer, builder: ModelBuilder, deepseek: ProviderSettings, *, streamed: bool
) -> None:
    """While a request waits for its turn come blank lines, or comments in a stream; neither is an answer."""

    async def do(exchange: Exchange) -> None:
        if not streamed:
            await exchange.body(b"\n\n\n" + json.dumps(exchange.wire.plain("Hello")).encode())
            return
        await exchange.start_stream()
        for _ in range(3):
            await exchange.chunk(b": keep-alive\n\n")
        await exchange.chunk(exchange.wire.text("Hello") + exchange.wire.finish("stop", usage=True))
        await exchange.chunk(exchange.wire.done())
        await exchange.end()

    server.script(llm.Act(do))
    response = await ask(builder.models[deepseek, deepseek.default_model], streamed=streamed)
    assert (response.text, response.finish_reason) == ("Hello", "stop")


async def test_thinking_is_sent_back_with_the_tool_call(
    server: LLMServer, builder: ModelBuilder, deepseek: ProviderSettings
) -> None:
    """DeepSeek answers 400 to a tool call that lost the thinking before it."""
    call = ToolCallPart("current_time", {"zone": "UTC"}, "call_1")
    model = builder.models[deepseek, "deepseek-reasoner"]
    history = [
        ModelRequest([UserPromptPart("What time is it?")]),
        ModelResponse(
            [ThinkingPart("A clock", id="reasoning_content", provider_name="deepseek"), call],
            provider_name="deepseek",
            model_name="deepseek-reasoner",
        ),
        ModelRequest([ToolReturnPart("current_time", "12:00", "call_1")]),
    ]
    await model.request(history, None, ModelRequestParameters(function_tools=[TIME_TOOL]))
    (said,) = [message for message in server.requests[0].json["messages"] if message["role"] == "assistant"]
    assert said["reasoning_content"] == "A clock"


@STREAMED
async def test_unfinished_answer_raises(
    server: LLMServer, builder: ModelBuilder, deepseek: ProviderSettings, *, streamed: bool
) -> None:
    """`insufficient_system_resource` is DeepSeek's word for an answer that it broke off."""
    server.script(llm.answer("Half an", finish="insufficient_system_resource"))
    model = builder.models[deepseek, deepseek.default_model]
    if streamed:
        # The routed model takes a missing reason for a cut.
        assert (await ask(model, streamed=True)).finish_reason is None
    else:
        with pytest.raises(UnexpectedModelBehavior) as caught:
            await ask(model)
        assert classify(caught.value, 300).fault is Fault.UNREADABLE
