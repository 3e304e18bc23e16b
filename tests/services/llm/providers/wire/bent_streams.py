"""Streams of chat completions that bend the protocol, each in a way that some server does."""

HEAD = '{"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m1", '


def chunk(delta: str, reason: str = "null", head: str = HEAD) -> str:
    """Returns the data of a chunk."""
    return f'{head}"choices": [{{"index": 0, "delta": {delta}, "finish_reason": {reason}}}]}}'


def as_stream(lines: list[str]) -> bytes:
    """Returns an event stream with its end marker."""
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()


USAGE = '"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}'
STOP = chunk("{}", '"stop"')
BENT: dict[str, tuple[list[str], str]] = {
    "a chunk without choices": ([chunk('{"content": "Four"}'), STOP, HEAD + USAGE + "}"], "Four"),
    "a chunk without anything": (["{}", chunk('{"content": "Four"}'), STOP, '{"type": "ping"}'], "Four"),
    "an empty finish reason": ([chunk('{"content": "Four"}', '""'), STOP], "Four"),
    "a finish reason in words": ([chunk('{"content": "Four"}', '"null"'), chunk("{}", '"eos_token"')], "Four"),
    "an unknown finish reason": ([chunk('{"content": "Four"}'), chunk("{}", '"END_TURN"')], "Four"),
    "no finish reason in a chunk": (['{"choices": [{"delta": {"content": "Four"}}]}', STOP], "Four"),
    "only the text": (
        ['{"choices": [{"delta": {"content": "Fo"}}]}', '{"choices": [{"delta": {"content": "ur"}}]}',
         '{"choices": [{"finish_reason": "stop"}]}'], "Four",
    ),
    "null heads": ([chunk('{"content": "Four"}', head='{"id": null, "model": null, "created": null, '), STOP], "Four"),
    "times with fractions": (
        [chunk('{"content": "Four"}', head='{"id": 7, "model": "m", "created": 1.5, '), STOP], "Four",
    ),
    "content as parts": ([chunk('{"content": [{"type": "text", "text": "Four"}]}'), STOP], "Four"),
    "an odd role": (
        [chunk('{"role": "", "content": "Fo"}'), chunk('{"role": "model", "content": "ur"}'), STOP], "Four",
    ),
    "thinking in tags": ([chunk('{"content": "<think>Two and two</think>Four"}'), STOP], "Four"),
    "split tags": (
        [chunk('{"content": "<thi"}'), chunk('{"content": "nk>Two and two</th"}'),
         chunk('{"content": "ink>Four"}'), STOP],
        "Four",
    ),
    "a tag split around a finish reason": (
        [chunk('{"content": "<think>Two and two</thi"}', '"stop"'), chunk('{"content": "nk>Four"}', '"stop"')],
        "Four",
    ),
    "a beginning that may be a tag": ([chunk('{"content": "<thi"}', '"stop"')], "<thi"),
    "the text so far": (
        [chunk(f'{{"content": "{text}"}}') for text in ("Fo", "Fou", "Four", "Four", "Fo")] + [STOP], "Four",
    ),
    "the text so far in two": (
        [chunk('{"content": "Four, I think"}'), chunk('{"content": "Four, I think."}'), STOP], "Four, I think.",
    ),
    "pieces that repeat": ([chunk(f'{{"content": "{text}"}}') for text in ("Fo", "Fo", "ur")] + [STOP], "FoFour"),
    "messages with the text so far": (
        [chunk("{}").replace('"delta": {}', f'"message": {{"content": "{text}"}}') for text in ("Fo", "Four")] + [STOP],
        "Four",
    ),
    "two objects in one event": ([chunk('{"content": "Fo"}') + chunk('{"content": "ur"}'), STOP], "Four"),
    "a comma after an object": ([chunk('{"content": "Fo"}') + ",", chunk('{"content": "ur"}') + ",", STOP], "Four"),
    "one list of all chunks": (
        ["[" + ", ".join([chunk('{"content": "Fo"}'), chunk('{"content": "ur"}'), STOP]) + "]"], "Four",
    ),
    "a mark before each event": (
        ["{}\n\n\ufeffdata: " + chunk('{"content": "Four"}') + "\n\n\ufeffdata: " + STOP], "Four",
    ),
    "halves of a character": (
        [chunk(r'{"content": "\ud83d"}'), chunk(r'{"content": "\ude00"}'), chunk(r'{"content": " \\ud83d \uDE00"}'),
         chunk(r'{"content": "\uD83D"}'), STOP],
        "\U0001f600 \\ud83d \ufffd",
    ),
    "lines of one event": ([chunk('{"content": "Fo"}') + "\ndata: " + chunk('{"content": "ur"}'), STOP], "Four"),
    "a frame around chunks": ([f'{{"data": {each}}}' for each in (chunk('{"content": "Four"}'), STOP)], "Four"),
    "one choice without a list": (['{"choices": {"delta": {"content": "Four"}}}', STOP], "Four"),
    "parts of the newer protocol": ([chunk('{"content": [{"type": "output_text", "text": "Four"}]}'), STOP], "Four"),
    "thinking by another name": ([chunk('{"thinking": "Two"}'), chunk('{"content": "Four"}'), STOP], "Four"),
    "a finish reason that is no word": ([chunk('{"content": "Four"}'), chunk("{}", "1")], "Four"),
    "a finish reason by another name": (
        [chunk('{"content": "Four"}'), '{"choices": [{"delta": {}, "finish_details": {"type": "stop"}}]}'], "Four",
    ),
    "null usage": ([chunk('{"content": "Four"}', head=HEAD + '"usage": null, '), STOP], "Four"),
    "empty usage": ([chunk('{"content": "Four"}', head=HEAD + '"usage": {}, '), STOP], "Four"),
    "usage in part": (
        [chunk('{"content": "Four"}', head=HEAD + '"usage": {"prompt_tokens": null, "total_tokens": 1.0}, '), STOP],
        "Four",
    ),
}  # fmt: skip
"""Data of the events of one stream, and the text that they make."""


