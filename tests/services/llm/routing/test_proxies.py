"""One dead model of a proxy, or of a server of many models, rests alone: its other models answer."""

# ruff: noqa: E501 - a row a line, in the words of servers

from collections.abc import AsyncIterator

import pytest
from pydantic_ai.messages import BinaryContent, ModelMessage, ModelRequest, UserPromptPart
from redis.asyncio import Redis

from core.errors import AllProvidersFailed, AnswerInterrupted
from services.llm.request import ModelChoice
from tests.services.llm.routing.refusal_cases import openai
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.exchange import Exchange
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import answered_by, bench, provider

pytestmark = pytest.mark.integration
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


@pytest.fixture
async def proxy() -> AsyncIterator[LLMServer]:
    async with LLMServer() as server:
        yield server


def of_models(**behaviours: llm.Behaviour) -> llm.Behaviour:
    """Behaves as each model does, by the second part of its name."""

    async def do(exchange: Exchange) -> None:
        await behaviours[exchange.request.model.rpartition("-")[2]].play(exchange)

    return llm.Act(do)


def litellm(status: int, message: str, kind: str = "internal_server_error") -> tuple[int, object]:
    said = f"litellm.{message}\n\nLiteLLM: model group 'x' failed with the error above. No fallback was attempted."
    return status, openai(said, str(status), kind)


