"""Event streams by the standard: every input form is normalised to one output form."""

import json
import time
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from core.transport_errors import ResponseTooLarge
from services.llm.providers.wire.chat_chunks import ChatChunks
from services.llm.providers.wire.chat_fields import DONE
from services.llm.providers.wire.chunk_repair import ChunkRepair
from services.llm.providers.wire.event_lines import MAX_EVENT_BYTES, looks_like_event_stream
from services.llm.providers.wire.event_stream import EventStream
from services.llm.providers.wire.native_events import AnthropicRepair, NativeEvents, repair_google

TWO = b'data: {"a":1}\n\ndata: {"a":2}\n\n'
FORMS = {
    "common": (TWO, TWO),
    "byte order mark": (b"\xef\xbb\xbf" + TWO, TWO),
    "CRLF": (TWO.replace(b"\n", b"\r\n"), TWO),
    "CR": (TWO.replace(b"\n", b"\r"), TWO),
    "mixed line ends": (b'data: {"a":1}\r\n\ndata: {"a":2}\r\r\n', TWO),
    "no space after the colon": (TWO.replace(b"data: ", b"data:"), TWO),
    "comments": (b": ping\n\n" + TWO.replace(b"\n\n", b"\n: keep-alive\n\n"), TWO),
    "retry and id": (b"retry: 3000\n\nid: 7\n" + TWO, TWO),
    "an event without data": (b"event: ping\n\n" + TWO, TWO),
    "empty data": (b"data:\n\ndata: \n\ndata\n\n" + TWO, TWO),
    "blank lines": (b"\n\n\n" + TWO.replace(b"\n\n", b"\n\n\n\n"), TWO),
    "data over several lines": (b'data: {\ndata: "a":\ndata:  1}\n\n', b'data: { "a":  1}\n\n'),
    "named events": (b"event: delta\n" + TWO, b"event: delta\n" + TWO),
    "the default name": (b"event: message\n" + TWO, TWO),
    "a name after the data": (b'data: {"a":1}\nevent: delta\n\n', b'event: delta\ndata: {"a":1}\n\n'),
    "unknown fields": (b"time: 5\n{}\n" + TWO, TWO),
    "no blank line at the end": (TWO[:-1], TWO),
    "no line end at the end": (TWO[:-2], TWO),
    "end marker without line end": (TWO + b"data: [DONE]", TWO + b"data: [DONE]\n\n"),
    "cut within an event": (TWO + b'data: {"a":', TWO),
    "a lone BOM": (b"\xef\xbb\xbf", b""),
    "nothing": (b"", b""),
    "text beyond ASCII": ('data: {"t":"\u2028\x85 ё 🎉"}\n\n'.encode(), 'data: {"t":"\u2028\x85 ё 🎉"}\n\n'.encode()),
}
EACH = pytest.mark.parametrize(("sent", "passed_on"), FORMS.values(), ids=FORMS.keys())


def rewrite(*pieces: bytes) -> bytes:
    """Returns the normalised output for these pieces."""
    stream = EventStream()
    return b"".join(map(stream.feed, pieces)) + stream.finish(is_delimited=True)


@EACH
def test_event_stream_is_rewritten_to_one_form(sent: bytes, passed_on: bytes) -> None:
    assert rewrite(sent) == passed_on


@EACH
def test_event_stream_does_not_depend_on_pieces(sent: bytes, passed_on: bytes) -> None:
    assert rewrite(*(sent[at : at + 1] for at in range(len(sent)))) == passed_on
    for at in range(len(sent) + 1):
        assert rewrite(sent[:at], sent[at:]) == passed_on


BARE = {
    "an error over several lines": (b'{\n  "error": {\n "message": "no key"}}\n', {"message": "no key"}),
    "an error in one line": (b'{"error": {"message": "no key"}}', {"message": "no key"}),
    "a field of its own": (b'error: {"code": 400, "message": "too long"}\n\n', {"code": 400, "message": "too long"}),
    "in the words of Baidu": (
        b'{"error_code": 110, "error_msg": "no key"}',
        {"message": "no key", "code": 110, "type": None},
    ),
}


@pytest.mark.parametrize(("sent", "error"), BARE.values(), ids=BARE.keys())
def test_error_without_its_frame_is_read_from_a_declared_stream(sent: bytes, error: object) -> None:
    for pieces in ([sent], [sent[at : at + 1] for at in range(len(sent))]):
        stream = EventStream(ChatChunks())
        found = b"".join(map(stream.feed, pieces)) + stream.finish(is_delimited=True)
        assert json.loads(found.split(b"\n")[0].removeprefix(b"data: "))["error"] == error


