"""Peculiarities of Google's Gemini API."""

import gc
from typing import Any

import aiohttp
import pytest
from pydantic_ai.exceptions import (
    ModelAuthenticationError,
    ModelOverloadedError,
    ModelQuotaExceededError,
    ModelRateLimitError,
)
from pydantic_ai.messages import ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from yarl import URL

from core.config.providers import ProviderKind, ProviderSettings
from services.llm.providers.builder import CONNECT_TIMEOUT_S, ModelBuilder
from services.llm.routing.faults.outcomes import classify
from services.llm.routing.faults.refusal_words import Fault
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import LLMServer
from tests.support.fake_llm.wire import WireError
from tests.support.fake_llm.wire_gemini import WORDS, quota_failure, retry_info
from tests.support.routed_requests import TIME_TOOL, ask

STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"


@pytest.fixture
def google(server: LLMServer) -> ProviderSettings:
    """The provider."""
    return provider_at(server, ProviderKind.GOOGLE)


def says(status: int, said: WireError) -> llm.Behaviour:
    """An error as google.rpc.Status."""
    return llm.Act(lambda exchange: exchange.fault(status, said))


def exhausted(*details: dict[str, object]) -> llm.Behaviour:
    """A 429 with those details."""
    return says(429, WireError(WORDS[429], "RESOURCE_EXHAUSTED", 429, details))


# (the details of a 429, its class, how long to wait)
QUOTAS: list[tuple[llm.Behaviour, type[Exception], float | None]] = [
    (exhausted(quota_failure(PER_MINUTE), retry_info("31s")), ModelRateLimitError, 31),
    (exhausted(retry_info("0.5s")), ModelRateLimitError, 0.5),
    (exhausted(), ModelRateLimitError, None),
    # the day's quota does not come back within the minute that is asked for
    (exhausted(quota_failure(PER_DAY), retry_info("31s")), ModelQuotaExceededError, 31),
]


@STREAMED
@pytest.mark.parametrize(("behaviour", "expected", "retry_after"), QUOTAS)
async def test_retry_delay_is_read_from_the_body(
    server: LLMServer,
    builder: ModelBuilder,
    google: ProviderSettings,
    behaviour: llm.Behaviour,
    expected: type[Exception],
    retry_after: float | None,
    *,
    streamed: bool,
) -> None:
    """A RetryInfo counts like a Retry-After header; a day's quota is told from a minute's."""
    server.script(behaviour)
    with pytest.raises(expected) as caught:
        await ask(builder.models[google, google.default_model], streamed=streamed)
    assert caught.value.retry_after == retry_after


@STREAMED
async def test_refused_key_with_status_400(
    server: LLMServer, builder: ModelBuilder, google: ProviderSettings, *, streamed: bool
) -> None:
    """Which must not pass for a fault of the request."""
    server.api_key = "another"
    with pytest.raises(ModelAuthenticationError) as caught:
        await ask(builder.models[google, google.default_model], streamed=streamed)
    assert caught.value.status_code == 400
    assert classify(caught.value, 300).fault is Fault.MISCONFIGURED


# (status, the error body, the fault)
ODDITIES: list[tuple[int, WireError, Fault]] = [
    # the account's fault, not the request's
    (
        400,
        WireError("User location is not supported for the API use.", "FAILED_PRECONDITION", 400),
        Fault.MISCONFIGURED,
    ),
    (400, WireError("Please enable billing on your project.", "FAILED_PRECONDITION", 400), Fault.MISCONFIGURED),
    (499, WireError("The operation was cancelled.", "CANCELLED", 499), Fault.DOWN),
    (503, WireError("The model is overloaded. Please try again later.", "UNAVAILABLE", 503), Fault.DOWN),
    (400, WireError("Function calling is not enabled for this model", "INVALID_ARGUMENT", 400), Fault.CAPABILITY),
]


@pytest.mark.parametrize(("status", "said", "fault"), ODDITIES)
async def test_error_details_refine_the_status(
    server: LLMServer, builder: ModelBuilder, google: ProviderSettings, status: int, said: WireError, fault: Fault
) -> None:
    """The same 400 may be the request's fault or the account's."""
    server.script(says(status, said))
    with pytest.raises(RuntimeError) as caught:
        await ask(builder.models[google, google.default_model])
    assert classify(caught.value, 300).fault is fault


async def test_overload_in_mid_stream(server: LLMServer, builder: ModelBuilder, google: ProviderSettings) -> None:
    """An error chunk keeps its own words."""
    server.script(llm.error_in_stream(1, message="The model is overloaded. Please try again later."))
    with pytest.raises(ModelOverloadedError) as caught:
        await ask(builder.models[google, google.default_model], streamed=True)
    assert caught.value.in_stream


async def test_thought_signature_is_sent_back_with_the_tool_call(
    server: LLMServer, builder: ModelBuilder, google: ProviderSettings
) -> None:
    """Gemini 3 answers 400 to a tool call that lost its signature."""
    server.script(llm.tool_call("current_time", {"zone": "UTC"}))
    model = builder.models[google, google.default_model]
    response = await ask(model, streamed=True, tools=(TIME_TOOL,))
    (call,) = response.parts
    assert isinstance(call, ToolCallPart)
    history = [
        ModelRequest([UserPromptPart("What time is it?")]),
        ModelResponse(response.parts, provider_name=response.provider_name, model_name=response.model_name),
        ModelRequest([ToolReturnPart("current_time", "12:00", call.tool_call_id)]),
    ]
    await model.request(history, None, ModelRequestParameters(function_tools=[TIME_TOOL]))

    sent = [part for content in server.requests[1].json["contents"] for part in content["parts"]]
    assert [part["thoughtSignature"] for part in sent if "functionCall" in part] == ["c2ln"]
    assert [part["functionResponse"]["name"] for part in sent if "functionResponse" in part] == ["current_time"]


@pytest.mark.parametrize(
    "behaviour",
    [llm.error_in_stream(1), llm.garbage_in_stream(1), llm.cut(1), llm.error_in_stream(0), llm.garbage_in_stream(0)],
)
async def test_failed_stream_releases_its_connection(
    server: LLMServer, builder: ModelBuilder, google: ProviderSettings, behaviour: llm.Behaviour
) -> None:
    """The SDK would leave it so until the garbage collector comes by."""
    gc.disable()
    try:
        failures = []
        for _ in range(3):
            server.script(behaviour)
            with pytest.raises(RuntimeError) as caught:
                await ask(builder.models[google, google.default_model], streamed=True)
            failures.append(caught)
        assert not builder.http_client(google)._transport._session.connector._acquired
    finally:
        gc.enable()


async def test_connect_timeout_is_capped(
    server: LLMServer, builder: ModelBuilder, google: ProviderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its timeout replaces the client's, and would let a dead host take a minute."""
    seen: list[aiohttp.ClientTimeout] = []
    send = aiohttp.ClientSession.request

    def look(session: aiohttp.ClientSession, method: str, url: URL, **options: Any) -> object:
        seen.append(options["timeout"])
        return send(session, method, url, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "request", look)
    for streamed in (False, True):
        await ask(builder.models[google, google.default_model], streamed=streamed)
    assert [timeout.connect for timeout in seen] == [CONNECT_TIMEOUT_S] * 2
    assert all(timeout.sock_read > google.timeout_s for timeout in seen)
