"""Streams that bend the protocol: split thinking tags, tool calls of one index, growing usage, early finish reasons."""

import json
from contextlib import suppress
from pathlib import Path

import httpx
import httpx2
import pytest
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelRequest, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models import ModelRequestParameters

from core.config.providers import ProviderKind
from services.llm.models.stream_reader import is_finished
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.wire.chat_fields import as_message
from services.llm.providers.wire.thinking_tags import ThinkingHabit, ThinkingTags
from services.llm.providers.wire.tolerant_streams import TolerantParts, TolerantStream
from services.llm.routing.faults.outcomes import classify
from services.llm.routing.faults.refusal_words import Fault
from tests.services.llm.providers.wire.bent_streams import BENT, BENT_CALLS, STOP, as_stream, chunk
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import Act, Exchange, LLMServer
from tests.support.routed_requests import TIME_TOOL, ask

STREAMS = Path(__file__).parent / "streams"
TAGS = ("<think>", "</think>")
KINDS = (
    ProviderKind.OPENAI_COMPATIBLE,
    ProviderKind.OLLAMA,
    ProviderKind.OPENROUTER,
    ProviderKind.DEEPSEEK,
    ProviderKind.GROQ,
    ProviderKind.MISTRAL,
)
THOUGHT = "<think>Two and two</think>Four"


def assemble(*pieces: str) -> list[tuple[type, str]]:
    """Returns the kinds and texts of the parts that pieces of text make."""
    parts = TolerantParts(model_request_parameters=ModelRequestParameters())
    for piece in pieces:
        list(parts.handle_text_delta(vendor_part_id="content", content=piece, thinking_tags=TAGS))
    list(parts.flush_text(is_end=True))
    return [(type(part), part.content) for part in parts.get_parts() if isinstance(part, TextPart | ThinkingPart)]


@pytest.mark.parametrize("at", range(len(THOUGHT) + 1))
def test_thinking_is_hidden_wherever_its_text_is_split(at: int) -> None:
    parts = assemble(THOUGHT[:at], THOUGHT[at:])
    assert [part for part in parts if part[1]] == [(ThinkingPart, "Two and two"), (TextPart, "Four")]


def test_thinking_is_hidden_if_each_character_comes_alone() -> None:
    assert assemble(*THOUGHT) == [(ThinkingPart, "Two and two"), (TextPart, "Four")]


@pytest.mark.parametrize(
    "text",
    ["Four", "Use <think> and </think>", "<thin air>", "<", "<thin", "</think>Four", "  <b>Four</b>", "\n\nFour"],
)
def test_text_without_a_tag_at_its_beginning_stays_text(text: str) -> None:
    for at in range(len(text) + 1):
        assert "".join(content for _, content in assemble(text[:at], text[at:])) == text
    assert {kind for kind, _ in assemble(*text)} == {TextPart}


@pytest.mark.parametrize(
    "text",
    [
        "<thinking>Two</thinking>Four",
        "<THINK>Two</Think>Four",
        "<think>Two</thinking>Four",
        "<thought>Two</thought>Four",
        "[THINK]Two[/THINK]Four",
        "\u25c1think\u25b7Two\u25c1/think\u25b7Four",
        "<|channel|>analysis<|message|>Two<|start|>assistant<|channel|>final<|message|>Four",
    ],
)
def test_thinking_is_hidden_in_any_spelling_of_its_tags(text: str) -> None:
    for pieces in ([text], list(text), [text[:4], text[4:]]):
        assert [part for part in assemble(*pieces) if part[1]] == [(ThinkingPart, "Two"), (TextPart, "Four")]


def test_endless_white_space_is_not_held() -> None:
    tags = ThinkingTags(*TAGS)
    pieces = [piece for _ in range(4) for piece in tags.split(" " * 1000)]
    assert "".join(pieces) == " " * 4000


def test_white_space_before_an_opening_tag_is_dropped() -> None:
    assert assemble(" \n", " <thi", "nk>Two", "</think>", "Four") == [(ThinkingPart, "Two"), (TextPart, "Four")]