def test_objects_a_line_are_events_as_soon_as_they_are_complete() -> None:
    stream = EventStream(ChatChunks())
    for text in ("Fo", "ur"):
        assert json.dumps(text).encode() in stream.feed(
            b'{"choices": [{"delta": {"content": "%s"}}]}\n' % text.encode()
        )


def test_events_pass_on_as_soon_as_they_are_complete() -> None:
    stream = EventStream()
    assert stream.feed(b'data: {"a":1}\n') == b""
    assert stream.feed(b"\n") == b'data: {"a":1}\n\n'


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n", b": bye\n\ndata: [DONE]\n\n"])
def test_end_marker_ends_the_stream(end: bytes) -> None:
    stream = EventStream()
    stream.feed(TWO)
    assert not stream.is_ended
    stream.feed(end)
    assert stream.is_ended


def test_body_without_a_known_length_ends_no_stream() -> None:
    """A connection that is closed may have been cut."""
    stream = EventStream()
    stream.feed(TWO)
    stream.finish(is_delimited=False)
    assert not stream.is_ended


@pytest.mark.parametrize("line", [b"data: ", b": ", b"x"], ids=["data", "comment", "unknown"])
def test_endless_line_is_too_large(line: bytes) -> None:
    with pytest.raises(ResponseTooLarge):
        rewrite(line, *[b"x" * 1024] * (MAX_EVENT_BYTES // 1024 + 2))


@pytest.mark.parametrize("field", [b"data: ", b"error: "])
def test_endless_event_is_too_large(field: bytes) -> None:
    with pytest.raises(ResponseTooLarge):
        rewrite(*[field + b"x" * 1024 + b"\n"] * (MAX_EVENT_BYTES // 1024 + 2))


@pytest.mark.parametrize("line", [b"<p>\n", b"data: {\n"], ids=["page", "data"])
def test_short_lines_do_not_hold_up_the_event_loop(line: bytes) -> None:
    """A body of many lines is read in linear time; in quadratic time these take half a minute."""
    stream, began = EventStream(ChatChunks()), time.process_time()
    for _ in range(10):
        stream.feed(line * 10_000)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("beginning", "is_stream"),
    [(b"data: {}", True), (b"\xef\xbb\xbf\n: hi", True), (b"event: x", True), (b'{"data": 1}', False), (b"<p>", False)],
)
def test_looks_like_event_stream(beginning: bytes, *, is_stream: bool) -> None:
    assert looks_like_event_stream(beginning) is is_stream


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    assert rewrite(b'data: {"t":"a\xffb"}\n\n') == 'data: {"t":"a\ufffdb"}\n\n'.encode()
    assert rewrite(b'data:{"t":"a\xffb"}\n\n') == 'data: {"t":"a\ufffdb"}\n\n'.encode()


def of_chat(*events: str, name: str = "") -> list[Any]:
    """Returns the decoded data of a chat-completions stream as it leaves, without its end marker."""
    stream = EventStream(ChatChunks())
    head = f"event: {name}\n" if name else ""
    sent = "".join(f"{head}data: {data}\n\n" for data in events).encode()
    left = stream.feed(sent) + stream.finish(is_delimited=False)
    return [json.loads(data) for each in left.split(b"\n\n") if each and (data := each[6:]) != DONE]


def ordinary(delta: str) -> str:
    """Returns a chunk with every field that the SDKs demand."""
    head = '"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"'
    return f'{{{head}, "choices": [{{"index": 0, "delta": {delta}, "finish_reason": null}}]}}'


TEXT = '{"choices": [{"delta": {"content": "Four"}}]}'


@pytest.mark.parametrize("data", ["null", "1", '"ok"', "[]", "keep-alive", "ping"])
def test_data_that_says_nothing_is_dropped(data: str) -> None:
    assert len(of_chat(data, TEXT, data)) == 1


@pytest.mark.parametrize("data", ["[DONE]", "[done]", "DONE", "[END]"])
def test_end_marker_in_any_spelling_ends_the_stream(data: str) -> None:
    stream = EventStream(ChatChunks())
    assert stream.feed(f"data: {data}\n\n".encode()) == b"data: [DONE]\n\n"
    assert stream.is_ended


@pytest.mark.parametrize(
    "choice",
    [
        '{"message": {"role": "assistant", "content": "Four"}}',
        '{"delta": {}, "message": {"content": "Four"}}',
        '{"text": "Four"}',
        '{"delta": {"content": {"type": "text", "text": "Four"}}}',
        '{"delta": {"content": "Four", "reasoning": {"text": "Two and two"}}}',
        '{"delta": {"content": "Four", "reasoning_content": ["Two and two"]}}',
        '{"delta": {"content": "Four", "reasoning_details": [{"type": "new"}]}}',
    ],
)
def test_text_is_found_wherever_it_stands(choice: str) -> None:
    [chunk] = of_chat(f'{{"choices": [{choice}]}}')
    delta = chunk["choices"][0]["delta"]
    assert delta["content"] == "Four"
    assert not any(delta.get(name) for name in ("reasoning", "reasoning_content", "reasoning_details"))


def test_message_after_deltas_repeats_nothing() -> None:
    _, last = of_chat(TEXT, '{"choices": [{"message": {"content": "Four"}, "finish_reason": "stop"}]}')
    assert last["choices"][0]["delta"] == {}


@pytest.mark.parametrize("texts", [["", "Four"], ["Fo\nur"], ["", "Fo", "ur", ""]])
def test_message_after_ordinary_deltas_repeats_nothing(texts: list[str]) -> None:
    """Servers send the role with each piece, so that only the texts of the chunks differ."""
    deltas = [json.dumps({"role": "assistant", "content": text}) for text in texts]
    chunks = of_chat(*map(ordinary, deltas), ordinary('{}, "message": {"content": "Four"}'))
    assert [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks] == [*texts, ""]


def test_message_of_an_otherwise_ordinary_chunk_is_read() -> None:
    [chunk] = of_chat(ordinary('{}, "message": {"role": "assistant", "content": "Four"}'))
    assert chunk["choices"][0]["delta"]["content"] == "Four"


def test_index_beyond_any_number_of_calls_is_none() -> None:
    call = f'{{"index": "{"9" * 5000}", "id": "t1", "function": {{"name": "x", "arguments": "{{}}"}}}}'
    [chunk] = of_chat(ordinary(f'{{"tool_calls": [{call}]}}'))
    assert chunk["choices"][0]["delta"]["tool_calls"][0]["index"] == 0


@pytest.mark.parametrize("name", [b"", b"event: error\n"])
def test_event_nested_without_end_is_cut_off_or_an_error(name: bytes) -> None:
    stream = EventStream(ChatChunks())
    left = stream.feed(name + b"data: " + b"[" * 100_000) + stream.finish(is_delimited=True)
    assert left in {b"", b"data: [DONE]\n\n"}


@pytest.mark.parametrize("value", ["null", "[]", "[[]]", "{}", "true", "-1", "1e300", '"9"'])
@pytest.mark.parametrize("place", ["delta", "choice", "chunk"])
def test_field_of_any_type_costs_no_text(place: str, value: str) -> None:
    names = {
        "delta": (
            "role",
            "reasoning",
            "reasoning_content",
            "reasoning_details",
            "function_call",
            "tool_calls",
            "audio",
        ),
        "choice": ("index", "finish_reason", "message", "text"),
        "chunk": ("id", "object", "created", "model", "usage", "type"),
    }
    for name in names[place]:
        fields = {each: f', "{name}": {value}' if each == place else "" for each in names}
        choice = f'{{"delta": {{"content": "Four"{fields["delta"]}}}{fields["choice"]}}}'
        [chunk] = of_chat(f'{{"choices": [{choice}]{fields["chunk"]}}}')
        assert chunk["choices"][0]["delta"]["content"] == "Four", name


@pytest.mark.parametrize("value", [None, [], [[]], [None], {}, {"a": 1}, True, 0, "9"])
def test_field_of_any_type_costs_no_whole_answer(value: object) -> None:
    """OpenAI's SDK accepts anything, and pydantic-ai validates it by these types."""
    for place, names in {
        "message": ("role", "refusal", "annotations", "audio", "function_call", "tool_calls", "reasoning_content"),
        "choice": ("index", "finish_reason", "logprobs"),
        "answer": ("id", "created", "model", "usage", "system_fingerprint", "object"),
    }.items():
        for name in names:
            answer: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": "Four"}}]}
            places = {"answer": answer, "choice": answer["choices"][0], "message": answer["choices"][0]["message"]}
            places[place][name] = value
            read = json.loads(ChunkRepair().repair_whole(json.dumps(answer).encode()))
            assert ChatCompletion.model_validate(read).choices[0].message.content == "Four", name


def test_reasoning_detail_of_a_type_that_is_no_word_is_left_out() -> None:
    [chunk] = of_chat('{"choices": [{"delta": {"content": "Four", "reasoning_details": [{"type": []}]}}]}')
    assert chunk["choices"][0]["delta"] == {"content": "Four", "reasoning_details": []}


def test_stop_reason_that_is_no_word_ends_no_stream() -> None:
    stream = EventStream(native=NativeEvents(AnthropicRepair()))
    data = '{"type": "message_delta", "delta": {"stop_reason": ["stop"]}, "usage": {}}'
    assert b'"stop_reason":["stop"]' in stream.feed(f"data: {data}\n\n".encode())


@pytest.mark.parametrize(
    ("parts", "read"),
    [
        (['{"text": "a \\ud83d"}', '{"text": "\\ude00 b"}'], [{"text": "a "}, {"text": "\U0001f600 b"}]),
        (
            ['{"functionCall": {"name": "remember", "args": {"note": "half \\ude00"}}}'],
            [{"functionCall": {"name": "remember", "args": {"note": "half \ufffd"}}}],
        ),
        # Repaired all the same.
        (['{"text": "\\ud83d\\ude00"}, {"unknown": 1}'], [{"text": "\U0001f600"}]),
        (['{"text": "\\ude00"}, {"unknown": 1}'], [{"text": "\ufffd"}]),
        (['{"text": "a path \\\\ude00"}'], [{"text": "a path \\ude00"}]),
    ],
)
def test_parted_characters_of_googles_stream_are_joined(parts: list[str], read: list[dict[str, Any]]) -> None:
    """No database and no further request takes half of a surrogate pair."""
    stream = EventStream(native=NativeEvents(repair_google))
    events = [f'data: {{"candidates": [{{"content": {{"parts": [{part}]}}}}]}}\n\n' for part in parts]
    lines = b"".join(stream.feed(event.encode()) for event in events).decode().split("data: ")[1:]
    contents = [json.loads(line)["candidates"][0]["content"]["parts"] for line in lines]
    assert [part for content in contents for part in content] == read


def test_tool_call_without_its_frame_is_read() -> None:
    [chunk] = of_chat('{"choices": [{"delta": {"tool_calls": [{"id": "t1", "name": "x", "arguments": {"n": 1}}]}}]}')
    assert chunk["choices"][0]["delta"]["tool_calls"][0]["function"] == {"name": "x", "arguments": '{"n": 1}'}


@pytest.mark.parametrize(
    ("reason", "read"),
    [
        ("timeout", "error"),
        ("cancelled", "error"),
        ("SAFETY", "content_filter"),
        ("repetition", "stop"),
        ("max_output_tokens", "length"),
        ("MAX_LENGTH", "length"),
        ("abort",) * 2,
    ],
)
def test_finish_reason_is_read_in_any_wording(reason: str, read: str) -> None:
    [chunk] = of_chat(f'{{"choices": [{{"delta": {{}}, "finish_reason": "{reason}"}}]}}')
    assert chunk["choices"][0]["finish_reason"] == read


@pytest.mark.parametrize(
    ("reports", "counts"),
    [
        (['{"prompt_tokens": "5", "completion_tokens": 3.0}'], (5, 3)),
        (['{"input_tokens": 5, "output_tokens": 3}'], (5, 3)),
        (['{"prompt_tokens": 5}', '{"completion_tokens": 3}'], (5, 3)),
        (['{"prompt_tokens": 5, "completion_tokens": 3}', '{"prompt_tokens": 0, "completion_tokens": 0}'], (5, 3)),
        (['{"prompt_tokens": 1e999, "completion_tokens": 3}'], (0, 3)),
        (['{"prompt_tokens": NaN, "completion_tokens": 3}'], (0, 3)),
        (['{"prompt_tokens": 1000000000000000000000, "completion_tokens": 3}'], (0, 3)),
        (['{"prompt_tokens": -5, "completion_tokens": 3, "prompt_tokens_details": [], "total_tokens": true}'], (0, 3)),
    ],
)
def test_usage_becomes_whole_counts(reports: list[str], counts: tuple[int, int]) -> None:
    usage = of_chat(*(f'{{"choices": [], "usage": {report}}}' for report in reports))[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (*counts, sum(counts))
    assert "prompt_tokens_details" not in usage


def usual_usage(sent: int, made: int, **more: object) -> bytes:
    """Returns a chunk that reports usage as OpenAI does."""
    usage = {"prompt_tokens": sent, "completion_tokens": made, "total_tokens": sent + made}
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return json.dumps(frame | {"choices": [], "usage": usage} | more).encode()


def test_usual_usage_passes_unchanged_and_does_not_fall() -> None:
    chunks = ChatChunks()
    details = {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": None}
    usual = [usual_usage(5, 0), usual_usage(5, 3, service_tier=None), usual_usage(5, 3)]
    detailed = json.dumps(json.loads(usual[1]) | {"usage": json.loads(usual[1])["usage"] | details}).encode()
    assert list(chunks.merge([*usual, detailed])) == [*usual, detailed]
    [lower] = chunks.merge([usual_usage(5, 2)])
    assert json.loads(lower)["usage"] == json.loads(usual[1])["usage"] | {"total_tokens": 7}


@pytest.mark.parametrize("details", [{"cached_tokens": "2"}, [], "none"])
def test_usage_with_details_in_other_forms_is_repaired(details: object) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8, "prompt_tokens_details": details}
    [chunk] = ChatChunks().merge([usual_usage(5, 3, usage=usage)])
    assert json.loads(chunk)["usage"].get("prompt_tokens_details", {}) in ({"cached_tokens": 2}, {})


def test_error_beside_usage_is_an_error() -> None:
    [chunk] = ChatChunks().merge([usual_usage(5, 3, code=500, message="overloaded")])
    assert json.loads(chunk)["error"]["message"] == "overloaded"


def test_usage_of_a_choice_is_that_of_the_answer() -> None:
    [chunk] = of_chat('{"choices": [{"delta": {}, "usage": {"prompt_tokens": 5, "completion_tokens": 3}}]}')
    assert chunk["usage"]["total_tokens"] == 8


def test_half_of_a_character_at_the_end_of_a_whole_answer_is_dropped() -> None:
    body = rb'{"choices": [{"message": {"content": "Four \ud83d"}, "finish_reason": "length"}]}'
    [choice] = json.loads(ChunkRepair().repair_whole(body))["choices"]
    assert choice["message"]["content"] == "Four "


@pytest.mark.parametrize(
    "choice",
    [
        '{"message": {"content": "<think>Two and two</think>Four"}}',
        '{"message": {"content": "[THINK]Two and two[/THINK]Four"}, "finish_reason": ""}',
        '{"message": {"content": [{"type": "text", "text": "<thinking>Two and two</thinking>Four"}]}}',
    ],
)
def test_whole_answer_is_read_in_any_form(choice: str) -> None:
    body = f'{{"choices": [{choice}], "usage": {{"prompt_tokens": "5", "completion_tokens": 1e999}}}}'
    answer = json.loads(EventStream(ChatChunks()).repair_whole(body.encode()))
    [choice_read] = answer["choices"]
    assert choice_read["message"]["content"] == "<think>Two and two</think>Four"
    assert (choice_read["finish_reason"], answer["usage"]["total_tokens"]) == ("stop", 5)


def test_calls_of_a_whole_answer_are_read_in_any_form() -> None:
    body = b'{"choices": [{"message": {"tool_calls": [{"name": "x", "arguments": {"n": 1}}, {"function": {}}]}}]}'
    message = json.loads(EventStream(ChatChunks()).repair_whole(body))["choices"][0]["message"]
    assert message["tool_calls"] == [
        {
            "id": "",
            "name": "x",
            "arguments": {"n": 1},
            "type": "function",
            "function": {"name": "x", "arguments": '{"n": 1}'},
        },
        {"id": "", "type": "function", "function": {"name": "", "arguments": ""}},
    ]


@pytest.mark.parametrize("body", [b"{", b"[1]", b'{"choices": []}', b'{"error": {"message": "x"}, "choices": [{}]}'])
def test_body_that_is_no_answer_stays_as_it_is(body: bytes) -> None:
    assert EventStream(ChatChunks()).repair_whole(body) == body


@pytest.mark.parametrize("data", ["the engine died", '{"message": "the engine died"}'])
def test_event_with_the_name_of_an_error_is_one(data: str) -> None:
    [chunk] = of_chat(data, name="error")
    assert "the engine died" in json.dumps(chunk["error"])


def test_account_error_of_minimax_is_an_error() -> None:
    [chunk] = of_chat('{"choices": null, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}')
    assert chunk["error"] == {"message": "insufficient balance", "code": 1008}
