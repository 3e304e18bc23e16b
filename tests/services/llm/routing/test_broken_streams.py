"""Streams of Anthropic's and Google's protocols as servers bend them, and streams that end inside a tool call."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.config.providers import ProviderKind
from core.redis.client import open_redis
from tests.services.llm.routing.test_recourse import WITH_TOOL
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.exchange import Exchange
from tests.support.fake_llm.providers import NETWORKED_KINDS, provider_at
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import answered_by, bench, provider, said

pytestmark = pytest.mark.integration

CUT = Path(__file__).parents[1] / "providers" / "wire" / "streams" / "cut-inside-tool-call.sse"
USAGE = {"input_tokens": 11, "output_tokens": 1}
MESSAGE = {
    "id": "m", "type": "message", "role": "assistant", "model": "claude", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": USAGE,
}  # fmt: skip


def event(kind: str, **fields: Any) -> str:
    """Returns an event of Anthropic's."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


def delta(kind: str, **fields: Any) -> str:
    return event("content_block_delta", index=0, delta={"type": kind, **fields})


START = event("message_start", message=MESSAGE)
BLOCK = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
ALPHA, BETA = delta("text_delta", text="Alpha "), delta("text_delta", text="beta.")
END = event("content_block_stop", index=0)
STOP = event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 7})
LAST = event("message_stop")
WHOLE = START + BLOCK + ALPHA + BETA + END + STOP + LAST
WITHOUT_USAGE = event("message_delta", delta={"stop_reason": "end_turn"})
ANTHROPIC = {
    "whole": WHOLE,
    "byte order mark": f"\ufeff{WHOLE}",
    "CRLF": WHOLE.replace("\n", "\r\n"),
    "CR": WHOLE.replace("\n", "\r"),
    "comments": WHOLE.replace("\n\n", "\n\n: waiting\n\n"),
    "retry and ids": "retry: 3000\n\n" + WHOLE.replace("event:", "id: 5\nevent:"),
    "no event lines": "\n".join(line for line in WHOLE.split("\n") if not line.startswith("event:")),
    "an unknown event": START + event("novelty", x=1) + BLOCK + ALPHA + BETA + END + STOP + LAST,
    "an unknown delta": START + BLOCK + ALPHA + delta("novel_delta", x="y") + BETA + END + STOP + LAST,
    "a null text": START + BLOCK + delta("text_delta", text=None) + ALPHA + BETA + END + STOP + LAST,
    "a null delta": START
    + BLOCK
    + event("content_block_delta", index=0, delta=None)
    + ALPHA
    + BETA
    + END
    + STOP
    + LAST,
    "no usage at the end": START + BLOCK + ALPHA + BETA + END + WITHOUT_USAGE + LAST,
    "null usage": START + BLOCK + ALPHA + BETA + END + WITHOUT_USAGE.replace("}}", '}, "usage": null}') + LAST,
    "no usage at the start": WHOLE.replace(json.dumps(USAGE), "null"),
    "no ends of blocks": START + BLOCK + ALPHA + BETA + STOP + LAST,
    "no last event": START + BLOCK + ALPHA + BETA + END + STOP,
    "usage in other forms": WHOLE.replace(json.dumps(USAGE), '{"input_tokens": "11", "cache_read_input_tokens": "x"}'),
    "a finish reason of OpenAI's": WHOLE.replace("end_turn", "stop"),
    "a block of thinking without fields": START
    + event("content_block_start", index=0, content_block={"type": "thinking"})
    + delta("thinking_delta", thinking="Hm.")
    + END
    + WHOLE.removeprefix(START).replace('"index": 0', '"index": 1'),
    "an end marker of OpenAI's": WHOLE + "data: [DONE]\n\n",
    "events without an object": START + "data: null\n\ndata: []\n\n" + BLOCK + ALPHA + BETA + END + STOP + LAST,
}