def test_tags_hold_back_no_text_that_cannot_become_a_tag() -> None:
    tags = ThinkingTags(*TAGS)
    assert tags.split("Four") == ["Four"]
    assert tags.split(" <think>") == [" <think>"]
    assert tags.flush(is_end=True) == []


OPENED = "Two and two\n</think>\n\nFour"
"""An answer of a model whose template writes the opening tag."""
TICKS = "```"


def finish(habit: ThinkingHabit, *pieces: str, is_cut: bool = False, calls: bool = False) -> list[tuple[type, str]]:
    """Returns the kinds and texts of the parts that a whole answer of one model makes."""
    parts = TolerantParts(ModelRequestParameters(), habit)
    for piece in pieces:
        list(parts.handle_text_delta(vendor_part_id="content", content=piece, thinking_tags=TAGS))
    if calls:
        list(parts.handle_tool_call_delta_events(vendor_part_id=0, tool_name="x", args="{}", tool_call_id="a"))
    list(parts.end_text(is_cut=is_cut))
    texts = [(type(part), part.content) for part in parts.get_parts() if isinstance(part, TextPart | ThinkingPart)]
    return [(kind, text.strip()) for kind, text in texts if text.strip()]


@pytest.mark.parametrize("at", range(len(OPENED) + 1))
def test_thinking_that_the_template_opened_is_hidden_once_it_was_seen(at: int) -> None:
    habit = ThinkingHabit()
    assert finish(habit, OPENED) == [(TextPart, OPENED)]
    assert finish(habit, OPENED[:at], OPENED[at:]) == [(ThinkingPart, "Two and two"), (TextPart, "Four")]
    assert finish(habit, *OPENED) == [(ThinkingPart, "Two and two"), (TextPart, "Four")]
    assert finish(habit, *THOUGHT) == [(ThinkingPart, "Two and two"), (TextPart, "Four")]


@pytest.mark.parametrize(
    "text",
    [
        "Close it by `</think>`.\nThat is all.",
        f"{TICKS}\n</think>\n{TICKS}\nThat is all.",
        "<think> begins it,\n</think>\nends it.",
        "The answer is\n</think>\nFour"[:-5],
        "Four </think>",
        "</think>Four",
        "The tag </think>\nends it.",
    ],
)
def test_closing_tag_that_is_quoted_or_ends_the_text_teaches_nothing(text: str) -> None:
    habit = ThinkingHabit()
    finish(habit, text)
    assert not habit.is_opened_by_template
    assert finish(habit, "Two\n", "Four") == [(TextPart, "Two\nFour")]


@pytest.mark.parametrize("text", ["Two and two is four.", "Two\n</think>", "Two\n</think>\n \n", "Two</thi"])
@pytest.mark.parametrize("is_cut", [False, True])
def test_answer_that_was_taken_for_thinking_is_shown_at_its_end_and_ends_the_habit(text: str, *, is_cut: bool) -> None:
    habit = ThinkingHabit()
    habit.learn(OPENED)
    # The last chunk of many servers has an empty text.
    shown = [content for kind, content in finish(habit, *text, "", is_cut=is_cut) if kind is TextPart]
    assert shown == [text.replace("\n</think>", "").strip()]
    assert not habit.is_opened_by_template
    assert finish(habit, "Four") == [(TextPart, "Four")]


@pytest.mark.parametrize(
    "text",
    [
        "Close it by `</think>`.\nThat is all.",
        f"So:\n{TICKS}\n</think>\n{TICKS}\nThat is all.",
        "The tag </think>\nends it.",
        "</think> ends it.",
        "Four </think>",
    ],
)
def test_closing_tag_that_is_quoted_hides_nothing_where_thinking_is_assumed(text: str) -> None:
    for pieces in ([text], list(text), [text[:9], text[9:]]):
        habit = ThinkingHabit()
        habit.learn(OPENED)
        assert [content for kind, content in finish(habit, *pieces) if kind is TextPart] == [text]


