"""Contract tests: undocumented behaviour of pydantic-ai that the routed model relies on."""

from collections.abc import AsyncIterator

import pytest
from pydantic_ai import Agent
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import ModelRequest, PartStartEvent, TextPart
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.test import TestModel

from core.redis.client import open_redis
from services.llm.models.candidate_call import CommittedStream
from services.llm.models.routed import RoutedModel
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import HELLO, LLMHarness, bench, provider


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    async with LLMServer() as server:
        server.default = llm.answer("one two three")
        yield server


@pytest.fixture
async def replica(server: LLMServer) -> AsyncIterator[LLMHarness]:
    async with open_redis(None) as redis, bench(redis, [provider("first", server.url)]) as replica:
        yield replica


@pytest.fixture
def model(replica: LLMHarness) -> RoutedModel:
    return replica.factory.create_llm_model_with_fallback("test")


async def test_library_iterates_a_stream_through_its_event_iterator() -> None:
    """Every consumer gets its events, so that peeked events can be replayed."""
    model = TestModel(custom_output_text="Hello")
    async with model.request_stream(HELLO, None, ModelRequestParameters()) as stream:
        assert stream._event_iterator is None
        events = aiter(stream)
        assert stream._event_iterator is events
        first = await anext(events)

        async def replayed() -> AsyncIterator[object]:
            yield first
            async for event in events:
                yield event

        replay = replayed()
        stream._event_iterator = replay

        assert aiter(stream) is replay
        kinds = [event.event_kind async for event in stream]
    assert kinds[0] == "part_start"
    assert kinds[-1] == "part_end"
    assert stream.get().state == "complete"


async def test_routed_stream_replaces_the_event_iterator(model: RoutedModel) -> None:
    """No event is lost or repeated: the parts of the response are the parts that were streamed."""
    async with model_request_stream(model, HELLO) as stream:
        assert isinstance(stream._event_iterator, CommittedStream)
        events = [event async for event in stream]

    starts = [event for event in events if isinstance(event, PartStartEvent)]
    assert len(starts) == 1
    assert stream.get().parts == [TextPart("one two three")]
    assert stream.get().state == "complete"
    assert stream.get().finish_reason == "stop"


async def test_abandoned_stream_is_marked_incomplete(model: RoutedModel, server: LLMServer) -> None:
    """The library's own account of how a stream ended stays correct."""
    server.default = llm.stall(after_pieces=2)
    async with model_request_stream(model, HELLO) as stream:
        await anext(aiter(stream))

    assert stream.get().state == "incomplete"


def test_stream_has_a_cancelled_flag() -> None:
    assert isinstance(StreamedResponse.cancelled, property)


def test_routed_model_restores_no_special_tokens(model: RoutedModel) -> None:
    """The models behind it do; done twice, it would alter the text."""
    assert FallbackModel._answers_requests_itself is False
    assert model._answers_requests_itself is False
    assert model._restores_special_tokens is False


def test_routed_model_leaves_preparation_to_the_candidates(model: RoutedModel) -> None:
    """Preparation by an agent must not be done for the first provider alone."""
    parameters = ModelRequestParameters(allow_text_output=False)

    assert model.prepare_request({"temperature": 1}, parameters) == ({"temperature": 1}, parameters)
    assert model.prepare_messages(HELLO) is HELLO
    assert model._start_request_deadline({"request_timeout": 1}, stream=True) is None
    assert model._get_continuation_model(HELLO) is None
    with pytest.raises(NotImplementedError):
        _ = model.profile


def test_overridden_methods_exist_in_the_library() -> None:
    """Under the names and with the parameters that the library calls."""
    for name in ("request", "request_stream", "model_name", "__aenter__", "__aexit__"):
        assert name in vars(RoutedModel)
        assert hasattr(FallbackModel, name)
        assert hasattr(Model, name)


async def test_agents_accept_the_routed_model(model: RoutedModel, server: LLMServer) -> None:
    """Entering and leaving an agent does not close the connections, which outlive every run."""
    agent = Agent(model)
    for _ in range(2):
        async with agent:
            assert (await agent.run("Hello?")).output == "one two three"

    assert model.model_name == "understudy"
    assert len(server.requests) == 2
    assert server.connections == 1


async def test_each_candidate_prepares_the_messages(model: RoutedModel, server: LLMServer) -> None:
    """Instructions are sent in the form of its own profile: here as the one system message."""
    agent = Agent(model, instructions="Be brief.", system_prompt="You are a bot.")

    await agent.run("Hello?", message_history=[ModelRequest.user_text_prompt("Earlier")])

    roles = [message["role"] for message in server.requests[0].json["messages"]]
    assert roles.count("system") <= 1
    assert "Be brief." in str(server.requests[0].json)