def call(call_id: str, arguments: str, more: str = "") -> str:
    """Returns the beginning of a tool call, with its arguments as the inside of a JSON string."""
    function = f'{{"name": "current_time", "arguments": "{arguments}"}}'
    return f'{{"id": "{call_id}", "type": "function", "function": {function}{more}}}'


def rest(arguments: str, more: str = "") -> str:
    """Returns further arguments of a tool call."""
    return f'{{"function": {{"arguments": "{arguments}"}}{more}}}'


INDEX, NULL_INDEX, TEXT_INDEX, NULL_ID = ', "index": 0', ', "index": null', ', "index": "0"', ', "id": null'
OPEN, UTC, TOKYO = r"{\"time_zone\": ", r"\"UTC\"}", r"\"Asia/Tokyo\"}"
BENT_CALLS: dict[str, tuple[list[str], int]] = {
    "no index": ([f"[{call('t1', OPEN + UTC)}]", f"[{call('t2', OPEN + TOKYO)}]"], 2),
    "null index": (
        [f"[{call('t1', OPEN + UTC, NULL_INDEX)}]", f"[{call('t2', OPEN + TOKYO, NULL_INDEX)}]"], 2,
    ),
    "index as text": (
        [f"[{call('t1', OPEN + UTC, TEXT_INDEX)}]", f"[{call('t2', OPEN + TOKYO, TEXT_INDEX.replace('0', '1'))}]"], 2,
    ),
    "one list": ([f"[{call('t1', OPEN + UTC)}, {call('t2', OPEN + TOKYO)}]"], 2),
    "arguments later": ([f"[{call('t1', '', INDEX)}]", f"[{rest(OPEN, INDEX)}]", f"[{rest(UTC, INDEX)}]"], 1),
    "arguments later, no index": ([f"[{call('t1', '')}]", f"[{rest(OPEN)}]", f"[{rest(UTC, NULL_ID)}]"], 1),
    "interleaved by id": (
        [f"[{call('t1', OPEN)}, {call('t2', OPEN)}]", f"[{call('t1', UTC)}]", f"[{call('t2', TOKYO)}]"], 2,
    ),
    "the empty object first": ([f"[{call('t1', '{}', INDEX)}]", f"[{rest(OPEN, INDEX)}]", f"[{rest(UTC, INDEX)}]"], 1),
    "arguments as an object": (
        ['[{"id": "t1", "index": 0, "function": {"name": "current_time", "arguments": {"time_zone": "UTC"}}}]'], 1,
    ),
    "one call without a list": ([call("t1", OPEN + UTC)], 1),
}  # fmt: skip
"""Values of `tool_calls` in the deltas of one stream, and how many calls they make."""
