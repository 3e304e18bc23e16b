"""Further tries of a request: at another model, at a server that loads its model, without a refused capability."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition
from redis.asyncio import Redis

from core.config.providers import ProviderKind
from core.errors import AllProvidersFailed, RequestRejected
from core.redis.client import open_redis
from services.llm.request import ModelChoice
from services.llm.routing.events import Misconfigured
from services.llm.routing.timing import RoutingTiming
from tests.services.llm.providers.wire.bent_streams import chunk
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.exchange import Exchange
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import RealSleeps, answered_by, bench, provider, said

STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
TOOL = ToolDefinition(name="current_time", description="Tells the time.", parameters_json_schema={"type": "object"})
WITH_TOOL = ModelRequestParameters(function_tools=[TOOL])
LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}


@pytest.fixture
async def first() -> AsyncIterator[LLMServer]:
    async with LLMServer() as server:
        server.default = llm.answer("from the first")
        yield server


@pytest.fixture
async def second() -> AsyncIterator[LLMServer]:
    async with LLMServer() as server:
        server.default = llm.answer("from the second")
        yield server


def without(*models: str) -> llm.Behaviour:
    """Answer like a proxy that has every model but these."""

    async def do(exchange: Exchange) -> None:
        is_gone = exchange.request.model in models
        await (llm.model_unknown() if is_gone else llm.answer("from the first")).play(exchange)

    return llm.Act(do)


@STREAMED
async def test_missing_model_rests_alone(
    embedded_redis: Redis, first: LLMServer, second: LLMServer, *, streamed: bool
) -> None:
    """The provider's next listed model is asked before the next provider, now and by the next requests."""
    first.default = without("first-model")
    events: list[object] = []
    async with bench(embedded_redis, [provider("first", first.url), provider("second", second.url)]) as replica:
        replica.fallback.recorder.listen(events.append)
        for _ in range(2):
            assert answered_by(await replica.ask(streamed=streamed)) == "first"

        assert [request.model for request in first.requests] == ["first-model", "first-large", "first-large"]
        assert replica.cooling() == {}
        [resting] = replica.fallback.get_provider_status().providers[0].resting
        assert (resting.model, resting.until - replica.clock.time()) == ("first-model", pytest.approx(1800))
        assert [type(event) for event in events] == [Misconfigured]

        replica.clock.shift(1801)
        first.default = llm.answer("from the first")
        await replica.ask(streamed=streamed)
        assert first.requests[-1].model == "first-model"


@STREAMED
async def test_picked_model_that_fails_rests_alone(
    embedded_redis: Redis, first: LLMServer, second: LLMServer, *, streamed: bool
) -> None:
    """Its provider's default answers, and other users' requests still go to that provider."""
    first.script(llm.status(529))
    async with bench(embedded_redis, [provider("first", first.url), provider("second", second.url)]) as replica:
        choice = ModelChoice("first", "first-large")
        assert answered_by(await replica.ask(streamed=streamed, choice=choice)) == "first"

        assert [request.model for request in first.requests] == ["first-large", "first-model"]
        assert replica.cooling() == {}
        assert answered_by(await replica.ask(streamed=streamed)) == "first"


@STREAMED
async def test_loading_server_rests_ten_seconds(
    embedded_redis: Redis, first: LLMServer, second: LLMServer, *, streamed: bool
) -> None:
    """Another provider answers, with or without Retry-After."""
    first.default = llm.status(503, LOADING, {"retry-after": "30"})
    async with bench(embedded_redis, [provider("first", first.url), provider("second", second.url)]) as replica:
        assert answered_by(await replica.ask(streamed=streamed)) == "second"

        assert len(first.requests) == 1
        assert replica.cooling() == {"first": pytest.approx(10)}


FAST = RoutingTiming(loading_poll_s=(0.02, 0.05))


@STREAMED
async def test_lone_loading_server_is_waited_for(embedded_redis: Redis, first: LLMServer, *, streamed: bool) -> None:
    """It is asked again until it answers."""
    first.script(*(llm.status(503, LOADING) for _ in range(3)))
    async with bench(embedded_redis, [provider("first", first.url)], RealSleeps(), timing=FAST) as replica:
        assert said(await replica.ask(streamed=streamed)) == "from the first"

        assert len(first.requests) == 4
        assert replica.cooling() == {}


