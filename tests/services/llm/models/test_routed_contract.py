"""What the routed model relies on in the model library beyond its documentation, so that an upgrade tells."""

from collections.abc import AsyncIterator

import pytest
from pydantic_ai import Agent
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import ModelRequest, PartStartEvent, TextPart
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.test import TestModel

from core.redis.client import open_redis
from services.llm.models.routed import RoutedModel
from services.llm.models.streams import CommittedStream
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


async def test_stream_is_iterated_through_its_event_iterator() -> None:
    """Whatever stands there is what every consumer gets, so that events that were peeked at can be replayed."""
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
        stream._event_iterator = replay  # pyright: ignore[reportAttributeAccessIssue]

        assert aiter(stream) is replay
        kinds = [event.event_kind async for event in stream]
    assert kinds[0] == "part_start"
    assert kinds[-1] == "part_end"
    assert stream.get().state == "complete"


async def test_stream_is_exposed_where_pydantic_ai_looks_for_it(model: RoutedModel) -> None:
    """Nothing is lost and nothing comes twice: the parts that the response gathered are the parts that were seen."""
    async with model_request_stream(model, HELLO) as stream:
        assert isinstance(stream._event_iterator, CommittedStream)
        events = [event async for event in stream]

    starts = [event for event in events if isinstance(event, PartStartEvent)]
    assert len(starts) == 1
    assert stream.get().parts == [TextPart("one two three")]
    assert stream.get().state == "complete"
    assert stream.get().finish_reason == "stop"


async def test_abandoned_stream_is_marked_incomplete(model: RoutedModel, server: LLMServer) -> None:
    """The library's own account of how a stream ended is not disturbed."""
    server.default = llm.stall(after_pieces=2)
    async with model_request_stream(model, HELLO) as stream:
        await anext(aiter(stream))

    assert stream.get().state == "incomplete"


def test_cancelled_stream_is_marked_cancelled() -> None:
    assert isinstance(StreamedResponse.cancelled, property)


def test_routed_model_restores_no_special_tokens(model: RoutedModel) -> None:
    """The models behind it do, each for itself; done twice, it would take what belongs to the text."""
    assert FallbackModel._answers_requests_itself is False
    assert model._answers_requests_itself is False
    assert model._restores_special_tokens is False


def test_routed_model_leaves_preparation_to_its_candidates(model: RoutedModel) -> None:
    """What agents do to a model before a request must not be done for the first provider alone."""
    parameters = ModelRequestParameters(allow_text_output=False)

    assert model.prepare_request({"temperature": 1}, parameters) == ({"temperature": 1}, parameters)
    assert model.prepare_messages(HELLO) is HELLO
    assert model._start_request_deadline({"request_timeout": 1}, stream=True) is None
    assert model._get_continuation_model(HELLO) is None
    with pytest.raises(NotImplementedError):
        _ = model.profile


def test_overridden_library_methods_still_exist() -> None:
    """Under the names and with the parameters that the library calls."""
    for name in ("request", "request_stream", "model_name", "__aenter__", "__aexit__"):
        assert name in vars(RoutedModel)
        assert hasattr(FallbackModel, name)
        assert hasattr(Model, name)


async def test_agent_accepts_the_routed_model(model: RoutedModel, server: LLMServer) -> None:
    """Entering and leaving an agent does not close the connections, which outlive every run."""
    agent = Agent(model)
    for _ in range(2):
        async with agent:
            assert (await agent.run("Hello?")).output == "one two three"

    assert model.model_name == "understudy"
    assert len(server.requests) == 2
    assert server.connections == 1


async def test_each_candidate_prepares_its_own_messages(model: RoutedModel, server: LLMServer) -> None:
    """Instructions reach the provider in the form that its own profile asks for: here as the one system message."""
    agent = Agent(model, instructions="Be brief.", system_prompt="You are a bot.")

    await agent.run("Hello?", message_history=[ModelRequest.user_text_prompt("Earlier")])

    roles = [message["role"] for message in server.requests[0].json["messages"]]
    assert roles.count("system") <= 1
    assert "Be brief." in str(server.requests[0].json)
