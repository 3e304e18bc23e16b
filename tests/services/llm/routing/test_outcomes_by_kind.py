"""What each kind has its own way of saying, beside the rows of the outcome table: keys, refusals, delays."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import pytest

from core.config.providers import ProviderKind, ProviderSettings
from core.errors import AnswerInterrupted, ContentRefused
from core.redis.client import open_redis
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import Behaviour, LLMServer
from tests.support.fake_llm.wire import WireError
from tests.support.fake_llm.wire_gemini import retry_info
from tests.support.llm_harness import LLMHarness, answered_by, bench, provider, said

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


@dataclass(slots=True)
class Stage:
    """Two providers, `first` and `second`; the first is of the kind that a test names."""

    first: LLMServer
    second: LLMServer
    replica: LLMHarness


@pytest.fixture
async def stage(kind: ProviderKind) -> AsyncIterator[Stage]:
    async with LLMServer() as first, LLMServer() as second:
        second.default = llm.answer("from the second")
        async with bench(open_redis(None), [of_kind(kind, first), provider("second", second.url)]) as replica:
            yield Stage(first, second, replica)


def of_kind(kind: ProviderKind, server: LLMServer, **changes: object) -> ProviderSettings:
    """The provider `first`, with deadlines that a test can wait for."""
    short = provider_at(server, kind, id="first", timeout_s=8.0, first_token_timeout_s=1.5, stall_timeout_s=1.0)
    return replace(short, **changes)


@EACH_KIND
@STREAMED
async def test_refused_key_is_reported_as_misconfiguration(stage: Stage, *, streamed: bool) -> None:
    """Whatever status the kind has for it."""
    stage.first.api_key = "another"

    response = await stage.replica.ask(streamed=streamed)

    assert answered_by(response) == "second"
    assert stage.replica.cooling() == {"first": pytest.approx(1800)}


@pytest.mark.parametrize("kind", [GOOGLE])
@STREAMED
async def test_google_retry_delay_sets_the_cooldown(stage: Stage, *, streamed: bool) -> None:
    """RetryInfo in the body stands for the header."""
    exhausted = WireError("Resource has been exhausted.", "RESOURCE_EXHAUSTED", 429, (retry_info("17s"),))
    stage.first.default = llm.Act(lambda exchange: exchange.fault(429, exhausted))

    await stage.replica.ask(streamed=streamed)

    assert stage.replica.cooling() == {"first": pytest.approx(17)}


REFUSALS: list[tuple[ProviderKind, str, Callable[[], Behaviour]]] = [
    # Mistral's API has no way to refuse, Groq's and DeepSeek's fewer than Google's
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
async def test_content_refusal_is_raised(stage: Stage, does: Callable[[], Behaviour], *, streamed: bool) -> None:
    """Nobody cools down, and nobody else is asked."""
    stage.first.default = does()

    with pytest.raises(ContentRefused):
        await stage.replica.ask(streamed=streamed)

    assert stage.second.connections == 0
    assert stage.replica.cooling() == {}


@pytest.mark.parametrize("kind", [DEEPSEEK])
async def test_answer_given_up_by_deepseek_is_interrupted(stage: Stage) -> None:
    """`insufficient_system_resource` is no reason to be content with."""
    stage.first.default = llm.answer("Half an answer", finish="insufficient_system_resource")

    with pytest.raises(AnswerInterrupted):
        await stage.replica.ask(streamed=True)

    assert stage.replica.cooling() == {"first": pytest.approx(300)}


@EACH_KIND
@STREAMED
async def test_successful_answer(stage: Stage, *, streamed: bool) -> None:
    """And where nothing is wrong, nothing is found wrong."""
    stage.first.default = llm.answer("from the first", thinking="Let me see.")

    assert said(await stage.replica.ask(streamed=streamed)) == "from the first"
    assert stage.replica.cooling() == {}