@STREAMED
async def test_loading_server_is_not_waited_for_with_a_request_at_fault(
    embedded_redis: Redis, first: LLMServer, second: LLMServer, *, streamed: bool
) -> None:
    """Two other providers refused the request, so this one would refuse it as well."""
    first.default = llm.status(503, LOADING)
    second.default = llm.status(400, {"error": {"message": "the moon is full"}})
    providers = [provider("first", first.url), provider("second", second.url), provider("third", second.url)]
    async with bench(embedded_redis, providers, RealSleeps(), timing=FAST) as replica:
        with pytest.raises(RequestRejected):
            await replica.ask(streamed=streamed)
    assert len(first.requests) == 1


async def test_wait_for_a_loading_server_ends_at_its_timeout(embedded_redis: Redis, first: LLMServer) -> None:
    first.default = llm.status(503, LOADING)
    impatient = provider("first", first.url, timeout_s=0.3)

    class Clock(RealSleeps):
        def monotonic(self) -> float:
            return asyncio.get_running_loop().time()

    async with bench(embedded_redis, [impatient], Clock(), timing=FAST) as replica:
        with pytest.raises(AllProvidersFailed):
            await asyncio.wait_for(replica.ask(streamed=True), 5)
    assert 2 < len(first.requests) < 20


@STREAMED
async def test_model_that_cannot_be_built_is_passed_over(
    embedded_redis: Redis, second: LLMServer, *, streamed: bool
) -> None:
    """It rests half an hour, operators are told, and the next candidate answers."""
    broken = provider("first", "http://127.0.0.1:1/v1", kind=ProviderKind.AZURE_OPENAI, api_version=None)
    events: list[object] = []
    async with bench(embedded_redis, [broken, provider("second", second.url)]) as replica:
        replica.fallback.recorder.listen(events.append)
        assert answered_by(await replica.ask(streamed=streamed)) == "second"

        assert replica.cooling() == {"first": pytest.approx(1800)}
        assert [type(event) for event in events].count(Misconfigured) == 1


async def test_operators_read_the_words_of_a_provider_at_fault(
    embedded_redis: Redis, first: LLMServer, second: LLMServer
) -> None:
    """Without quotations of the prompt."""
    first.default = llm.status(400, {"error": {"message": "frobnicator is off for 'Hello?'"}})
    events: list[object] = []
    async with bench(embedded_redis, [provider("first", first.url), provider("second", second.url)]) as replica:
        replica.fallback.recorder.listen(events.append)
        assert answered_by(await replica.ask(streamed=True)) == "second"

    [told] = [event for event in events if isinstance(event, Misconfigured)]
    assert (told.provider, told.reason, told.words) == ("first", "HTTP 400", "frobnicator is off for '…?'")


async def test_operators_read_the_words_about_a_capability_that_nothing_helped(
    embedded_redis: Redis, first: LLMServer, second: LLMServer
) -> None:
    """It refuses tools to a request without tools."""
    first.default = llm.status(400, {"error": {"message": "this model does not support tools"}})
    events: list[object] = []
    async with bench(embedded_redis, [provider("first", first.url), provider("second", second.url)]) as replica:
        replica.fallback.recorder.listen(events.append)
        assert answered_by(await replica.ask(streamed=True, parameters=WITH_TOOL)) == "second"
    assert [event.words for event in events if isinstance(event, Misconfigured)] == [
        "this model does not support tools"
    ]


def no_tools(exchange: Exchange) -> llm.Behaviour:
    body = {"error": {"message": "this model does not support tools", "type": "api_error"}}
    return llm.status(400, body) if "tools" in exchange.request.json else llm.answer("from the first")


async def test_refused_capability_is_remembered_over_replicas_and_restarts(
    embedded_redis: Redis, first: LLMServer
) -> None:
    """For a day; a reset by an operator forgets it."""

    async def do(exchange: Exchange) -> None:
        await no_tools(exchange).play(exchange)

    first.default = llm.Act(do)
    providers = [provider("first", first.url)]
    async with bench(embedded_redis, providers) as replica:
        assert said(await replica.ask(streamed=True, parameters=WITH_TOOL)) == "from the first"
        assert ["tools" in request.json for request in first.requests] == [True, False]
    async with bench(embedded_redis, providers) as restarted:
        await restarted.ask(streamed=True, parameters=WITH_TOOL)
        assert len(first.requests) == 3
        [limits] = restarted.fallback.get_provider_status().providers[0].limits
        assert limits.refused.keys() == {"tools", "tool_choice"} or limits.refused.keys() == {"tools"}

        restarted.clock.shift(24 * 3600 + 1)
        await restarted.ask(streamed=True, parameters=WITH_TOOL)
        assert len(first.requests) == 5
        await restarted.fallback.control.reset("first")
        assert restarted.fallback.get_provider_status().providers[0].limits == ()


