"""`/v1/chat/completions` as OpenAI's official client sees it, request by request."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests.support.api_harness import endpoint
from tests.support.fake_llm.server import (
    Act,
    Behaviour,
    Exchange,
    LLMServer,
    answer,
    content_filter,
    content_filter_rejected,
    context_exceeded,
    cut,
    gate,
    hang,
    refusal,
    refusing_url,
    status,
    tool_call,
)

pytestmark = pytest.mark.integration

HELLO: Any = [{"role": "user", "content": "Hello?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "current_time",
        "description": "The time in a zone.",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
    },
}
PIXEL = base64.b64encode(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
).decode()


async def read_stream(
    stream: openai.AsyncStream[ChatCompletionChunk],
) -> tuple[str, dict[int, list[str]], str | None, Any, str]:
    """Return the text, the tool calls by index, the finish reason, the usage and the model of a stream."""
    text, finish, usage, model = "", None, None, ""
    calls: dict[int, list[str]] = {}
    async for chunk in stream:
        model = chunk.model
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                known = calls.setdefault(call.index, [call.id or "", call.function.name or "", ""])
                known[2] += call.function.arguments or ""
    return text, calls, finish, usage, model


async def test_a_plain_answer_has_text_model_and_usage(first: LLMServer, tmp_path: Path) -> None:
    first.default = answer("Good day to you")
    async with endpoint(tmp_path, {"a": first.url}) as api:
        found = await api.client.chat.completions.create(model="auto", messages=HELLO)
    assert found.object == "chat.completion"
    assert found.id.startswith("chatcmpl-")
    assert found.model == "a/m"
    assert found.choices[0].message.content == "Good day to you"
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (11, 7, 18)
    assert found._request_id


async def test_a_stream_has_the_text_and_the_usage_where_it_is_asked_for(first: LLMServer, tmp_path: Path) -> None:
    first.default = answer("Good day to you")
    async with endpoint(tmp_path, {"a": first.url}) as api:
        create = api.client.chat.completions.create
        options: Any = {"include_usage": True}
        text, _, finish, usage, model = await read_stream(
            await create(model="auto", messages=HELLO, stream=True, stream_options=options)
        )
        without = await read_stream(await create(model="auto", messages=HELLO, stream=True))
    assert (text, finish, model) == ("Good day to you", "stop", "a/m")
    assert usage.total_tokens == 18
    assert without[3] is None


async def test_text_that_arrives_in_one_piece_is_sent_as_one_chunk(first: LLMServer, tmp_path: Path) -> None:
    async def play(exchange: Exchange) -> None:
        wire = exchange.wire
        await exchange.start_stream()
        await exchange.chunk(
            wire.opening() + b"".join(wire.text(piece) for piece in ("One", " two", " three", " four"))
        )
        await exchange.chunk(wire.finish("stop", usage=True) + wire.done())
        await exchange.end()

    first.default = Act(play)
    async with endpoint(tmp_path, {"a": first.url}) as api:
        stream = await api.client.chat.completions.create(model="auto", messages=HELLO, stream=True)
        texts = [chunk.choices[0].delta.content async for chunk in stream]
    assert [text for text in texts if text] == ["One", " two three four"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_are_handed_through_and_their_results_back(
    first: LLMServer, tmp_path: Path, *, streamed: bool
) -> None:
    first.script(tool_call("current_time", {"zone": "UTC"}), answer("It is noon"))
    async with endpoint(tmp_path, {"a": first.url}) as api:
        create = api.client.chat.completions.create
        if streamed:
            _, calls, finish, _, _ = await read_stream(
                await create(model="auto", messages=HELLO, tools=[TOOL], stream=True)
            )
            id_, name, arguments = calls[0]
        else:
            found = await create(model="auto", messages=HELLO, tools=[TOOL])
            (call,) = found.choices[0].message.tool_calls or []
            assert call.type == "function"
            id_, name, arguments = call.id, call.function.name, call.function.arguments
            finish = found.choices[0].finish_reason
            assert found.choices[0].message.content is None
        assert (name, json.loads(arguments), finish) == ("current_time", {"zone": "UTC"}, "tool_calls")
        asked: Any = {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
        back: Any = [
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [asked]},
            {"role": "tool", "tool_call_id": id_, "content": "noon"},
        ]
        text = (await create(model="auto", messages=back, tools=[TOOL])).choices[0].message.content
    assert text == "It is noon"
    sent = first.requests[1].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    (called,) = sent[1]["tool_calls"]
    assert (called["id"], called["function"]["name"]) == (id_, name)
    assert json.loads(called["function"]["arguments"]) == {"zone": "UTC"}
    assert sent[2] == {"role": "tool", "tool_call_id": id_, "content": "noon"}
    assert first.requests[0].json["tools"][0]["function"]["parameters"] == TOOL["function"]["parameters"]


async def test_every_shape_of_a_message_reaches_the_provider(first: LLMServer, tmp_path: Path) -> None:
    messages: Any = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is this?"}, image(f"data:image/png;base64,{PIXEL}")],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "A pixel."}], "refusal": None, "name": "bot"},
        {"role": "user", "content": "And now?", "name": "anna"},
    ]
    async with endpoint(tmp_path, {"a": first.url}) as api:
        await api.client.chat.completions.create(model="auto", messages=messages)
    sent = first.requests[0].json["messages"]
    assert sent[0] == {"role": "system", "content": "Be brief."}
    assert sent[1]["content"][0] == {"type": "text", "text": "What is this?"}
    assert sent[1]["content"][1]["image_url"]["url"] == f"data:image/png;base64,{PIXEL}"
    assert sent[2] == {"role": "assistant", "content": "A pixel."}
    assert sent[3] == {"role": "user", "content": "And now?"}


def image(url: str) -> dict[str, Any]:
    """Return an image of a message."""
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


async def test_parameters_reach_the_provider(first: LLMServer, tmp_path: Path) -> None:
    async with endpoint(tmp_path, {"a": first.url}) as api:
        await api.client.chat.completions.create(
            model="auto", messages=HELLO, temperature=0.5, top_p=0.9, max_completion_tokens=50, stop=["END"], seed=7,
            presence_penalty=0.1, frequency_penalty=0.2, logit_bias={"5": -1}, n=1, user="anna", tools=[TOOL],
            tool_choice={"type": "function", "function": {"name": "current_time"}}, parallel_tool_calls=False,
            extra_body={"unknown_to_all": True},
        )  # fmt: skip
    sent = first.requests[0].json
    assert {name: sent[name] for name in ("temperature", "top_p", "max_tokens", "stop", "seed")} == {
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 50, "stop": ["END"], "seed": 7,
    }  # fmt: skip
    assert (sent["presence_penalty"], sent["frequency_penalty"], sent["logit_bias"]) == (0.1, 0.2, {"5": -1})
    assert sent["parallel_tool_calls"] is False
    assert sent["tool_choice"] in ("required", {"type": "function", "function": {"name": "current_time"}})
    assert "unknown_to_all" not in sent


class Person(BaseModel):
    name: str
    age: int


async def test_structured_output_is_handed_through_and_parsed(first: LLMServer, tmp_path: Path) -> None:
    first.default = answer('{"name": "Anna", "age": 7}')
    async with endpoint(tmp_path, {"a": first.url}) as api:
        found = await api.client.chat.completions.parse(model="auto", messages=HELLO, response_format=Person)
    assert found.choices[0].message.parsed == Person(name="Anna", age=7)
    sent = first.requests[0].json
    schema = sent.get("response_format", {}).get("json_schema", {}).get("schema") or json.dumps(sent["messages"])
    assert "age" in str(schema)


async def test_json_object_is_handed_through(first: LLMServer, tmp_path: Path) -> None:
    first.default = answer("{}")
    async with endpoint(tmp_path, {"a": first.url}, A_KIND="openai", A_API_KEY="k") as api:
        form: Any = {"type": "json_object"}
        await api.client.chat.completions.create(model="auto", messages=HELLO, response_format=form)
    assert first.requests[0].json["response_format"] == {"type": "json_object"}
    assert first.requests[0].json["messages"] == HELLO


@pytest.mark.parametrize("streamed", [False, True])
async def test_another_provider_answers_where_the_first_fails(
    first: LLMServer, second: LLMServer, tmp_path: Path, *, streamed: bool
) -> None:
    first.default, second.default = status(500), answer("From the second")
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        create = api.client.chat.completions.create
        if streamed:
            text, _, _, _, model = await read_stream(await create(model="auto", messages=HELLO, stream=True))
        else:
            found = await create(model="a/m", messages=HELLO)
            text, model = found.choices[0].message.content or "", found.model
    assert (text, model) == ("From the second", "b/m")


async def test_a_model_is_chosen_by_name(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        found = await api.client.chat.completions.create(model="b/n", messages=HELLO)
    assert found.model == "b/n"
    assert second.requests[0].json["model"] == "n"
    assert not first.requests


FAILURES = [
    # behaviour of every provider, error of the client, status, code
    (status(500), openai.InternalServerError, 503, "all_providers_failed"),
    (status(429), openai.InternalServerError, 503, "all_providers_failed"),
    (status(401), openai.InternalServerError, 503, "all_providers_failed"),
    (status(400), openai.BadRequestError, 400, None),
    (context_exceeded(), openai.BadRequestError, 400, "context_length_exceeded"),
    (content_filter_rejected(), openai.BadRequestError, 400, "content_filter"),
    (refusal(), openai.BadRequestError, 400, "content_filter"),
]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("behaviour", "kind", "code", "name"), FAILURES)
async def test_a_failure_before_the_first_output_is_a_status(
    first: LLMServer, second: LLMServer, tmp_path: Path,
    *, behaviour: Behaviour, kind: type[openai.APIStatusError], code: int, name: str | None, streamed: bool,
) -> None:  # fmt: skip
    first.default = second.default = behaviour
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        with pytest.raises(kind) as caught:
            await api.client.chat.completions.create(model="auto", messages=HELLO, stream=streamed)
    error = caught.value
    assert (error.status_code, error.code) == (code, name)
    if code == 503:
        assert int(error.response.headers["retry-after"]) >= 1
    assert error.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_break_after_the_first_output_is_an_error_event_without_an_end_marker(
    first: LLMServer, second: LLMServer, tmp_path: Path, *, streamed: bool
) -> None:
    """It never goes on with another provider's text; a plain answer was not begun, so the second one gives it."""
    first.default, second.default = cut(3), answer("From the second")
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        create = api.client.chat.completions.create
        if not streamed:
            found = await create(model="auto", messages=HELLO)
            assert found.choices[0].message.content == "From the second"
            return
        seen: list[str] = []
        with pytest.raises(openai.APIError) as caught:
            await _collect(await create(model="auto", messages=HELLO, stream=True), seen)
        page = await api.web.get("/v1/models")
    assert page.status == 200
    assert "".join(seen) == "The audience hears"
    assert "a broke off" in caught.value.message
    assert not second.requests


