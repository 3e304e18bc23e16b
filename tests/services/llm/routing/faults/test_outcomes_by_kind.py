"""Outcomes with a format of their own per provider kind: rejected keys, refusals, delays."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from pydantic_ai.exceptions import ModelConnectionError

from core.config.providers import ProviderKind, ProviderSettings
from core.errors import AnswerInterrupted, ContentRefused
from core.redis.client import open_redis
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import Behaviour, LLMServer
from tests.support.fake_llm.wire import WireError
from tests.support.fake_llm.wire_gemini import retry_info
from tests.support.fallback_harness import FallbackHarness
from tests.support.llm_harness import answered_by, bench, provider, said

pytestmark = pytest.mark.integration

STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
GOOGLE, GROQ, MISTRAL, DEEPSEEK, ANTHROPIC = (
    ProviderKind.GOOGLE,
    ProviderKind.GROQ,
    ProviderKind.MISTRAL,
    ProviderKind.DEEPSEEK,
    ProviderKind.ANTHROPIC,
)
KINDS = (GOOGLE, GROQ, MISTRAL, DEEPSEEK, ANTHROPIC)
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
async def harness(kind: ProviderKind) -> AsyncIterator[FallbackHarness]:
    async with LLMServer() as first, LLMServer() as second:
        second.default = llm.answer("from the second")
        async with bench(open_redis(None), [of_kind(kind, first), provider("second", second.url)]) as replica:
            yield FallbackHarness((first, second), replica, [])


def of_kind(kind: ProviderKind, server: LLMServer, **changes: object) -> ProviderSettings:
    """Return the provider `first`, with short deadlines."""
    short = provider_at(server, kind, id="first", timeout_s=8.0, first_token_timeout_s=1.5, stall_timeout_s=1.0)
    return replace(short, **changes)


@EACH_KIND
@STREAMED
async def test_rejected_key_is_a_misconfiguration(harness: FallbackHarness, *, streamed: bool) -> None:
    """With any status that the kind sends for it."""
    harness.first.api_key = "another"

    response = await harness.replica.ask(streamed=streamed)

    assert answered_by(response) == "second"
    assert harness.replica.cooling() == {"first": pytest.approx(1800)}


@pytest.mark.parametrize("kind", [GOOGLE])
@STREAMED
async def test_google_retry_info_sets_the_cooldown(harness: FallbackHarness, *, streamed: bool) -> None:
    """RetryInfo in the body replaces the header."""
    exhausted = WireError("Resource has been exhausted.", "RESOURCE_EXHAUSTED", 429, (retry_info("17s"),))
    harness.first.default = llm.Act(lambda exchange: exchange.fault(429, exhausted))

    await harness.replica.ask(streamed=streamed)

    assert harness.replica.cooling() == {"first": pytest.approx(17)}


REFUSALS: list[tuple[ProviderKind, str, Callable[[], Behaviour]]] = [
    # Mistral's API has no refusal; Groq's and DeepSeek's have fewer forms than Google's
    (GOOGLE, "a safety stop", llm.content_filter),
    (GOOGLE, "a blocked prompt", llm.content_filter_rejected),
    (GROQ, "a content filter", llm.content_filter),
    (DEEPSEEK, "a content filter", llm.content_filter),
    (DEEPSEEK, "a risk in the content", llm.content_filter_rejected),
    (ANTHROPIC, "a refusal", llm.refusal),
    (ANTHROPIC, "a content filter", llm.content_filter),
    (ProviderKind.OPENAI_COMPATIBLE, "a refusal", llm.refusal),
    (ProviderKind.OPENAI_COMPATIBLE, "a content filter", llm.content_filter),
]


@STREAMED
@pytest.mark.parametrize(
    ("kind", "does"),
    [(kind, does) for kind, _, does in REFUSALS],
    ids=[f"{kind}: {name}" for kind, name, _ in REFUSALS],
)
async def test_refusal_surfaces(harness: FallbackHarness, does: Callable[[], Behaviour], *, streamed: bool) -> None:
    """No cooldown, and no other provider is asked."""
    harness.first.default = does()

    with pytest.raises(ContentRefused):
        await harness.replica.ask(streamed=streamed)

    assert harness.second.connections == 0
    assert harness.replica.cooling() == {}


@pytest.mark.parametrize("kind", [DEEPSEEK])
async def test_deepseek_unfinished_answer_is_interrupted(harness: FallbackHarness) -> None:
    """Its finish reason is `insufficient_system_resource`."""
    harness.first.default = llm.answer("Half an answer", finish="insufficient_system_resource")

    with pytest.raises(AnswerInterrupted):
        await harness.replica.ask(streamed=True)

    assert harness.replica.cooling() == {"first": pytest.approx(300)}


@EACH_KIND
@STREAMED
async def test_complete_answer_causes_no_cooldown(harness: FallbackHarness, *, streamed: bool) -> None:
    harness.first.default = llm.answer("from the first", thinking="Let me see.")

    assert said(await harness.replica.ask(streamed=streamed)) == "from the first"
    assert harness.replica.cooling() == {}


@EACH_KIND
@STREAMED
async def test_request_with_a_closed_client_blames_no_provider(harness: FallbackHarness, *, streamed: bool) -> None:
    """At the end of the process. Two SDKs report it as a lost connection."""
    factory = harness.replica.factory
    await factory._builder.http_client(harness.replica.fallback.roster.require("first")).aclose()
    with pytest.raises((RuntimeError, ModelConnectionError)):
        await harness.replica.ask(streamed=streamed)

    assert harness.second.connections == 0
    assert harness.replica.cooling() == {}