@pytest.mark.parametrize("tag", ["<think>", "</think>"])
@pytest.mark.parametrize("is_learned", [False, True])
def test_tag_that_is_quoted_is_text_where_it_comes_as_one_piece(tag: str, *, is_learned: bool) -> None:
    """It is one token of many models."""
    habit = ThinkingHabit()
    if is_learned:
        habit.learn(OPENED)
    pieces = ["Write `", tag, "` around ", "it."]
    assert [content for kind, content in finish(habit, *pieces) if kind is TextPart] == ["".join(pieces)]


def test_thinking_that_quotes_its_closing_tag_is_hidden_to_its_end() -> None:
    habit = ThinkingHabit()
    habit.learn(OPENED)
    thought = f"I may write `</think>`:\n{TICKS}\n</think>\n{TICKS}\nEnough."
    for pieces in ([f"{thought}\n</think>\n\nFour"], list(f"{thought}\n</think>\n\nFour")):
        assert finish(habit, *pieces) == [(ThinkingPart, thought), (TextPart, "Four")]


def test_thinking_that_was_cut_stays_hidden_where_the_habit_is_confirmed() -> None:
    habit = ThinkingHabit()
    habit.learn(OPENED)
    finish(habit, OPENED)
    assert finish(habit, "Two and", is_cut=True) == [(ThinkingPart, "Two and")]
    assert habit.is_opened_by_template


def test_thinking_before_a_tool_call_stays_hidden_and_an_announcement_is_shown() -> None:
    habit = ThinkingHabit()
    habit.learn(OPENED)
    assert finish(habit, "Two\n</think>\n\n", calls=True) == [(ThinkingPart, "Two")]
    assert habit.is_confirmed
    assert (TextPart, "I look it up.") in finish(habit, "I look it up.", calls=True)
    assert not habit.is_opened_by_template


def test_whole_answer_is_parted_at_the_end_of_thinking_that_the_template_opened() -> None:
    assert as_message({"content": OPENED})["content"] == "<think>Two and two\n</think>\n\nFour"
    assert as_message({"content": "Close it by `</think>`."})["content"] == "Close it by `</think>`."


# (deltas of one stream as index, id, name and arguments; calls that they make)
CALLS = [
    ([(0, "a", "x", '{"n": 1}'), (0, "b", "x", '{"n": 2}')], [1, 2]),  # one index, two ids
    ([(0, "a", "x", '{"n"'), (0, "a", None, ": 1}"), (0, "b", "x", '{"n": 2}')], [1, 2]),
    ([(0, "a", "x", '{"n"'), (0, "a", "x", ": 1}")], [1]),  # id and name in each delta
    ([(0, None, "x", '{"n": 1}'), (0, None, "x", '{"n": 2}')], [1, 2]),  # no ids
    ([(0, "", "x", '{"n"'), (0, "", "", ": 1}"), (0, "", "x", '{"n": 2}')], [1, 2]),  # empty ids
    ([(None, "a", "x", '{"n": 1}'), (None, "b", "x", '{"n": 2}')], [1, 2]),  # no index
    ([(None, "a", "x", '{"n"'), (None, None, None, ": 1}")], [1]),
    ([(0, "a", "x", '{"n"'), (1, "b", "x", '{"n"'), (0, None, None, ": 1}"), (1, None, None, ": 2}")], [1, 2]),
    ([(0, "a", "x", '{"n"'), (0, "b", None, ": 1}")], [1]),  # an id for each piece
    ([(0, "a", "x", '{"n"'), (0, "a", "x", '{"n": 1'), (0, "a", "x", '{"n": 1}')], [1]),  # the arguments so far
    ([(0, "a", "x", '{"n"'), (0, "a", None, ": 1}"), (0, "a", "x", '{"n": 1}')], [1]),  # the whole at the end
    ([(0, "a", "x", '{"n": 1}'), (0, "a", "x", '{"n": 1}')], [1]),
    ([(0, "a", "x", '"{\\"n\\": 1}"')], [1]),  # encoded twice
    ([(0, "a", "x", '{"m": '), (0, "a", None, '{"m": 1}, "n": 1}')], [1]),  # pieces that only look alike
]