async def _collect(stream: openai.AsyncStream[ChatCompletionChunk], seen: list[str]) -> None:
    async for chunk in stream:
        seen.append(chunk.choices[0].delta.content or "")


async def test_a_filter_in_the_middle_of_a_stream_is_its_finish_reason(first: LLMServer, tmp_path: Path) -> None:
    first.default = content_filter(("Once", " upon"))
    async with endpoint(tmp_path, {"a": first.url}) as api:
        text, _, finish, _, _ = await read_stream(
            await api.client.chat.completions.create(model="auto", messages=HELLO, stream=True)
        )
    assert (text, finish) == ("Once upon", "content_filter")


async def test_length_is_handed_through(first: LLMServer, tmp_path: Path) -> None:
    first.default = answer("Once upon", finish="length")
    async with endpoint(tmp_path, {"a": first.url}) as api:
        found = await api.client.chat.completions.create(model="auto", messages=HELLO, max_tokens=2)
    assert found.choices[0].finish_reason == "length"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_hangs_up_ends_the_request_to_the_provider(
    first: LLMServer, tmp_path: Path, *, streamed: bool
) -> None:
    first.default = hang()
    async with endpoint(tmp_path, {"a": first.url}) as api:
        asking = asyncio.create_task(api.client.chat.completions.create(model="auto", messages=HELLO, stream=streamed))
        request = await first.arrival(1)
        asking.cancel()
        await asyncio.wait_for(request.abandoned.wait(), 3)
        status_ = api.services.llm.fallback.get_provider_status().providers[0]
    assert status_.failures == 0


