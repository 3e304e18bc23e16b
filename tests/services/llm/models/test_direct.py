"""Direct requests over HTTP through the fallback service: verdicts and conversation names."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from pydantic_ai.direct import model_request
from redis.asyncio import Redis

from core.config.providers import ProviderKind
from core.errors import AllProvidersFailed, ConsentNeeded, ContentRefused, NoUsableAnswer, RequestRejected
from core.redis.client import open_redis
from services.llm.models.factory import StructuredOutput
from services.llm.models.name_generator import first_words
from services.llm.request import ModelChoice, RequestSpec
from services.llm.routing.events import NoProviderAnswers
from services.moderation.domain.verdict import Verdict
from tests.support.fake_llm.providers import NETWORKED_KINDS, provider_at
from tests.support.fake_llm.server import (
    Answer,
    LLMServer,
    answer,
    content_filter,
    content_filter_rejected,
    hang,
    refusal,
    status,
    tool_call,
)
from tests.support.llm_harness import HELLO, LLMHarness, bench, provider

WRONG = {"category": "no such category", "confidence": 3}
RIGHT = {"category": "ok", "confidence": 97}


def verdict(fields: dict[str, Any] | None = None) -> Answer:
    return tool_call("final_result", RIGHT if fields is None else fields)


@pytest.fixture
async def servers() -> AsyncIterator[list[LLMServer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(LLMServer()) for _ in range(3)]


@pytest.fixture
async def store() -> AsyncIterator[Redis]:
    client = open_redis(None)
    yield client
    await client.aclose()


@pytest.fixture
async def three(store: Redis, servers: list[LLMServer]) -> AsyncIterator[LLMHarness]:
    """A replica with three providers."""
    providers = [provider(name, server.url) for name, server in zip("abc", servers, strict=True)]
    async with bench(store, providers) as replica:
        yield replica


def asked(servers: list[LLMServer]) -> list[int]:
    return [len(server.requests) for server in servers]


async def test_verdict_carries_provider_and_usage(three: LLMHarness, servers: list[LLMServer]) -> None:
    """One request, with the schema, few tokens and temperature 0."""
    servers[0].default = verdict()
    model = three.factory.create_moderation_model("moderation")
    given = await model.ask("Judge.", "Buy now")
    assert given.value == Verdict(category="ok", confidence=97)
    assert (given.provider, given.model, given.input_tokens, given.output_tokens) == ("a", "a-model", 11, 7)
    assert asked(servers) == [1, 0, 0]
    sent = servers[0].requests[0].json
    assert [(m["role"], m["content"]) for m in sent["messages"]] == [("system", "Judge."), ("user", "Buy now")]
    assert sent["tools"][0]["function"]["parameters"]["properties"].keys() == set(Verdict.model_fields)
    assert sent["tool_choice"] == "required"
    assert sent["temperature"] == 0
    assert sent["max_tokens"] <= 1000


@pytest.mark.parametrize("kind", NETWORKED_KINDS)
async def test_every_kind_accepts_the_schema(kind: ProviderKind, store: Redis, servers: list[LLMServer]) -> None:
    """Each SDK sends it and returns the value."""
    servers[0].default = verdict()
    async with bench(store, [provider_at(servers[0], kind)]) as replica:
        given = await replica.factory.create_moderation_model("moderation").ask("Judge.", "Buy now")
    assert given.value.confidence == 97
    assert given.output_tokens > 0


@pytest.mark.parametrize(
    ("profile", "mode"),
    [
        ({}, "auto"),  # the library asks by a tool, or natively where a forced call would stop a model from thinking
        ({"default_structured_output_mode": "native", "supports_tools": False}, "auto"),
        ({"supports_tools": False, "supports_json_schema_output": True}, "native"),
        ({"supports_tools": False}, "prompted"),
    ],
)
def test_output_mode_depends_on_the_model(profile: dict[str, object], mode: str) -> None:
    """One mode would be wrong for part of a mixed chain."""
    parameters = StructuredOutput(Verdict).parameters(profile)
    assert parameters.output_mode == mode
    assert parameters.output_object is not None
    assert parameters.output_tools


@pytest.mark.parametrize(
    "said",
    [
        '{"category": "ok", "confidence": 97}',
        '```json\n{"category": "ok", "confidence": 97}\n```',
        'Here is my verdict: {"category": "ok", "confidence": 97} I hope that helps.',
    ],
)
async def test_json_in_the_text_is_accepted(three: LLMHarness, servers: list[LLMServer], said: str) -> None:
    """In place of the tool call, as weak models write it."""
    servers[0].default = answer(said)
    given = await three.factory.create_moderation_model("moderation").ask("Judge.", "Buy now")
    assert (given.provider, given.value.category) == ("a", "ok")


@pytest.mark.parametrize("wrong", [verdict(WRONG), answer("I think it is fine."), tool_call("final_result", "{")])
async def test_malformed_answer_moves_on_once(three: LLMHarness, servers: list[LLMServer], wrong: Answer) -> None:
    """To the next candidate; no cooldown, since chats are answered well enough."""
    servers[0].default = wrong
    servers[1].default = verdict()
    given = await three.factory.create_moderation_model("moderation").ask("Judge.", "Buy now")
    assert given.provider == "b"
    assert asked(servers) == [1, 1, 0]
    assert three.cooling() == {}
    assert three.preferred != "b"


async def test_second_malformed_answer_is_an_error(three: LLMHarness, servers: list[LLMServer]) -> None:
    """It names both providers and quotes neither answer."""
    servers[0].default = servers[1].default = verdict(WRONG)
    servers[2].default = verdict()
    with pytest.raises(NoUsableAnswer) as caught:
        await three.factory.create_moderation_model("moderation").ask("Judge.", "Buy now")
    assert [attempt.provider for attempt in caught.value.attempts] == ["a", "b"]
    assert "category" in caught.value.attempts[0].reason
    assert "no such category" not in str(caught.value)
    assert asked(servers) == [1, 1, 0]


async def test_malformed_answers_of_all_are_no_outage(store: Redis, servers: list[LLMServer]) -> None:
    """Chats are answered meanwhile, so operators get no notice of an outage."""
    events: list[object] = []
    for server in servers:
        server.default = verdict(WRONG)
    async with bench(store, [provider("a", servers[0].url), provider("b", servers[1].url)]) as replica:
        replica.fallback.recorder.listen(events.append)
        with pytest.raises(AllProvidersFailed):
            await replica.factory.create_moderation_model("moderation").ask("Judge.", "Buy now")
    assert events == []


async def test_failure_of_a_request_for_one_model_is_no_outage(store: Redis, servers: list[LLMServer]) -> None:
    """In a comparison, or for a token limited to one model, the other providers were not asked."""
    events: list[object] = []
    servers[1].default = status(529)
    async with bench(store, [provider("a", servers[0].url), provider("b", servers[1].url)]) as replica:
        replica.fallback.recorder.listen(events.append)
        for spec in (
            RequestSpec("compare", choice=ModelChoice("b", "b-model"), is_pinned=True),
            RequestSpec("api", models=("b/*",)),
        ):
            with pytest.raises(AllProvidersFailed):
                await model_request(replica.factory.create_routed_model(spec), HELLO)
    assert not [event for event in events if isinstance(event, NoProviderAnswers)]


async def test_failure_moves_on_as_in_a_chat(three: LLMHarness, servers: list[LLMServer]) -> None:
    """With the same cooldown."""
    servers[0].default = status(401)
    servers[1].default = status(503)
    servers[2].default = verdict()
    given = await three.factory.create_moderation_model("moderation").ask("Judge.", "Buy now")
    assert given.provider == "c"
    assert three.cooling().keys() == {"a", "b"}


async def test_answer_cut_while_thinking_causes_no_cooldown(three: LLMHarness, servers: list[LLMServer]) -> None:
    """The token limit is ours."""
    servers[0].default = Answer(thinking="Let me see", finish="length")
    servers[1].default = verdict()
    given = await three.factory.create_moderation_model("moderation").ask("Judge.", "Buy now")
    assert given.provider == "b"
    assert three.cooling() == {}


@pytest.mark.parametrize("refused", [content_filter(), refusal(), content_filter_rejected()])
async def test_refusal_goes_to_one_other_candidate(three: LLMHarness, servers: list[LLMServer], refused: Any) -> None:
    """No cooldown, and the other one does not become preferred."""
    servers[0].default = refused
    servers[1].default = verdict()
    given = await three.factory.create_moderation_model("moderation").ask("Judge.", "Buy now")
    assert given.provider == "b"
    assert asked(servers) == [1, 1, 0]
    assert three.cooling() == {}
    assert three.preferred != "b"


@pytest.mark.parametrize("other", [content_filter(), status(401)])
async def test_refusal_goes_to_no_third_candidate(three: LLMHarness, servers: list[LLMServer], other: Any) -> None:
    """The second one refuses, fails or answers in another shape."""
    servers[0].default = content_filter()
    servers[1].default = other
    servers[2].default = verdict()
    with pytest.raises(ContentRefused) as caught:
        await three.factory.create_moderation_model("moderation").ask("Judge.", "Buy now")
    assert caught.value.provider == "a"
    assert asked(servers) == [1, 1, 0]


async def test_rejected_request_surfaces(three: LLMHarness, servers: list[LLMServer]) -> None:
    """Two candidates that refuse the same request prove it; a third is not asked, nothing cools down."""
    servers[0].default = status(400)
    servers[1].default = status(400)
    with pytest.raises(RequestRejected):
        await three.factory.create_moderation_model("moderation").ask("Judge.", "Buy now")
    assert asked(servers)[1:] == [1, 0]
    assert three.cooling() == {}


async def test_local_only_calls_no_remote_provider(store: Redis, servers: list[LLMServer]) -> None:
    """Neither for a verdict nor for a name."""
    providers = [provider(name, server.url, remote=True) for name, server in zip("ab", servers, strict=False)]
    async with bench(store, providers) as replica:
        with pytest.raises(ConsentNeeded):
            await replica.factory.create_moderation_model("moderation", local_only=True).ask("Judge.", "Hm")
        with pytest.raises(ConsentNeeded):
            await replica.factory.create_name_generator_model("en", 40, local_only=True).name("Hm", "Well")
    assert [server.connections for server in servers] == [0, 0, 0]


async def test_silent_provider_times_out(store: Redis, servers: list[LLMServer]) -> None:
    """The next one answers."""
    servers[0].default = hang()
    servers[1].default = verdict()
    providers = [provider("a", servers[0].url, timeout_s=0.1), provider("b", servers[1].url)]
    async with bench(store, providers) as replica:
        given = await replica.factory.create_moderation_model("moderation").ask("Judge.", "Buy now")
    assert given.provider == "b"


async def test_reasoning_model_gets_no_temperature(store: Redis, servers: list[LLMServer]) -> None:
    """But as little thinking as possible, and tokens for it."""
    servers[0].default = verdict()
    chain = [replace(provider_at(servers[0], ProviderKind.OPENAI), models=("gpt-5-mini",))]
    async with bench(store, chain) as replica:
        await replica.factory.create_moderation_model("moderation").ask("Judge.", "Buy now")
    sent = servers[0].requests[0].json
    assert "temperature" not in sent
    assert sent["reasoning_effort"] == "minimal"
    assert sent["max_completion_tokens"] > 1000


async def test_demo_provider_is_skipped(store: Redis, servers: list[LLMServer]) -> None:
    """Its canned answer is no verdict and no name."""
    demo = replace(provider_at(servers[0], ProviderKind.DEMO), id="demo", models=("demo",))
    async with bench(store, [demo]) as replica:
        with pytest.raises(AllProvidersFailed):
            await replica.factory.create_name_generator_model("en", 40).name("Hm", "Well")


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Sourdough for beginners", "Sourdough for beginners"),
        ('"Sourdough for beginners."', "Sourdough for beginners"),
        ("**Title: Sourdough for beginners**\n\nI chose it because", "Sourdough for beginners"),
        ("\n\n# Закваска с нуля\n", "Закваска с нуля"),
        # Longer than it may be: whole words and an ellipsis.
        ("Sourdough bread for absolute beginners and their patient friends", "Sourdough bread for absolute beginners…"),
    ],
)
async def test_name_is_one_short_line(three: LLMHarness, servers: list[LLMServer], said: str, name: str) -> None:
    """Without the quotes, labels and Markdown that models add."""
    servers[0].default = answer(said)
    generator = three.factory.create_name_generator_model("en", 40)
    assert await generator.name("How do I bake bread?", "Slowly.") == name
    assert "How do I bake bread?" in servers[0].requests[0].json["messages"][-1]["content"]


async def test_empty_name_moves_on_once(three: LLMHarness, servers: list[LLMServer]) -> None:
    """Quotation marks around nothing are no name."""
    servers[0].default = answer('""')
    servers[1].default = answer("Bread")
    assert await three.factory.create_name_generator_model(None, 40).name("Bread?", "Yes.") == "Bread"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello there", "Hello there"),
        ("Hello\n\n  there", "Hello there"),
        ("one two three four", "one two…"),  # the limit falls into a word
        ("one two th four", "one two th…"),  # and right behind one
        ("abcdefghijklmnop", "abcdefghij…"),  # no border to cut at
        ("", ""),
    ],
)
def test_first_words_fit(text: str, words: str) -> None:
    """On one line, cut between words."""
    assert first_words(text, 11) == words
    assert len(words) <= 11