def part(text: str | None = None, finish: str | None = None, **more: Any) -> str:
    """Returns an event of Google's."""
    parts = [*([{"text": text}] if text is not None else []), *more.pop("parts", [])]
    candidate = {
        "content": {"role": "model", "parts": parts},
        "index": 0,
        **({"finishReason": finish} if finish else {}),
    }
    usage = {"promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18}
    return f"data: {json.dumps({'candidates': [candidate], 'usageMetadata': usage, **more})}\n\n"


BOTH = part("Alpha ") + part("beta.", "STOP")
GOOGLE = {
    "whole": BOTH,
    "byte order mark": f"\ufeff{BOTH}",
    "CR": BOTH.replace("\n", "\r"),
    "comments and events": ": hello\n\n" + BOTH.replace("data:", "event: message\ndata:"),
    "an unknown part": part("Alpha ", parts=[{"novelPart": {"x": 1}}, None]) + part("beta.", "STOP"),
    "null candidates": 'data: {"candidates": null}\n\n' + BOTH,
    "null content at the end": part("Alpha ")
    + part("beta.")
    + 'data: {"candidates": [{"content": null, "finishReason": "STOP"}]}\n\n',
    "an end marker of OpenAI's": BOTH + "data: [DONE]\n\n",
    "usage in other forms": BOTH.replace(": 11,", ": 11.5,").replace(": 7,", ": 1e999,"),
    "an unreadable part": part("Alpha ", parts=[{"text": None}, {"functionCall": None}]) + part("beta.", "STOP"),
    "other fields in other forms": part("Alpha ", modelVersion=7) + part("beta.", "STOP"),
    "no usage": part("Alpha ", usageMetadata=None) + part("beta.", "STOP", usageMetadata=None),
}
STREAMS = [(ProviderKind.ANTHROPIC, name, text) for name, text in ANTHROPIC.items()]
STREAMS += [(ProviderKind.GOOGLE, name, text) for name, text in GOOGLE.items()]


def send(data: bytes, *, is_cut: bool = False) -> llm.Act:
    """Answers with a stream; a cut one loses its connection."""

    async def do(exchange: Exchange) -> None:
        await exchange.start_stream()
        await exchange.chunk(data)
        if is_cut:
            exchange.cut()
        else:
            await exchange.end()

    return llm.Act(do)


@pytest.mark.parametrize(("kind", "name", "stream"), STREAMS, ids=[f"{kind}: {name}" for kind, name, _ in STREAMS])
async def test_bent_native_stream_is_read_whole(kind: ProviderKind, name: str, stream: str) -> None:
    del name
    async with LLMServer() as server:
        server.default = send(stream.encode())
        async with bench(open_redis(None), [provider_at(server, kind, id="first")]) as replica:
            response = await replica.ask(streamed=True)
            assert (said(response), response.finish_reason, replica.cooling()) == ("Alpha beta.", "stop", {})


async def test_blocks_of_one_index_are_told_apart() -> None:
    """Some proxies number each block alike."""
    block = {"type": "tool_use", "id": "t1", "name": "current_time", "input": {}}
    calls = [event("content_block_start", index=0, content_block=block | {"id": name}) for name in ("t1", "t2")]
    arguments = delta("input_json_delta", partial_json='{"n": 1}')
    stream = (
        START + calls[0] + arguments + END + calls[1] + arguments + END + STOP.replace("end_turn", "tool_use") + LAST
    )
    async with LLMServer() as server:
        server.default = send(stream.encode())
        providers = [provider_at(server, ProviderKind.ANTHROPIC, id="first")]
        async with bench(open_redis(None), providers) as replica:
            response = await replica.ask(streamed=True, parameters=WITH_TOOL)
            assert [call.args_as_dict() for call in response.tool_calls] == [{"n": 1}, {"n": 1}]


HALF_CALLS = {
    ProviderKind.ANTHROPIC: START
    + event(
        "content_block_start",
        index=0,
        content_block={"type": "tool_use", "id": "t", "name": "current_time", "input": {}},
    )
    + delta("input_json_delta", partial_json='{"time_'),
    ProviderKind.GOOGLE: part(parts=[{"functionCall": {"name": "current_time", "args": {"time_zone": "UTC"}}}]),
}


@pytest.mark.parametrize("is_cut", [True, False], ids=["cut", "ended"])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("kind", NETWORKED_KINDS)
async def test_stream_that_ends_inside_a_tool_call_goes_to_the_next_provider(
    kind: ProviderKind, *, streamed: bool, is_cut: bool
) -> None:
    """Nothing was shown, and no tool was run."""
    half = HALF_CALLS[kind].encode() if kind in HALF_CALLS else CUT.read_bytes()
    async with LLMServer() as first, LLMServer() as second:
        first.default, second.default = send(half, is_cut=is_cut), llm.answer("from the second")
        providers = [provider_at(first, kind, id="first"), provider("second", second.url)]
        async with bench(open_redis(None), providers) as replica:
            response = await replica.ask(streamed=streamed, parameters=WITH_TOOL)
            assert (answered_by(response), said(response)) == ("second", "from the second")
            assert replica.cooling() == {"first": pytest.approx(300, abs=1)}


async def test_tool_call_that_is_cut_by_length_goes_to_the_next() -> None:
    """A call with arguments cut off cannot be run, and no text was shown yet."""
    call = '{"index": 0, "id": "t1", "function": {"name": "current_time", "arguments": "{\\"zone\\": "}}'
    data = f'data: {{"choices": [{{"delta": {{"tool_calls": [{call}]}}, "finish_reason": "length"}}]}}\n\n'

    async def do(exchange: Exchange) -> None:
        await exchange.start_stream()
        await exchange.chunk(data.encode() + b"data: [DONE]\n\n")
        await exchange.end()

    async with LLMServer() as first, LLMServer() as second:
        first.default, second.default = llm.Act(do), llm.answer("from the second")
        providers = [provider_at(first, id="first"), provider("second", second.url)]
        async with bench(open_redis(None), providers) as replica:
            assert answered_by(await replica.ask(streamed=True, parameters=WITH_TOOL)) == "second"
