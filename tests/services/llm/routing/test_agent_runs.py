"""Stopped, slow and abandoned streams, and agents that run on the routed model."""

import asyncio
from dataclasses import replace

import pytest
from pydantic_ai import Agent
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import PartDeltaEvent
from pydantic_ai.models import StreamedResponse
from pydantic_ai.settings import ModelSettings

from core.redis.client import open_redis
from services.llm.models.routed import last_provenance
from tests.support.fake_llm import server as llm
from tests.support.fallback_harness import FallbackHarness, open_fallback_harness
from tests.support.llm_harness import HELLO, answered_by, bench, said

pytestmark = pytest.mark.integration


async def stream_of(harness: FallbackHarness, heard: asyncio.Event) -> None:
    """Read a stream to its end; set the event at its first piece."""
    async for _ in harness.replica.pieces():
        heard.set()


async def test_stop_before_the_first_output_records_no_failure(harness: FallbackHarness) -> None:
    """And closes the provider's connection."""
    harness.first.default = llm.hang()
    task = asyncio.create_task(harness.asked())
    request = await harness.first.arrival(1)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(request.abandoned.wait(), 5)
    assert harness.counts() == [1, 0, 0]
    assert harness.replica.cooling() == {}


async def test_stop_during_a_stream_records_no_failure(harness: FallbackHarness) -> None:
    harness.first.default = llm.stall(after_pieces=2)
    heard = asyncio.Event()
    task = asyncio.create_task(stream_of(harness, heard))
    request = await harness.first.arrival(1)
    await heard.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(request.abandoned.wait(), 5)
    assert harness.counts() == [1, 0, 0]
    assert harness.replica.cooling() == {}


async def test_cancelled_response_records_no_failure(harness: FallbackHarness) -> None:
    """By the library's own method, from another task than the reader's."""
    harness.first.default = llm.stall(after_pieces=2)
    model = harness.replica.factory.create_llm_model_with_fallback("test")
    async with model_request_stream(model, HELLO) as stream:
        reading = asyncio.create_task(_read(stream))
        await asyncio.sleep(0.05)
        await stream.cancel()
        await asyncio.wait_for(reading, 5)

    assert stream.get().state == "interrupted"
    assert harness.replica.cooling() == {}


async def _read(stream: StreamedResponse) -> int:
    return len([event async for event in stream])


async def test_abandoned_stream_records_no_failure(harness: FallbackHarness) -> None:
    harness.first.default = llm.stall(after_pieces=3)
    model = harness.replica.factory.create_llm_model_with_fallback("test")
    async with model_request_stream(model, HELLO) as stream:
        async for event in stream:
            if isinstance(event, PartDeltaEvent):
                break

    await asyncio.wait_for(harness.first.requests[0].abandoned.wait(), 5)
    assert harness.replica.cooling() == {}
    assert harness.replica.preferred is None


async def test_slow_consumer_records_no_failure() -> None:
    """Neither the stall nor the total timeout includes the consumer's time between two pieces."""
    async with open_fallback_harness(stall_timeout_s=0.4, timeout_s=0.7) as harness:
        harness.first.default = llm.answer(pieces=["word "] * 3)
        heard: list[str] = []
        async for piece in harness.replica.pieces():
            heard.append(piece)
            await asyncio.sleep(0.45)

        assert len(heard) == 3
        assert harness.replica.cooling() == {}


async def test_first_output_deadline_is_at_most_the_answer_deadline() -> None:
    async with open_fallback_harness() as harness:
        harness.first.default = llm.hang()
        first, second, _ = harness.fallback.providers
        impatient = replace(first, timeout_s=0.1, first_token_timeout_s=60.0)
        async with bench(open_redis(None), [impatient, second]) as replica, asyncio.timeout(5):
            assert answered_by(await replica.ask(streamed=True)) == "second"


@pytest.mark.parametrize("streamed", [False, True], ids=["run", "run_stream_events"])
async def test_each_step_of_a_tool_loop_selects_candidates_again(harness: FallbackHarness, *, streamed: bool) -> None:
    """The provider that called the tool fails at the next step: another one gets the tool's result."""
    harness.first.script(llm.tool_call("double", {"number": 21}), llm.status(529))
    agent = Agent(harness.replica.factory.create_llm_model_with_fallback("test"))

    @agent.tool_plain
    def double(number: int) -> int:
        return 2 * number

    if streamed:
        async with agent.run_stream_events("Double 21.") as events:
            async for event in events:
                if event.event_kind == "agent_run_result":
                    output = event.result.output
    else:
        output = (await agent.run("Double 21.")).output

    assert output == "from the second"
    assert harness.counts() == [2, 1, 0]
    assert "42" in str(harness.second.requests[0].json["messages"][-1])


async def test_tool_call_counts_as_an_answer(harness: FallbackHarness) -> None:
    """Without any text."""
    harness.first.script(llm.tool_call("double", {"number": 21}))

    assert await harness.asked() == "first"


async def test_stopped_agent_run_records_no_failure(harness: FallbackHarness) -> None:
    harness.first.default = llm.stall(after_pieces=2)
    agent = Agent(harness.replica.factory.create_llm_model_with_fallback("test"))
    heard = asyncio.Event()

    async def run() -> None:
        async with agent.run_stream_events("Hello?") as events:
            async for event in events:
                if isinstance(event, PartDeltaEvent):
                    heard.set()

    task = asyncio.create_task(run())
    await asyncio.wait_for(heard.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await asyncio.wait_for(harness.first.requests[0].abandoned.wait(), 5)
    assert harness.replica.cooling() == {}


async def test_model_settings_reach_the_provider_that_answers(harness: FallbackHarness) -> None:
    """The factory's settings, overridden by those of the request."""
    harness.first.script(llm.status(529))
    model = harness.replica.factory.create_llm_model_with_fallback("test", ModelSettings(temperature=0.5, max_tokens=7))
    agent = Agent(model)

    await agent.run("Hello?", model_settings=ModelSettings(temperature=0.1))

    assert harness.second.requests[0].json["temperature"] == 0.1
    assert harness.second.requests[0].json["max_tokens"] == 7


async def test_response_names_its_provider_and_the_failed_ones(harness: FallbackHarness) -> None:
    harness.first.script(llm.status(529))

    response = await harness.replica.ask(streamed=True)

    stamp = last_provenance([response])
    assert stamp is not None
    assert (stamp.provider, stamp.model, stamp.failed) == (
        "second",
        "second-model",
        (("first", "HTTP 529 (overloaded)"),),
    )
    assert said(response) == "from the second"
