"""A listener hears the text of an answer, past the generators that the library passes each event through."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from pydantic_ai import Agent
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import ModelResponse, PartDeltaEvent, TextPart

from core.errors import AnswerInterrupted
from core.redis.client import open_redis
from services.llm.request import RequestSpec
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import HELLO, LLMHarness, bench, provider, said


@dataclass
class Heard:
    """What was heard: the pieces of each part."""

    parts: list[list[str]] = field(default_factory=list[list[str]])

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


async def test_listener_receives_text_and_the_consumer_no_deltas(replica: LLMHarness) -> None:
    """Piece by piece, the first one too; the response that was built meanwhile is whole."""
    heard = Heard()
    model = replica.factory.create_routed_model(RequestSpec("test"), listener=heard)
    async with model_request_stream(model, HELLO) as stream:
        events = [event async for event in stream]
    assert heard.parts == [["one", " two", " three"]]
    assert not any(isinstance(event, PartDeltaEvent) for event in events)
    assert [event.event_kind for event in events] == ["part_start", "final_result", "part_end"]
    assert stream.get().parts == [TextPart("one two three")]
    assert stream.get().state == "complete"


async def test_consumer_receives_all_events_without_a_listener(replica: LLMHarness) -> None:
    """As any other model's stream."""
    assert [piece async for piece in replica.pieces()] == ["one", " two", " three"]


async def test_provider_that_fails_before_its_first_output_sends_no_text(
    replica: LLMHarness, servers: tuple[LLMServer, LLMServer]
) -> None:
    """What was held back from a provider that gave nothing is nobody's."""
    servers[0].script(llm.thinking_only())
    heard = Heard()
    model = replica.factory.create_routed_model(RequestSpec("test"), listener=heard)
    async with model_request_stream(model, HELLO) as stream:
        async for _ in stream:
            pass
    assert heard.texts == ["four five"]


async def test_interrupted_answer_was_sent_up_to_its_end(
    replica: LLMHarness, servers: tuple[LLMServer, LLMServer]
) -> None:
    """The failure comes to the consumer, and the response keeps what came."""
    servers[0].script(llm.cut(after_pieces=2))
    heard = Heard()
    model = replica.factory.create_routed_model(RequestSpec("test"), listener=heard)
    async with model_request_stream(model, HELLO) as stream:
        with pytest.raises(AnswerInterrupted):
            async for _ in stream:
                pass
    assert heard.texts == [said(stream.get())]
    assert heard.texts[0]


async def test_each_step_of_a_tool_loop_is_a_part_of_the_stream(
    replica: LLMHarness, servers: tuple[LLMServer, LLMServer]
) -> None:
    """What is said before and after a tool is used; the tool still gets its arguments, which come in deltas."""
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