@pytest.mark.parametrize("kind", [ProviderKind.OPENAI_COMPATIBLE, ProviderKind.GROQ, ProviderKind.MISTRAL])
@STREAMED
async def test_refused_choice_of_the_tool_leaves_the_tools(
    embedded_redis: Redis, first: LLMServer, kind: ProviderKind, *, streamed: bool
) -> None:
    """It is left out alone, at the same candidate, and remembered."""
    body = {"error": {"message": "tool_choice is not supported by this model", "type": "invalid_request_error"}}

    async def do(exchange: Exchange) -> None:
        is_refused = "tool_choice" in exchange.request.json
        await (llm.status(400, body) if is_refused else llm.answer("from the first")).play(exchange)

    first.default = llm.Act(do)
    async with bench(embedded_redis, [replace(provider_at(first, kind), id="first")]) as replica:
        for _ in range(2):
            assert said(await replica.ask(streamed=streamed, parameters=WITH_TOOL)) == "from the first"
        [limits] = replica.fallback.get_provider_status().providers[0].limits
        assert limits.refused.keys() == {"tool_choice"}
    assert ["tool_choice" in request.json for request in first.requests] == [True, False, False]
    assert all(request.json["tools"] for request in first.requests)


async def test_refused_choice_leaves_the_tool_of_a_verdict(embedded_redis: Redis, first: LLMServer) -> None:
    async def do(exchange: Exchange) -> None:
        body = {"error": {"message": "deepseek-reasoner does not support this tool_choice"}}
        is_refused = "tool_choice" in exchange.request.json
        verdict = llm.tool_call("final_result", {"category": "ok", "confidence": 90})
        await (llm.status(400, body) if is_refused else verdict).play(exchange)

    first.default = llm.Act(do)
    async with bench(embedded_redis, [provider("first", first.url)]) as replica:
        answer = await replica.factory.create_moderation_model("moderation").ask("Judge.", "Hello")
    assert answer.value.confidence == 90
    assert ["tools" in request.json for request in first.requests] == [True, True]


async def test_refused_structure_takes_no_provider_from_the_chat(
    embedded_redis: Redis, first: LLMServer, second: LLMServer
) -> None:
    """No known words explain the refusal; the next verdict is asked for in words."""
    verdict: dict[str, Any] = {"category": "ok", "confidence": 90}

    async def do(exchange: Exchange) -> None:
        is_bare = not {"tools", "response_format"} & exchange.request.json.keys()
        body = {"error": {"message": "bad field no. 7"}}
        await (llm.answer(json.dumps(verdict)) if is_bare else llm.status(422, body)).play(exchange)

    first.default = llm.Act(do)
    second.default = llm.tool_call("final_result", verdict)
    async with bench(embedded_redis, [provider("first", first.url), provider("second", second.url)]) as replica:
        judge = replica.factory.create_moderation_model("moderation")
        assert (await judge.ask("Judge.", "Hello")).provider == "second"
        assert replica.fallback.get_provider_status().providers[0].failures == 0
        assert answered_by(await replica.ask(streamed=True)) == "first"
        assert (await judge.ask("Judge.", "Hello")).provider == "first"


async def test_provider_that_refuses_verdicts_in_words_too_cools_down(
    embedded_redis: Redis, first: LLMServer, second: LLMServer
) -> None:
    first.default = llm.status(422, {"error": {"message": "bad field no. 7"}})
    second.default = llm.tool_call("final_result", {"category": "ok", "confidence": 90})
    async with bench(embedded_redis, [provider("first", first.url), provider("second", second.url)]) as replica:
        judge = replica.factory.create_moderation_model("moderation")
        for expected in (0, 1):
            await judge.ask("Judge.", "Hello")
            assert replica.fallback.get_provider_status().providers[0].failures == expected


async def test_plain_answer_that_keeps_coming_is_not_cut(
    embedded_redis: Redis, first: LLMServer, second: LLMServer
) -> None:
    """`_TIMEOUT` ends with the first output, as for an answer that is shown."""

    async def do(exchange: Exchange) -> None:
        await exchange.start_stream()
        for line in [*(chunk(f'{{"content": "{word} "}}') for word in "abcdef"), chunk("{}", '"stop"'), "[DONE]"]:
            await exchange.chunk(f"data: {line}\n\n".encode())
            await asyncio.sleep(0.1)
        await exchange.end()

    first.default = llm.Act(do)
    slow = replace(provider("first", first.url), timeout_s=0.4, first_token_timeout_s=0.4)
    async with bench(embedded_redis, [slow, provider("second", second.url)]) as replica:
        assert said(await replica.ask(streamed=False)) == "a b c d e f "
        assert replica.fallback.get_provider_status().providers[0].failures == 0