# The words of the proxy, and the seconds that the model rests.
FAILURES: dict[str, tuple[int, object, float]] = {
    "LiteLLM, nothing listens": (*litellm(500, "InternalServerError: OpenAIException - Connection error."), 300),
    "LiteLLM, 502": (*litellm(502, "BadGatewayError: OpenAIException - Error code: 502"), 300),
    "LiteLLM, silent": (*litellm(408, "Timeout: APITimeoutError - Request timed out.", "invalid_request_error"), 300),
    "LiteLLM, a wrong key behind it": (*litellm(401, "AuthenticationError: OpenAIException - Incorrect API key provided: sk-x"), 1800),
    "LiteLLM, a refusal": (*litellm(400, "BadRequestError: OpenAIException - frobnicator is off"), 300),
    "LiteLLM, resting": (429, openai("No deployments available for selected model, Try again in 5 seconds.", "429"), 300),
    "LiteLLM of 2025": (500, openai("litellm.APIError: boom. Received Model Group=x\nAvailable Model Group Fallbacks=None", "500", None), 300),
    "OpenRouter": (502, {"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "gone", "provider_name": "Acme"}}}, 300),
    "OpenRouter, limited": (429, {"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "x:free is temporarily rate-limited upstream."}}}, 300),
    "new-api": (502, openai("bad response status code 502 (request id: 2026)", "bad_response_status_code", "new_api_error"), 300),
    "one-api": (429, openai("当前分组上游负载已饱和，请稍后再试"), 300),
    "Portkey": (500, {"error": {"message": "openai error: The server had an error"}, "provider": "openai"}, 300),
    "Ollama, memory": (500, openai("model requires more system memory (5.6 GiB) than is available (3.1 GiB)"), 300),
    "Ollama, crashed": (500, openai("llama runner process has terminated: exit status 2"), 300),
    "llama-swap": (502, "unable to start process: upstream command exited prematurely but successfully", 300),
    "LocalAI": (500, openai("rpc error: code = Unavailable desc = error reading from server: EOF", 500, ""), 300),
    "Groq names it": (503, openai("proxy-model is currently over capacity. Please try again."), 300),
    "in words that no list has": (500, {"detail": "The worker of 'proxy-model' has gone fishing."}, 300),
}  # fmt: skip


@pytest.mark.parametrize("said", FAILURES)
@STREAMED
async def test_dead_model_of_a_proxy_rests_alone(
    embedded_redis: Redis, proxy: LLMServer, said: str, *, streamed: bool
) -> None:
    """The next listed model answers, now and at once in the next request, where no other provider is listed too."""
    status, body, rest_s = FAILURES[said]
    refusal = body.encode() if isinstance(body, str) else body
    proxy.default = of_models(model=llm.status(status, refusal), large=llm.answer("alive"))
    async with bench(embedded_redis, [provider("proxy", proxy.url)]) as replica:
        await replica.ask(streamed=streamed)
        asked = len(proxy.requests)
        await replica.ask(streamed=streamed)

        assert [request.model for request in proxy.requests[asked - 1 :]] == ["proxy-large", "proxy-large"]
        assert replica.cooling() == {}
        [resting] = replica.fallback.get_provider_status().providers[0].resting
        assert resting.model == "proxy-model"
        assert resting.until - replica.clock.time() == pytest.approx(rest_s, abs=1)


@STREAMED
async def test_proxy_with_dead_models_only_cools_down(
    embedded_redis: Redis, proxy: LLMServer, *, streamed: bool
) -> None:
    """Each listed model is asked once, and then the next provider."""
    status, body = litellm(500, "InternalServerError: OpenAIException - Connection error.")
    proxy.default = llm.status(status, body)
    async with LLMServer() as second:
        second.default = llm.answer("from the second")
        providers = [provider("proxy", proxy.url, retries=0), provider("second", second.url)]
        async with bench(embedded_redis, providers) as replica:
            assert answered_by(await replica.ask(streamed=streamed)) == "second"
            assert replica.cooling() == {"proxy": pytest.approx(300, abs=1)}
    assert [request.model for request in proxy.requests] == ["proxy-model", "proxy-large"]


@pytest.mark.parametrize("has_second", [True, False])
async def test_long_list_of_dead_models_does_not_delay_the_next_provider(
    embedded_redis: Redis, proxy: LLMServer, *, has_second: bool
) -> None:
    """Two are asked, the others by later requests; all of them where no other provider answers."""
    proxy.default = llm.status(*litellm(429, "RateLimitError: the limit of the account is reached", "throttling_error"))
    models = tuple(f"proxy-{number}" for number in range(5))
    async with LLMServer() as second:
        second.default = llm.answer("from the second")
        providers = [provider("proxy", proxy.url, models=models), provider("second", second.url)]
        async with bench(embedded_redis, providers if has_second else providers[:1]) as replica:
            if has_second:
                assert answered_by(await replica.ask(streamed=True)) == "second"
                assert [request.model for request in proxy.requests] == ["proxy-0", "proxy-1"]
                for _ in range(3):
                    assert answered_by(await replica.ask(streamed=True)) == "second"
            else:
                with pytest.raises(AllProvidersFailed):
                    await replica.ask(streamed=True)
            assert [request.model for request in proxy.requests] == list(models)
            assert list(replica.cooling()) == ["proxy"]


async def test_failure_that_names_no_model_is_the_one_of_its_server(embedded_redis: Redis, proxy: LLMServer) -> None:
    """Another model would hide that the server is down."""
    proxy.default = of_models(model=llm.status(500), large=llm.answer("alive"))
    async with bench(embedded_redis, [provider("proxy", proxy.url)]) as replica:
        with pytest.raises(AllProvidersFailed):
            await replica.ask(streamed=True)
        assert replica.cooling() == {"proxy": pytest.approx(300, abs=1)}


@STREAMED
async def test_unclear_refusal_of_a_lone_provider_asks_its_next_model(
    embedded_redis: Redis, proxy: LLMServer, *, streamed: bool
) -> None:
    """Its answer proves that the first model was at fault, whatever it said."""
    proxy.default = of_models(model=llm.status(400, {"error": "the moon is full"}), large=llm.answer("alive"))
    async with bench(embedded_redis, [provider("proxy", proxy.url)]) as replica:
        for _ in range(2):
            await replica.ask(streamed=streamed)
        assert [request.model for request in proxy.requests][-2:] == ["proxy-large", "proxy-large"]
        assert replica.cooling() == {}
        [resting] = replica.fallback.get_provider_status().providers[0].resting
        assert (resting.model, resting.until - replica.clock.time()) == ("proxy-model", pytest.approx(300, abs=1))


async def test_picked_model_that_breaks_off_rests_alone(embedded_redis: Redis, proxy: LLMServer) -> None:
    """After its first words no other model continues, and the provider still serves its default model."""
    proxy.default = of_models(model=llm.answer("alive"), large=llm.cut())
    async with bench(embedded_redis, [provider("proxy", proxy.url)]) as replica:
        with pytest.raises(AnswerInterrupted):
            await replica.ask(streamed=True, choice=ModelChoice("proxy", "proxy-large"))
        assert replica.cooling() == {}
        [resting] = replica.fallback.get_provider_status().providers[0].resting
        assert resting.model == "proxy-large"


@STREAMED
async def test_picture_is_shown_to_the_next_model_that_sees(
    embedded_redis: Redis, proxy: LLMServer, *, streamed: bool
) -> None:
    """Although one that does not is listed before it."""
    proxy.default = of_models(
        **{"4o": llm.status(503, openai("gpt-4o is over capacity")), "mini": llm.answer("a cat")},
        model=llm.answer("blind"),
    )
    models = ("gpt-4o", "text-model", "gpt-5-mini")
    async with bench(embedded_redis, [provider("proxy", proxy.url, models=models)]) as replica:
        picture = BinaryContent(b"\x89PNG\r\n\x1a\n", media_type="image/png")
        question: list[ModelMessage] = [ModelRequest([UserPromptPart(["What is this?", picture])])]
        await replica.ask(streamed=streamed, messages=question)
        assert [request.model for request in proxy.requests] == ["gpt-4o", "gpt-5-mini"]


async def test_other_model_without_vision_answers_no_picture_before_another_provider(
    embedded_redis: Redis, proxy: LLMServer
) -> None:
    """The models of one provider may differ in what they see."""
    proxy.default = of_models(
        **{"4o": llm.status(503, openai("gpt-4o is over capacity")), "model": llm.answer("blind")}
    )
    async with LLMServer() as second:
        second.default = llm.answer("from the second")
        providers = [
            provider("proxy", proxy.url, models=("gpt-4o", "text-model")),
            provider("second", second.url, models=("gpt-4o",)),
        ]
        async with bench(embedded_redis, providers) as replica:
            picture = BinaryContent(b"\x89PNG\r\n\x1a\n", media_type="image/png")
            question: list[ModelMessage] = [ModelRequest([UserPromptPart(["What is this?", picture])])]
            assert answered_by(await replica.ask(streamed=True, messages=question)) == "second"
            # A text is answered by the other model, and so is the picture where no other provider sees.
            assert answered_by(await replica.ask(streamed=True)) == "proxy"
            second.default = llm.status(401)
            assert answered_by(await replica.ask(streamed=True, messages=question)) == "proxy"
