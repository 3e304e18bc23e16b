"""Bodies of requests: text that no provider accepts, and wrong values in each field."""

import copy
from collections.abc import Iterator
from typing import Any, cast

import pytest

from bot.web.api.errors import ApiError
from bot.web.api.gateway import ApiCall
from bot.web.api.requests import ChatRequest, parse_chat_request
from services.llm.openai_messages import InvalidRequest

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOOL = {"name": "t", "description": "d", "parameters": {"type": "object", "properties": {}}, "strict": False}
SCHEMA = {"name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"}
EVERYTHING: dict[str, Any] = {
    "model": "auto",
    "messages": [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "name": "anna",
            "content": [
                {"type": "text", "text": "Hello?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "t", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "noon"},
    ],
    "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.5, "top_p": 0.5, "max_tokens": 5,
    "max_completion_tokens": 5, "stop": ["x"], "seed": 1, "presence_penalty": 0.1, "frequency_penalty": 0.1,
    "logit_bias": {"1": 1}, "n": 1, "tools": [{"type": "function", "function": TOOL}], "parallel_tool_calls": False,
    "tool_choice": {"type": "function", "function": {"name": "t"}}, "reasoning_effort": "low", "logprobs": False,
    "response_format": {"type": "json_schema", "json_schema": SCHEMA}, "top_logprobs": 0, "modalities": ["text"],
}  # fmt: skip
WRONG: list[Any] = [
    None, True, 0, -1, 1.5, 1e308, float("nan"), 10**400, "", "x", "\x00", "y" * 10_000, [], {}, [None], [[]], [{}],
    {"a": 1}, {"type": "x"}, ["z"] * 3000,
]  # fmt: skip


def places(value: object, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value within a value."""
    yield place
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*place, key))


def changed(place: tuple[Any, ...], value: object) -> object:
    """Return the request with another value at one place."""
    if not place:
        return value
    body = copy.deepcopy(EVERYTHING)
    outer: Any = body
    for key in place[:-1]:
        outer = outer[key]
    outer[place[-1]] = value
    return body


def test_wrong_value_in_any_field_is_accepted_or_an_invalid_request() -> None:
    refused = 0
    for place in places(EVERYTHING):
        for value in WRONG:
            try:
                assert isinstance(parse_chat_request(changed(place, value)), ChatRequest)
            except InvalidRequest as error:
                refused += 1
                assert len(str(error)) < 500  # noqa: PT017 - it is an error or none
    assert refused > 1000


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"a": "\ud800"}',
        b'{"a": "\xed\xa0\x80"}',
        r'{"a": "\ud800"}'.encode("utf-16"),
        r'{"a": "\ud800"}'.encode("utf-16-le"),
        '{"a": "\ud800"}'.encode("utf-16", "surrogatepass"),
    ],
)
def test_body_with_half_a_surrogate_pair_is_refused_in_every_encoding(raw: bytes) -> None:
    call = ApiCall(cast("Any", None), "1", "application/json", raw)  # Any: the token is not read
    with pytest.raises(ApiError, match="not JSON"):
        _ = call.body


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_body_with_whole_pairs_is_accepted(encoding: str) -> None:
    raw = '{"a": "Привет 😀"}'.encode(encoding)
    assert ApiCall(cast("Any", None), "1", "application/json", raw).body == {"a": "Привет 😀"}
