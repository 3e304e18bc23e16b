"""Listeners of streamed answers, and streams that fall silent or break off after their finish reason."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import ModelResponse, ModelResponseStreamEvent, PartDeltaEvent, TextPart, TextPartDelta
from pydantic_ai.models import CompletedStreamedResponse, ModelRequestParameters, StreamedResponse

from core.errors import AnswerInterrupted
from core.redis.client import open_redis
from services.llm.models.routed import last_provenance
from services.llm.models.stream_reader import StreamReader
from services.llm.providers.openai import LeanOpenAI
from services.llm.providers.wire.event_stream import Pacing
from services.llm.request import Candidate, RequestSpec
from tests.services.llm.providers.wire.bent_streams import as_stream, chunk
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import Act, Exchange, LLMServer
from tests.support.llm_harness import HELLO, LLMHarness, bench, provider, said

pytestmark = pytest.mark.integration


@dataclass
class Heard:
    """Collects the pieces of each part."""

    parts: list[list[str]] = field(default_factory=list[list[str]])
    window_s: float = 0.0

    def begin_part(self) -> None:
        self.parts.append([])

    def write(self, piece: str) -> None:
        self.parts[-1].append(piece)

    @property
    def texts(self) -> list[str]:
        return ["".join(part) for part in self.parts]


@pytest.fixture
async def servers() -> AsyncIterator[tuple[LLMServer, LLMServer]]:
    async with LLMServer() as first, LLMServer() as second:
        first.default, second.default = llm.answer("one two three"), llm.answer("four five")
        yield first, second


@pytest.fixture
async def replica(servers: tuple[LLMServer, LLMServer]) -> AsyncIterator[LLMHarness]:
    providers = [provider(name, server.url) for name, server in zip(("first", "second"), servers, strict=True)]
    async with open_redis(None) as redis, bench(redis, providers) as replica:
        yield replica


async def test_listener_gets_the_text_and_the_consumer_no_deltas(replica: LLMHarness) -> None:
    """Piece by piece from the first one on; the assembled response is complete."""
    heard = Heard()
    model = replica.factory.create_routed_model(RequestSpec("test"), listener=heard)
    async with model_request_stream(model, HELLO) as stream:
        events = [event async for event in stream]
    assert heard.parts == [["one", " two", " three"]]
    assert not any(isinstance(event, PartDeltaEvent) for event in events)
    assert [event.event_kind for event in events] == ["part_start", "final_result", "part_end"]
    assert stream.get().parts == [TextPart("one two three")]
    assert stream.get().state == "complete"


async def test_consumer_without_a_listener_gets_all_events(replica: LLMHarness) -> None:
    """As from any other model's stream."""
    assert [piece async for piece in replica.pieces()] == ["one", " two", " three"]


