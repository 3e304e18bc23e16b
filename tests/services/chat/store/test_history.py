"""Fitting a conversation into a token budget: examples and properties of the pure functions."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    NativeToolCallPart,
    NativeToolReturnPart,
    TextContent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from services.chat.store.excerpt import cut_turn
from services.chat.store.history import KEPT_ATTACHMENTS, TurnSize, count_fitting, starts_with_prompt
from services.chat.store.transcript import pair_tools
from services.llm.usage import ATTACHMENT_TOKENS, MESSAGE_TOKENS, estimate_tokens, text_tokens

TEXT = st.one_of(st.text(max_size=40), st.text(min_size=1, max_size=8).map(lambda text: text * 200))
IDS = st.sampled_from(["a", "b", "c"])


def asked(text: str) -> ModelRequest:
    """A prompt."""
    return ModelRequest(parts=[UserPromptPart(text)])


def called(*ids: str) -> ModelResponse:
    """Calls of a local tool."""
    return ModelResponse(parts=[ToolCallPart("clock", {"zone": "UTC"}, id_) for id_ in ids])


def returned(*ids: str) -> ModelRequest:
    """The results of these calls."""
    return ModelRequest(parts=[ToolReturnPart("clock", "noon", id_) for id_ in ids])


def said(text: str) -> ModelResponse:
    """An answer."""
    return ModelResponse(parts=[TextPart(text)])


def native(call: str | None, result: str | None) -> ModelResponse:
    """A call that the provider runs itself, and its result."""
    parts = [NativeToolCallPart("search", {}, call)] if call else []
    return ModelResponse(parts=[*parts, *([NativeToolReturnPart("search", "found", result)] if result else [])])


def shape(messages: Sequence[ModelMessage]) -> list[list[str]]:
    """Return the kinds of parts, with their call ids."""
    return [
        [f"{part.part_kind}:{getattr(part, 'tool_call_id', '')}".rstrip(":") for part in message.parts]
        for message in messages
    ]


def unpaired_calls(messages: Sequence[ModelMessage]) -> list[object]:
    """Return calls without a result in the next message, and results without a call in the previous one."""
    unpaired: list[object] = []
    for before, after in zip([None, *messages], [*messages, None], strict=True):
        calls = {p.tool_call_id for p in before.parts if isinstance(p, ToolCallPart)} if before else set()
        results = {p.tool_call_id for p in after.parts if isinstance(p, ToolReturnPart)} if after else set()
        unpaired += calls ^ results
    return unpaired


@st.composite
def turns(draw: st.DrawFn) -> list[ModelMessage]:
    """Generates turns of a run: with tools, unanswered calls, cut off anywhere."""
    files = draw(st.lists(st.just(TextContent("[image]", metadata={"attachment": "0" * 64})), max_size=3))
    messages: list[ModelMessage] = [ModelRequest(parts=[UserPromptPart([draw(TEXT), *files])])]
    for _ in range(draw(st.integers(0, 4))):
        calls = draw(st.lists(IDS, unique=True, max_size=3))
        texts = [TextPart(draw(TEXT))] if draw(st.booleans()) or not calls else []
        messages.append(ModelResponse(parts=[*texts, *(ToolCallPart("t", {"q": draw(TEXT)}, id_) for id_ in calls)]))
        results = draw(st.lists(IDS, unique=True, max_size=3))
        if results:
            messages.append(ModelRequest(parts=[ToolReturnPart("t", draw(TEXT), id_) for id_ in results]))
    if draw(st.booleans()):
        messages.append(said(draw(TEXT)))
    return messages[: draw(st.integers(1, len(messages)))]


@given(turns())
def test_pair_tools_leaves_no_unpaired_call(messages: list[ModelMessage]) -> None:
    """For any turn; idempotent."""
    paired = pair_tools(messages)
    assert unpaired_calls(paired) == []
    assert starts_with_prompt(paired)
    assert pair_tools(paired) == paired
    assert estimate_tokens(paired) <= estimate_tokens(messages)


@given(turns(), st.integers(-10, 3000))
def test_cut_turn_fits_any_budget(messages: list[ModelMessage], budget: int) -> None:
    """The result is empty or begins with its prompt, and holds no tool exchange."""
    cut = cut_turn(messages, budget)
    assert estimate_tokens(cut) <= max(budget, 0)
    assert not cut or starts_with_prompt(cut)
    assert unpaired_calls(cut) == []
    assert not any(isinstance(part, ToolCallPart | ToolReturnPart) for message in cut for part in message.parts)
    assert budget < 200 or cut


@given(st.lists(st.builds(TurnSize, st.just(1), st.integers(0, 3000), st.integers(0, 6))), st.integers(0, 10_000))
def test_count_fitting_never_exceeds_the_budget(sizes: list[TurnSize], tokens: int) -> None:
    """One more turn would have exceeded it."""
    left, spent = KEPT_ATTACHMENTS, [0]
    for size in sizes:
        spent.append(spent[-1] + size.estimated_tokens + min(size.attachment_count, left) * ATTACHMENT_TOKENS)
        left -= min(size.attachment_count, left)
    count = count_fitting(sizes, tokens)
    assert spent[count] <= tokens
    assert count == len(sizes) or spent[count + 1] > tokens


@pytest.mark.parametrize(
    ("messages", "kept"),
    [
        # a whole exchange stays
        (
            [asked("?"), called("a"), returned("a"), said("noon")],
            [["user-prompt"], ["tool-call:a"], ["tool-return:a"], ["text"]],
        ),
        # stopped while a tool ran
        ([asked("?"), called("a")], [["user-prompt"]]),
        # one of two tools had answered
        ([asked("?"), called("a", "b"), returned("b")], [["user-prompt"], ["tool-call:b"], ["tool-return:b"]]),
        # a result without a call
        ([asked("?"), returned("a"), said("noon")], [["user-prompt"], ["text"]]),
        # the same id in two steps, as some servers number them; only the second was answered
        (
            [asked("?"), called("a"), said("hm"), called("a"), returned("a")],
            [["user-prompt"], ["text"], ["tool-call:a"], ["tool-return:a"]],
        ),
        # a tool that the provider runs answers in the same message
        (
            [asked("?"), native("a", "a")],
            [["user-prompt"], ["builtin-tool-call:a", "builtin-tool-return:a"]],
        ),
        # it was cut off, or lost its call
        ([asked("?"), native("a", None), native(None, "b")], [["user-prompt"]]),
    ],
)
def test_pair_tools_removes_half_exchanges(messages: list[ModelMessage], kept: list[list[str]]) -> None:
    assert shape(pair_tools(messages)) == kept


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        (asked("x" * 400), 100),  # four bytes a token
        (asked("я" * 400), 200),  # in UTF-8
        (asked(""), 0),
        (said("x" * 41), 11),  # rounded up
        (ModelResponse(parts=[ThinkingPart("x" * 40)]), 10),  # thinking is sent again where the provider wants it
        (ModelRequest(parts=[UserPromptPart(["x" * 40, ImageUrl("http://host/a.png")])]), 10 + ATTACHMENT_TOKENS),
        # a text file is inlined
        (ModelRequest(parts=[UserPromptPart([BinaryContent(b"x" * 40, media_type="text/csv")])]), 10),
        # name and arguments; name and result
        (called("a"), text_tokens("clock") + text_tokens('{"zone":"UTC"}')),
        (returned("a"), text_tokens("clock") + text_tokens("noon")),
    ],
)
def test_estimate_tokens_per_kind_of_part(message: ModelMessage, tokens: int) -> None:
    assert estimate_tokens([message]) == tokens + MESSAGE_TOKENS


def test_cut_turn_keeps_start_and_end_of_prompt_and_answer() -> None:
    """Tool results are dropped."""
    long_turn = [
        asked("first words " + "x" * 10_000 + " last words?"),
        called("a"),
        returned("a"),
        said("To begin " + "y" * 10_000 + " in the end"),
    ]
    request, response = cut_turn(long_turn, 500)
    prompt, answer = request.parts[0], response.parts[0]
    assert isinstance(prompt, UserPromptPart)
    assert isinstance(answer, TextPart)
    for text, begins, ends in (
        (prompt.content, "first words", "last words?"),
        (answer.content, "To begin", "in the end"),
    ):
        assert isinstance(text, str)
        assert text.startswith(begins)
        assert text.endswith(ends)
        assert "[...]" in text
        assert 150 < text_tokens(text) <= 250


def test_cut_turn_gives_unused_budget_to_the_other_side() -> None:
    request, response = cut_turn([asked("why?"), said("y" * 10_000)], 500)
    assert request.parts[0].content == "why?"
    assert estimate_tokens([response]) > 450


def test_cut_turn_keeps_placeholders_of_files() -> None:
    photo = TextContent("[image]", metadata={"attachment": "0" * 64})
    (request,) = cut_turn([ModelRequest(parts=[UserPromptPart(["x" * 10_000, photo])])], 200)
    part = request.parts[0]
    assert isinstance(part, UserPromptPart)
    assert part.content[1] == photo