@pytest.mark.parametrize(("deltas", "numbers"), CALLS)
def test_tool_calls_are_told_apart(
    deltas: list[tuple[int | None, str | None, str | None, str]], numbers: list[int]
) -> None:
    parts = TolerantParts(model_request_parameters=ModelRequestParameters())
    for index, call_id, name, arguments in deltas:
        parts.handle_tool_call_delta(vendor_part_id=index, tool_name=name, args=arguments, tool_call_id=call_id)
    list(parts.end_text(is_cut=False))
    calls = [part for part in parts.get_parts() if isinstance(part, ToolCallPart)]
    assert [(call.tool_name, call.args_as_dict()["n"]) for call in calls] == [("x", number) for number in numbers]
    assert len({call.tool_call_id for call in calls}) == len(numbers)


@pytest.mark.parametrize("names", [("current_time",) * 3, ("current", "_time", ""), ("current", "current_time")])
def test_name_that_is_repeated_or_grows_is_one_name(names: tuple[str, ...]) -> None:
    parts = TolerantParts(model_request_parameters=ModelRequestParameters())
    for name in names:
        parts.handle_tool_call_delta(vendor_part_id=0, tool_name=name, args="", tool_call_id="a")
    assert [part.tool_name for part in parts.get_parts() if isinstance(part, ToolCallPart)] == ["current_time"]


def replay(name: str, size: int) -> Act:
    """Answers with a recorded stream in pieces of that size."""
    return send((STREAMS / name).read_bytes(), size)


def send(data: bytes, size: int) -> Act:
    """Answers with a stream in pieces of that size."""

    async def do(exchange: Exchange) -> None:
        await exchange.start_stream()
        for start in range(0, len(data), size):
            await exchange.chunk(data[start : start + size])
        await exchange.end()

    return Act(do)


EACH = pytest.mark.parametrize("kind", KINDS)
SIZES = pytest.mark.parametrize("size", [1, 7, 64, 1 << 20], ids=["1 byte", "7 bytes", "64 bytes", "whole"])


@EACH
@SIZES
@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("bom-first.sse", "Alpha beta gamma.", "stop"),
        ("retry-line-first.sse", "one two three.", "stop"),
        ("length.sse", "happy to share my", "length"),
    ],
)
async def test_recorded_stream_is_read_whole(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, size: int, name: str, text: str, reason: str
) -> None:
    server.script(replay(name, size))
    provider = provider_at(server, kind)
    response = await ask(builder.models[provider, provider.default_model], streamed=True)
    assert (response.text, response.finish_reason) == (text, reason)


@EACH
@SIZES
async def test_both_tools_of_one_index_are_called(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, size: int
) -> None:
    server.script(replay("two-tools-same-index.sse", size))
    provider = provider_at(server, kind)
    response = await ask(builder.models[provider, provider.default_model], streamed=True, tools=(TIME_TOOL,))
    assert [call.args_as_dict() for call in response.tool_calls] == [
        {"time_zone": "UTC"},
        {"time_zone": "Europe/Berlin"},
    ]


@EACH
@SIZES
async def test_usage_that_grows_is_counted_once(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, size: int
) -> None:
    server.script(replay("usage-so-far-in-each-chunk.sse", size))
    provider = provider_at(server, kind)
    response = await ask(builder.models[provider, provider.default_model], streamed=True)
    assert response.usage.total_tokens == 1012


@EACH
@pytest.mark.parametrize(("lines", "text"), [(lines, text) for lines, text in BENT.values()], ids=list(BENT))
async def test_bent_stream_is_read_whole(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, lines: list[str], text: str
) -> None:
    server.script(send(as_stream(lines), 7))
    provider = provider_at(server, kind)
    response = await ask(builder.models[provider, provider.default_model], streamed=True)
    assert (response.text, response.finish_reason) == (text, "stop")