async def test_verdict_is_asked_for_in_words_where_tools_are_refused(embedded_redis: Redis, first: LLMServer) -> None:
    """The schema stands in the instructions, and the answer is read as JSON."""
    verdict: dict[str, Any] = {"category": "ok", "confidence": 90}

    async def do(exchange: Exchange) -> None:
        behaviour = no_tools(exchange)
        answers = behaviour if "tools" in exchange.request.json else llm.answer(json.dumps(verdict))
        await answers.play(exchange)

    first.default = llm.Act(do)
    async with bench(embedded_redis, [replace(provider("first", first.url), models=("m",))]) as replica:
        answer = await replica.factory.create_moderation_model("moderation").ask("Judge.", "Hello")
    assert answer.value.category == "ok"
    assert "tools" not in first.requests[-1].json
    assert "schema" in str(first.requests[-1].json["messages"])


def stumbling(over: str) -> llm.Behaviour:
    """Answers with an internal error to each request that has a field."""
    taken = llm.answer('{"category": "gambling", "confidence": 91}')

    async def do(exchange: Exchange) -> None:
        await (llm.status(500) if over in exchange.request.json else taken).play(exchange)

    return llm.Act(do)


async def test_internal_error_over_a_structure_takes_no_provider_from_the_chats() -> None:
    """Asked in words the server gives its verdict; the next one is asked in words at once."""
    async with LLMServer() as first, LLMServer() as second:
        first.default = stumbling("tools")
        async with bench(open_redis(None), [provider("a", first.url), provider("b", second.url)]) as replica:
            model = replica.factory.create_moderation_model("moderation")
            assert (await model.ask("Judge.", "Hm")).provider == "a"
            assert replica.cooling() == {}
            asked = len(first.requests)
            assert (await model.ask("Judge.", "Hm")).provider == "a"
            assert len(first.requests) == asked + 1
            assert answered_by(await replica.ask(streamed=True)) == "a"
        assert second.requests == []


async def test_internal_error_over_everything_cools_the_provider() -> None:
    async with LLMServer() as first, LLMServer() as second:
        first.default = llm.status(500)
        second.default = stumbling("nothing")
        async with bench(open_redis(None), [provider("a", first.url), provider("b", second.url)]) as replica:
            model = replica.factory.create_moderation_model("moderation")
            assert (await model.ask("Judge.", "Hm")).provider == "b"
            assert replica.cooling() == {"a": pytest.approx(300, abs=1)}


async def test_lone_server_that_stumbles_over_tools_answers_without_them() -> None:
    async with LLMServer() as server:
        server.default = stumbling("tools")
        async with bench(open_redis(None), [provider("a", server.url)]) as replica:
            response = await replica.ask(streamed=True, parameters=WITH_TOOL)
            assert answered_by(response) == "a"
            assert replica.cooling() == {}


@STREAMED
async def test_stream_that_breaks_off_over_a_long_request_is_explained_by_a_plain_one(
    embedded_redis: Redis, first: LLMServer, *, streamed: bool
) -> None:
    words = "This model's maximum context length is 512 tokens. However, you requested 1031 tokens"
    too_long = {"error": {"message": words, "code": "context_length_exceeded"}}

    async def do(exchange: Exchange) -> None:
        is_long = len(str(exchange.request.json)) > 3000
        if is_long and exchange.request.json.get("stream"):
            await exchange.start_stream()
            await exchange.end()
        else:
            await (llm.status(400, too_long) if is_long else llm.answer("from the first")).play(exchange)

    first.default = llm.Act(do)
    earlier = [*_turns(20), ModelRequest.user_text_prompt("Hello?")]
    async with bench(embedded_redis, [provider("first", first.url, retries=0)]) as replica:
        for _ in range(2):
            assert said(await replica.ask(streamed=streamed, messages=earlier)) == "from the first"
        (status,) = replica.fallback.get_provider_status().providers
    # The reason of the plain request's refusal is remembered, and streaming is not blamed.
    assert [dict(limits.refused) for limits in status.limits] == [{}]
    assert first.requests[-1].json["stream"] is True


def _turns(count: int) -> list[ModelMessage]:
    turns: list[ModelMessage] = []
    for _ in range(count):
        turns += [ModelRequest.user_text_prompt("Why? " * 20), ModelResponse([TextPart("Because. " * 20)])]
    return turns