async def test_plain_request_reads_its_text_as_one_piece(
    replica: LLMHarness, servers: tuple[LLMServer, LLMServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty pieces that arrive one by one after the first output are parsed together."""
    first_read = asyncio.Event()
    pieces = [f" {number}" for number in range(30)]
    servers[0].script(llm.gate(first_read, after_pieces=1, then=llm.answer(pieces=pieces, pause_s=0.001)))
    parsed = 0
    parse = LeanOpenAI._process_response_data

    def count(client: LeanOpenAI, **arguments: Any) -> object:
        nonlocal parsed
        parsed += 1
        first_read.set()
        return parse(client, **arguments)

    monkeypatch.setattr(LeanOpenAI, "_process_response_data", count)
    response = await replica.ask(streamed=False)
    assert said(response) == "".join(pieces)
    assert response.usage.output_tokens
    assert parsed < 8


async def test_stall_counts_from_the_arrival_of_held_text() -> None:
    """The time for which text was held counts towards the stall deadline."""
    text = PartDeltaEvent(index=0, delta=TextPartDelta("begun"))

    class Silent(CompletedStreamedResponse):
        async def __aiter__(self) -> AsyncIterator[ModelResponseStreamEvent]:
            yield text
            await asyncio.Event().wait()

    @asynccontextmanager
    async def opening() -> AsyncGenerator[StreamedResponse]:
        yield Silent(ModelResponse([]), model_request_parameters=ModelRequestParameters())

    candidate = Candidate(provider("first", "http://127.0.0.1:1", stall_timeout_s=60.0), "m")
    pacing = Pacing()
    reader = StreamReader(candidate, 600.0, pacing)
    async with AsyncExitStack() as stack:
        await reader.open(stack, opening(), 60.0)
        assert await reader.read() == text
        pacing.held_s = 60.0
        with pytest.raises(TimeoutError, match="stalled"):
            await reader.read()
    reader.close()


async def test_listener_gets_nothing_of_a_failed_candidate(
    replica: LLMHarness, servers: tuple[LLMServer, LLMServer]
) -> None:
    """Events buffered before its first output are dropped."""
    servers[0].script(llm.thinking_only())
    heard = Heard()
    model = replica.factory.create_routed_model(RequestSpec("test"), listener=heard)
    async with model_request_stream(model, HELLO) as stream:
        async for _ in stream:
            pass
    assert heard.texts == ["four five"]


async def test_listener_gets_an_interrupted_answer(replica: LLMHarness, servers: tuple[LLMServer, LLMServer]) -> None:
    """The consumer gets the failure, and the response keeps the text so far."""
    servers[0].script(llm.cut(after_pieces=2))
    heard = Heard()
    model = replica.factory.create_routed_model(RequestSpec("test"), listener=heard)
    async with model_request_stream(model, HELLO) as stream:
        with pytest.raises(AnswerInterrupted):
            async for _ in stream:
                pass
        async for _ in stream:
            pytest.fail("read on after the failure")
    assert heard.texts == [said(stream.get())]
    assert heard.texts[0]
    assert "first" in replica.shared.routing.cooldowns, "the end of a broken answer is no success"


async def test_listener_gets_each_tool_loop_step_as_a_part(
    replica: LLMHarness, servers: tuple[LLMServer, LLMServer]
) -> None:
    """The text before and after a tool call; the tool still gets its arguments, which arrive in deltas."""
    servers[0].script(llm.tool_call("greet", {"name": "Ann"}, text="Let me see."))
    heard = Heard()
    agent = Agent(replica.factory.create_routed_model(RequestSpec("test"), listener=heard))
    greeted: list[str] = []

    @agent.tool_plain
    async def greet(name: str) -> str:
        greeted.append(name)
        return "done"

    async with agent.iter("Hello?") as run:
        async for node in run:
            if Agent.is_model_request_node(node):
                async with node.stream(run.ctx) as events:
                    async for _ in events:
                        pass
    assert greeted == ["Ann"]
    assert heard.texts == ["Let me see.", "one two three"]
    assert [said(message) for message in run.all_messages() if isinstance(message, ModelResponse)] == heard.texts


TAG_BEGINNING = [chunk('{"content": "<thi"}'), chunk("{}", '"stop"')]
CALL = '{"tool_calls": [{"index": 0, "id": "t1", "function": {"name": "greet", "arguments": "{}"}}]}'


@pytest.mark.parametrize("is_cut", [False, True], ids=["silence", "lost connection"])
@pytest.mark.parametrize(
    ("lines", "text", "calls"),
    [
        (TAG_BEGINNING, "<thi", []),
        ([chunk(CALL), chunk("{}", '"tool_calls"')], "", ["greet"]),
        ([chunk('{"content": "<thi"}'), chunk(CALL), chunk("{}", '"tool_calls"')], "<thi", ["greet"]),
    ],
    ids=["the beginning of a tag", "a tool call", "both"],
)
async def test_answer_without_shown_text_is_whole_after_its_finish_reason(
    servers: tuple[LLMServer, LLMServer], lines: list[str], text: str, calls: list[str], *, is_cut: bool
) -> None:
    """The end marker never comes: the first answers all the same, and does not cool down."""

    async def do(exchange: Exchange) -> None:
        await exchange.start_stream()
        await exchange.chunk("".join(f"data: {line}\n\n" for line in lines).encode())
        if is_cut:
            exchange.cut()
        await exchange.wait(asyncio.Event().wait())

    servers[0].script(Act(do))
    providers = [
        provider("first", servers[0].url, first_token_timeout_s=1.0, stall_timeout_s=1.0, retries=0),
        provider("second", servers[1].url),
    ]
    async with open_redis(None) as redis, bench(redis, providers) as replica:
        model = replica.factory.create_routed_model(RequestSpec("test"))
        async with model_request_stream(model, HELLO) as stream:
            async for _ in stream:
                pass
        response = stream.get()
        assert ((response.text or ""), [call.tool_name for call in response.tool_calls]) == (text, calls)
        assert replica.cooling() == {}


def think(*, then: str | None) -> Act:
    """Answers with thinking over half a second, and a text; without a text it falls silent."""

    async def do(exchange: Exchange) -> None:
        await exchange.start_stream()
        for _ in range(5):
            thought = chunk('{"reasoning_content": "Hm. "}')
            await exchange.chunk(f"data: {thought}\n\n".encode())
            await exchange.wait(asyncio.sleep(0.1))
        if then is None:
            await exchange.wait(asyncio.Event().wait())
        await exchange.chunk(as_stream([chunk(json.dumps({"content": then}), '"stop"')]))
        await exchange.end()

    return Act(do)


@pytest.mark.parametrize(("then", "text"), [("Four", "Four"), (None, "four five")], ids=["an answer", "silence"])
async def test_thinking_ends_the_wait_for_the_first_output_and_its_silence_is_a_stall(
    servers: tuple[LLMServer, LLMServer], then: str | None, text: str
) -> None:
    servers[0].default = think(then=then)
    providers = [
        provider("first", servers[0].url, first_token_timeout_s=0.4, stall_timeout_s=0.4),
        provider("second", servers[1].url),
    ]
    async with open_redis(None) as redis, bench(redis, providers) as replica:
        answer = await replica.ask(streamed=True)
        assert said(answer) == text
        provenance = last_provenance([answer])
        assert provenance is not None
        reasons = [] if then else ["stalled for 0.4 s"]
        assert [reason for _, reason in provenance.failed] == reasons


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_last_candidate_has_its_whole_timeout_to_the_first_output(*, streamed: bool) -> None:
    """The deadline to the first output is for the case that another one can answer meanwhile."""
    async with LLMServer() as slow:
        slow.default = llm.answer("at last", delay_s=1.5)
        patience = provider("slow", slow.url, first_token_timeout_s=1.0, timeout_s=10.0)
        async with bench(open_redis(None), [patience]) as replica:
            assert said(await replica.ask(streamed=streamed)) == "at last"
        async with LLMServer() as second:
            second.default = llm.answer("from the second")
            async with bench(open_redis(None), [patience, provider("second", second.url)]) as replica:
                assert said(await replica.ask(streamed=streamed)) == "from the second"
