"""The test of a provider, over HTTP: chat's request, the refused feature, and the server's own words."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from core.clock import SystemClock
from core.config.providers import ProviderKind
from services.llm.models.trial import ProviderTrial, TrialResult
from services.llm.providers.builder import ModelBuilder
from services.llm.request import Capability
from services.llm.routing.faults.outcomes import Fault
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.providers import NETWORKED_KINDS, provider_at
from tests.support.fake_llm.server import LLMServer

STREAM, TOOLS, SYSTEM = Capability.STREAMING, Capability.TOOLS, Capability.SYSTEM_ROLE


@pytest.fixture
async def trial() -> AsyncIterator[ProviderTrial]:
    """A trial with connections of its own."""
    builder = ModelBuilder()
    yield ProviderTrial(builder, SystemClock(), 300)
    await builder.aclose()


def has_feature(request: dict[str, Any], feature: Capability) -> bool:
    """Return whether a request of OpenAI's wire has a feature."""
    match feature:
        case Capability.STREAMING:
            return bool(request.get("stream"))
        case Capability.TOOLS:
            return "tools" in request
        case Capability.SYSTEM_ROLE:
            return any(message["role"] == "system" for message in request["messages"])
        case _:
            return False


def refuse(features: set[Capability], body: object, code: int) -> llm.Behaviour:
    """Refuse requests with any of the features, and answer the others."""

    async def play(exchange: llm.Exchange) -> None:
        is_refused = any(has_feature(exchange.request.json or {}, feature) for feature in features)
        await (llm.status(code, body) if is_refused else llm.answer("OK")).play(exchange)

    return llm.Act(play)


def refused_by(result: TrialResult) -> set[Capability]:
    """Return the refused features of a provider that answered."""
    assert result.failure is None
    return set(result.refused)


@pytest.mark.parametrize("kind", NETWORKED_KINDS)
async def test_trial_asks_what_chat_asks(server: LLMServer, trial: ProviderTrial, kind: ProviderKind) -> None:
    """One request: a stream, with a tool and instructions."""
    result = await trial.run(provider_at(server, kind))
    assert refused_by(result) == set()
    (request,) = server.requests
    sent = json.dumps(request.json)
    assert "current_time" in sent
    assert "You are being tested" in sent
    assert "stream" in request.path.lower() or (request.json or {}).get("stream") is True


NO_TOOLS = {"error": {"message": "registry.ollama.ai/library/m does not support tools", "type": "api_error"}}
NO_PARSER = {"object": "error", "message": '"auto" tool choice requires --enable-auto-tool-choice', "code": 400}
NO_SYSTEM = {"object": "error", "message": "System role not supported", "code": 400}


@pytest.mark.parametrize(
    ("refused", "body", "code"),
    [
        ({TOOLS}, NO_TOOLS, 400),  # Ollama
        ({TOOLS}, NO_PARSER, 400),  # vLLM
        ({TOOLS}, {"error": {"message": "tools param requires --jinja flag"}}, 500),  # llama.cpp
        ({TOOLS}, {"error": {"message": "No endpoints found that support tool use"}}, 404),  # OpenRouter
        ({SYSTEM}, NO_SYSTEM, 400),  # a chat template
        ({SYSTEM, TOOLS}, NO_SYSTEM, 400),
        ({STREAM}, {"error": {"message": "streaming is off"}}, 400),
        ({STREAM, TOOLS}, {"detail": "no"}, 422),
        ({STREAM, SYSTEM}, {"detail": "no"}, 422),
        ({STREAM, TOOLS, SYSTEM}, {"detail": "no"}, 400),
    ],
)
async def test_trial_finds_the_refused_feature_by_leaving_it_out(
    server: LLMServer,
    trial: ProviderTrial,
    refused: set[Capability],
    body: object,
    code: int,
) -> None:
    """For any words: a made-up refusal is found too."""
    server.default = refuse(refused, body, code)
    result = await trial.run(provider_at(server, retries=0))
    assert refused_by(result) == refused


async def test_trial_counts_a_stream_without_events_as_a_refused_stream(
    server: LLMServer, trial: ProviderTrial
) -> None:
    """A server that ignores `stream` and answers with one JSON object."""

    async def play(exchange: llm.Exchange) -> None:
        chosen = llm.empty_stream() if (exchange.request.json or {}).get("stream") else llm.answer("OK")
        await chosen.play(exchange)

    server.default = llm.Act(play)
    assert refused_by(await trial.run(provider_at(server))) == {STREAM}


async def test_trial_accepts_a_tool_call_and_an_answer_cut_while_thinking(
    server: LLMServer, trial: ProviderTrial
) -> None:
    server.script(llm.tool_call("current_time", {}), llm.Answer(thinking="Hm.", finish="length"))
    assert refused_by(await trial.run(provider_at(server))) == set()
    assert refused_by(await trial.run(provider_at(server))) == set()
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("behaviour", "line", "requests"),
    [
        (llm.status(500, {"error": {"message": "needs 5.6 GiB"}}), "HTTP 500: needs 5.6 GiB", 8),
        (llm.status(400, {"error": {"message": "No models loaded."}}), "HTTP 400: No models loaded.", 8),
        (llm.status(401, {"error": {"message": "no plainsecret"}}), "HTTP 401: no ***", 1),
        (llm.status(401, {"error": {"message": "no", "code": "plainsecret"}}), "HTTP 401 (***): no", 1),
        (llm.status(429, {"error": {"message": "slow down"}}), "HTTP 429: slow down", 1),
        (llm.status(503, {"error": {"message": "Loading model"}}), "HTTP 503: Loading model", 1),
        (llm.hang(), "no answer within 0.2 s", 1),
        (llm.html_page(502), "HTTP 502: Just a moment...", 1),
        (llm.empty_answer(), "empty answer", 8),
    ],
)
async def test_trial_reports_a_failure_with_the_servers_words(
    server: LLMServer, trial: ProviderTrial, behaviour: llm.Behaviour, line: str, requests: int
) -> None:
    """Without the key; a failure that fewer features cannot mend is asked once."""
    server.default = behaviour
    provider = provider_at(
        server, api_key=SecretStr("plainsecret"), first_token_timeout_s=0.2 if "within" in line else 20
    )
    result = await trial.run(provider)
    assert str(result.failure) == line
    assert len(server.requests) == requests


async def test_trial_suggests_the_version_where_the_path_is_unknown(server: LLMServer, trial: ProviderTrial) -> None:
    server.default = llm.status(404, {"detail": "Not Found"})
    result = await trial.run(provider_at(server, id="my-lab", base_url=server.root))
    assert str(result.failure) == (
        f"HTTP 404: Not Found (MY_LAB_BASE_URL has no /v1 at its end, try MY_LAB_BASE_URL={server.root}/v1)"
    )


async def test_trial_of_an_unbuildable_provider_fails(server: LLMServer, trial: ProviderTrial) -> None:
    """A bug of ours is named as such, and ends the test at once."""
    result = await trial.run(provider_at(server, base_url=None))
    assert result.failure is not None
    assert result.failure.outcome.fault is Fault.OURS
    assert server.requests == []