@EACH
@pytest.mark.parametrize(("deltas", "count"), BENT_CALLS.values(), ids=BENT_CALLS.keys())
async def test_bent_tool_calls_are_told_apart(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, deltas: list[str], count: int
) -> None:
    lines = [*(chunk(f'{{"tool_calls": {delta}}}') for delta in deltas), chunk("{}", '"tool_calls"')]
    server.script(send(as_stream(lines), 7))
    provider = provider_at(server, kind)
    response = await ask(builder.models[provider, provider.default_model], streamed=True, tools=(TIME_TOOL,))
    zones = [call.args_as_dict() for call in response.tool_calls]
    assert zones == [{"time_zone": "UTC"}, {"time_zone": "Asia/Tokyo"}][:count]
    assert response.finish_reason == "tool_call"


@pytest.mark.parametrize(
    "error",
    [
        '{"error": "the engine died"}',
        '{"object": "error", "message": "the engine died", "code": 500}',
        '{"detail": "the engine died"}',
        '{"error": {"message": "the engine died"}, "choices": null}',
    ],
)
@EACH
async def test_error_in_a_stream_is_no_end(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, error: str
) -> None:
    server.script(send(as_stream([chunk('{"content": "one"}'), error]), 1 << 20))
    provider = provider_at(server, kind)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - each library has its own
        await ask(builder.models[provider, provider.default_model], streamed=True)
    assert classify(raised.value, 300).fault in {Fault.DOWN, Fault.UNREADABLE, Fault.UNCLEAR}


async def test_whole_answer_in_place_of_a_stream_is_read(server: LLMServer, builder: ModelBuilder) -> None:
    """Some servers ignore that a stream was asked for."""

    async def do(exchange: Exchange) -> None:
        await exchange.body(exchange.wire.plain("Four"))

    provider = provider_at(server)
    server.script(Act(do), Act(do))
    for streamed in (True, False):
        response = await ask(builder.models[provider, provider.default_model], streamed=streamed)
        assert (response.text, response.finish_reason) == ("Four", "stop")
        assert response.usage.total_tokens


@EACH
async def test_finish_reason_that_text_follows_does_not_count(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind
) -> None:
    lines = (STREAMS / "finish-on-every-chunk-then-cut.sse").read_bytes()

    async def do(exchange: Exchange) -> None:
        await exchange.start_stream()
        await exchange.chunk(lines)
        exchange.cut()

    server.script(Act(do))
    provider = provider_at(server, kind)
    model = builder.models[provider, provider.default_model]
    async with model.request_stream(
        [ModelRequest.user_text_prompt("Hello?")], None, ModelRequestParameters()
    ) as stream:
        # The libraries differ in how they report the lost connection.
        with suppress(RuntimeError, httpx.TransportError, httpx2.TransportError):
            async for _ in stream:
                pass
    assert stream.get().text == "one two "
    assert isinstance(stream, TolerantStream)
    assert not is_finished(stream)


@EACH
async def test_thinking_that_the_template_opened_is_hidden_from_the_second_answer_on(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind
) -> None:
    pieces = [chunk(json.dumps({"content": piece})) for piece in (OPENED[:8], OPENED[8:])]
    stream = as_stream([*pieces, STOP])
    server.script(send(stream, 64), send(stream, 64))
    provider = provider_at(server, kind)
    answers = [await ask(builder.models[provider, provider.default_model], streamed=True) for _ in range(2)]
    assert [(answer.text or "").strip() for answer in answers] == [OPENED, "Four"]


@EACH
async def test_end_without_a_reason_is_believed_from_the_third_time_on_until_the_server_gives_one(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind
) -> None:
    text = chunk('{"content": "Four"}')
    server.script(*[send(as_stream(lines), 1 << 20) for lines in [[text]] * 4 + [[text, STOP], [text]]])
    provider = provider_at(server, kind)
    reasons: list[str | None] = []
    for _ in range(6):
        try:
            response = await ask(builder.models[provider, provider.default_model], streamed=True)
        except ModelAPIError:
            reasons.append(None)
        else:
            reasons.append(response.finish_reason)
            assert response.text == "Four"
    assert reasons == [None, None, "stop", "stop", "stop", None]