async def test_a_client_that_hangs_up_in_the_middle_ends_the_request(first: LLMServer, tmp_path: Path) -> None:
    held = asyncio.Event()
    first.default = gate(held, after_pieces=1, then=answer("One two three"))
    async with endpoint(tmp_path, {"a": first.url}) as api:
        stream = await api.client.chat.completions.create(model="auto", messages=HELLO, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await asyncio.wait_for(first.requests[0].abandoned.wait(), 3)


async def test_a_history_is_never_shortened_silently(first: LLMServer, tmp_path: Path) -> None:
    """A program keeps its own history: it is told that the window is exceeded, and decides what to leave out."""
    first.default = context_exceeded()
    long: Any = [{"role": role, "content": "word " * 50} for role in ("user", "assistant", "user")]
    async with endpoint(tmp_path, {"a": first.url}) as api:
        with pytest.raises(openai.BadRequestError) as caught:
            await api.client.chat.completions.create(model="auto", messages=long)
    assert caught.value.code == "context_length_exceeded"
    assert [len(request.json["messages"]) for request in first.requests] == [3]


async def test_a_refused_tool_goes_to_the_next_candidate(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    first.default = status(400, {"error": {"message": "m does not support tools", "type": "api_error"}})
    second.default = tool_call("current_time", {"zone": "UTC"})
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        found = await api.client.chat.completions.create(model="auto", messages=HELLO, tools=[TOOL])
    assert found.model == "b/m"
    assert found.choices[0].message.tool_calls
    assert [bool(request.json.get("tools")) for request in first.requests] == [True]


async def test_a_dead_first_provider_costs_a_client_nothing(second: LLMServer, tmp_path: Path) -> None:
    with refusing_url() as dead:
        await _ask_thrice(tmp_path, {"a": dead, "b": second.url})


async def _ask_thrice(directory: Path, providers: dict[str, str]) -> None:
    async with endpoint(directory, providers) as api:
        for _ in range(3):
            found = await api.client.chat.completions.create(model="auto", messages=HELLO)
            assert found.model == "b/m"
