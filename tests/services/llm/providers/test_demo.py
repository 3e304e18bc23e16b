"""The demo provider: explains itself, echoes the question, streams by the clock, is deterministic."""

import asyncio

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import BinaryContent, ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters

from services.llm.providers.demo import PAUSE_S, DemoModel, build_demo_answer
from tests.support.clock import ManualClock, settle
from tests.support.routed_requests import ask, piece_of


@pytest.fixture
def clock() -> ManualClock:
    """Time as the tests move it."""
    return ManualClock()


async def test_demo_answer_explains_how_to_configure_a_model(clock: ManualClock) -> None:
    """A newcomer reads that nothing thinks here, and three ways to change that."""
    response = await ask(DemoModel("demo", clock), "What is the capital of France?")
    text = response.text or ""
    assert "no language model" in text
    assert "What is the capital of France?" in text
    assert all(name in text for name in ("OPENAI_API_KEY=", "ollama pull", "AVAILABLE_PROVIDERS="))
    assert response.finish_reason == "stop"
    assert response.provider_name == "demo"
    assert response.usage.output_tokens > 0


async def test_streamed_text_is_the_plain_text_word_by_word(clock: ManualClock) -> None:
    """Both modes say the same; between two words the clock passes."""
    model = DemoModel("demo", clock)
    messages: list[ModelMessage] = [ModelRequest([UserPromptPart("Hi")])]
    pieces: list[str] = []

    async def drain() -> ModelResponse:
        async with model.request_stream(messages, None, ModelRequestParameters()) as stream:
            async for event in stream:
                pieces.append(piece_of(event))
            return stream.get()

    draining = asyncio.create_task(drain())
    await settle()
    assert "".join(pieces) == "This "
    await clock.advance(PAUSE_S)
    assert "".join(pieces) == "This is "
    await clock.advance(60)
    response = await draining
    assert "".join(pieces) == build_demo_answer(messages) == response.text
    assert response.finish_reason == "stop"
    assert response.usage.output_tokens == len(build_demo_answer(messages).split())


# (the conversation, the echoed question)
ECHOES: list[tuple[list[ModelMessage], str | None]] = [
    # the last question of a conversation
    (
        [ModelRequest([UserPromptPart("one")]), ModelResponse([TextPart("1")]), ModelRequest([UserPromptPart("two")])],
        "“two”",
    ),
    # a caption, not the picture
    ([ModelRequest([UserPromptPart(["look", BinaryContent(b"x", media_type="image/png")])])], "“look”"),
    # a long one is cut
    ([ModelRequest([UserPromptPart("a" * 500)])], "“" + "a" * 120 + "…”"),
    # white space of all kinds is one blank
    ([ModelRequest([UserPromptPart(" a\n\n b ")])], "“a b”"),
    # braces are no fields of ours
    ([ModelRequest([UserPromptPart("{echo} {0}")])], "“{echo} {0}”"),
    # only a picture: nothing to echo
    ([ModelRequest([UserPromptPart([BinaryContent(b"x", media_type="image/png")])])], None),
]


@pytest.mark.parametrize(("messages", "echo"), ECHOES)
def test_demo_answer_echoes_the_last_question(messages: list[ModelMessage], echo: str | None) -> None:
    """The question is repeated, in bounds."""
    text = build_demo_answer(messages)
    assert ("You wrote" in text) is (echo is not None)
    assert echo is None or echo in text


async def test_demo_model_works_with_tools_and_history(clock: ManualClock) -> None:
    """It ends a turn itself, regardless of the available tools."""
    agent = Agent(DemoModel("demo", clock), instructions="Be brief.")

    @agent.tool_plain
    def current_time() -> str:
        raise AssertionError("the demo calls no tools")

    first = await agent.run("Hello")
    second = await agent.run("Again", message_history=first.all_messages())
    assert "“Again”" in second.output
