"""Refusals of providers from the user's point of view: with a healthy second provider, and alone."""

import json
from typing import Any

import pytest

from tests.support.bot_harness import FIRST, SECOND, BotHarness
from tests.support.fake_llm.exchange import Exchange
from tests.support.fake_llm.server import Act, Behaviour, answer, html_page, status


def error(message: str, **fields: object) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


IN_ARREARS = error("Access denied, please make sure your account is in good standing.", code="Arrearage")
OF_THE_PROVIDER: dict[str, Behaviour] = {
    "an account in arrears": status(400, IN_ARREARS),
    "a wrong key": status(400, {"code": "invalid-argument", "error": "Incorrect API key provided: ab***yz."}),
    "a model that is gone": status(400, error("vendor/some-model-pro is not a valid model ID", code=400)),
    "no model loaded": status(400, error("No models loaded. Please load a model in the developer page.")),
    "too little memory": status(500, error("model requires more system memory (5.6 GiB) than is available")),
    "a loading model": status(503, error("Loading model", code=503, type="unavailable_error")),
    "unknown words": status(400, error("something that no list knows")),
    "a web page": html_page(403),
}
"""Refusals that a second provider makes good, and that nothing mends where the provider is alone."""


def takes_without(field: str, refusal: dict[str, Any]) -> Behaviour:
    """Refuse every request with a field or a role, and answer the others."""

    async def do(exchange: Exchange) -> None:
        body = exchange.request.json
        roles = [message["role"] for message in body["messages"]]
        is_refused = field in body or field in roles
        await (status(400, refusal) if is_refused else answer(FIRST)).play(exchange)

    return Act(do)


def takes_up_to(characters: int) -> Behaviour:
    """Refuse requests that are longer than a small window, as llama.cpp does."""

    async def do(exchange: Exchange) -> None:
        sent = len(json.dumps(exchange.request.json))
        numbers = {"n_prompt_tokens": sent // 4, "n_ctx": characters // 4}
        refusal = error("the request exceeds the available context size", type="exceed_context_size_error", **numbers)
        await (status(400, refusal) if sent > characters else answer(FIRST)).play(exchange)

    return Act(do)


NO_PARSER = error('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set', code=400)
NO_SYSTEM = {"object": "error", "message": "System role not supported", "type": "BadRequestError", "code": 400}
OF_THE_MODEL: dict[str, Behaviour] = {
    "no tool parser": takes_without("tools", NO_PARSER),
    "no system role": takes_without("system", NO_SYSTEM),
    "no tools, in unknown words": takes_without("tools", error("cannot do that here")),
    "a small window": takes_up_to(8000),
}
"""Refusals of a part of the request, without which the provider answers."""


@pytest.mark.parametrize("refusal", OF_THE_PROVIDER.values(), ids=OF_THE_PROVIDER.keys())
async def test_second_provider_answers_in_place_of_one_that_refuses(
    empty_stage: BotHarness, refusal: Behaviour
) -> None:
    """Every message, without a trace for the user."""
    empty_stage.first.default = refusal
    await empty_stage.start()
    for question in ("Are you there?", "And now?"):
        assert (await empty_stage.asks(question)).text == SECOND


@pytest.mark.parametrize("refusal", OF_THE_PROVIDER.values(), ids=OF_THE_PROVIDER.keys())
async def test_lone_provider_that_refuses_is_said_in_one_line(empty_stage: BotHarness, refusal: Behaviour) -> None:
    """And the conversation goes on as soon as the provider answers."""
    empty_stage.first.default = refusal
    await empty_stage.start(AVAILABLE_PROVIDERS='{"a": ["m"]}', A_TIMEOUT="3")
    message = await empty_stage.asks("Are you there?")
    assert message.text.startswith(("All AI providers are unavailable", "The AI providers rejected"))
    empty_stage.first.default = answer(FIRST)
    assert (await empty_stage.asks("And now?")).text == FIRST


@pytest.mark.parametrize("alone", [False, True], ids=["with a second", "alone"])
@pytest.mark.parametrize("refusal", OF_THE_MODEL.values(), ids=OF_THE_MODEL.keys())
async def test_conversation_goes_on_without_what_a_model_refuses(
    empty_stage: BotHarness, refusal: Behaviour, *, alone: bool
) -> None:
    """Also once it is longer than the window, with messages of every length."""
    empty_stage.first.default = refusal
    await empty_stage.start(**({"AVAILABLE_PROVIDERS": '{"a": ["m"]}'} if alone else {}))
    for number in range(6):
        message = await empty_stage.asks(f"Question {number}: " + "word " * 300)
        assert message.text in ({FIRST} if alone else {FIRST, SECOND})
