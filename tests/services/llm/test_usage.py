"""Usage reports: each request is counted once, however it ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.usage import RequestUsage

from core.errors import AllProvidersFailed, AnswerInterrupted, ContentRefused, RequestRejected
from core.redis.client import open_redis
from services.llm.request import ModelChoice, RequestSpec
from services.llm.usage import RequestEnd, RequestReport
from tests.support.fake_llm.server import (
    Answer,
    LLMServer,
    answer,
    content_filter,
    content_filter_rejected,
    cut,
    gate,
    hang,
    status,
    thinking_only,
    tool_call,
)
from tests.support.llm_harness import HELLO, LLMHarness, bench, eventually, provider

pytestmark = pytest.mark.integration

A, S, B, R, F = (
    RequestEnd.ANSWERED,
    RequestEnd.STOPPED,
    RequestEnd.INTERRUPTED,
    RequestEnd.REFUSED,
    RequestEnd.FAILED,
)
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


@dataclass
class Book:
    """A meter that keeps its reports."""

    reports: list[RequestReport] = field(default_factory=list)

    def count(self, report: RequestReport) -> None:
        self.reports.append(report)

    @property
    def ends(self) -> list[tuple[str, RequestEnd, bool]]:
        return [(report.provider.id, report.end, report.is_failure) for report in self.reports]

    @property
    def last(self) -> RequestReport:
        return self.reports[-1]

    @property
    def tokens(self) -> tuple[int, int]:
        usage = self.last.used.usage
        return usage.input_tokens, usage.output_tokens


@dataclass
class Counted:
    """A replica with two providers, and its usage reports."""

    replica: LLMHarness
    first: LLMServer
    second: LLMServer
    book: Book


@asynccontextmanager
async def counting() -> AsyncIterator[Counted]:
    book = Book()
    redis = open_redis(None)
    try:
        async with LLMServer() as first, LLMServer() as second:
            providers = [provider("a", first.url), provider("b", second.url)]
            async with bench(redis, providers, meter=book) as replica:
                yield Counted(replica, first, second, book)
    finally:
        await redis.aclose()


@pytest.fixture
async def counted() -> AsyncIterator[Counted]:
    async with counting() as made:
        yield made


@STREAMED
async def test_answer_is_counted_with_the_reported_usage(counted: Counted, *, streamed: bool) -> None:
    """And with user, chat and purpose."""
    spec = RequestSpec("chat", user="telegram:7", chat="telegram:-100", choice=ModelChoice("b"))
    model = counted.replica.factory.create_routed_model(spec)
    if streamed:
        async with model_request_stream(model, HELLO) as stream:
            async for _ in stream:
                pass
    else:
        await model_request(model, HELLO)
    assert counted.book.ends == [("b", A, False)]
    assert counted.book.tokens == (11, 7)
    last = counted.book.last
    assert (last.spec.purpose, last.spec.user, last.spec.chat, last.model) == (
        "chat",
        "telegram:7",
        "telegram:-100",
        "b-model",
    )
    assert last.used.is_answer
    assert not last.used.is_estimated


@STREAMED
async def test_unreported_usage_is_estimated(counted: Counted, *, streamed: bool) -> None:
    """And marked as an estimate."""
    counted.first.default = answer("word " * 40, usage=False)
    await counted.replica.ask(streamed=streamed)
    assert counted.book.last.used.is_estimated
    read, written = counted.book.tokens
    assert 1 <= read <= 20
    assert 40 <= written <= 60


@STREAMED
async def test_failover_counts_both_requests(counted: Counted, *, streamed: bool) -> None:
    """The failure is its provider's and used nothing."""
    counted.first.default = status(401)
    await counted.replica.ask(streamed=streamed)
    assert counted.book.ends == [("a", F, True), ("b", A, False)]
    assert counted.book.reports[0].used.usage == RequestUsage()


@STREAMED
async def test_retry_counts_as_the_same_request(counted: Counted, *, streamed: bool) -> None:
    counted.first.script(status(503))
    await counted.replica.ask(streamed=streamed)
    assert counted.book.ends == [("a", A, False)]


@STREAMED
async def test_empty_answer_counts_its_tokens(counted: Counted, *, streamed: bool) -> None:
    """It failed, and used tokens all the same."""
    counted.first.default = thinking_only()
    await counted.replica.ask(streamed=streamed)
    assert counted.book.ends == [("a", F, True), ("b", A, False)]
    usage = counted.book.reports[0].used.usage
    assert (usage.input_tokens, usage.output_tokens) == (11, 7)


@STREAMED
@pytest.mark.parametrize(
    ("behaviour", "error", "end"),
    [
        (content_filter(), ContentRefused, R),
        (content_filter_rejected(), ContentRefused, R),
        (status(400), RequestRejected, F),
    ],
)
async def test_surfaced_errors_are_no_provider_failures(
    counted: Counted, behaviour: Answer, error: type[Exception], end: RequestEnd, *, streamed: bool
) -> None:
    """A refusal, and a request that both providers reject."""
    counted.first.default = counted.second.default = behaviour
    with pytest.raises(error):
        await counted.replica.ask(streamed=streamed)
    asked = ["a"] if end is R else ["a", "b"]
    assert counted.book.ends == [(provider, end, False) for provider in asked]


async def test_interrupted_answer_counts_its_text(counted: Counted) -> None:
    """By an estimate, since its provider could not report usage."""
    counted.first.default = cut(after_pieces=10)
    with pytest.raises(AnswerInterrupted):
        await counted.replica.ask(streamed=True)
    assert counted.book.ends == [("a", B, True)]
    assert counted.book.last.used.is_estimated
    assert counted.book.last.used.is_answer
    assert 10 <= counted.book.tokens[1] <= 25


async def test_cancelled_answer_counts_its_text(counted: Counted) -> None:
    """A Stop in the middle."""
    never = asyncio.Event()
    counted.first.default = gate(never, after_pieces=2, then=answer("One two three four"))
    pieces = counted.replica.pieces()
    assert await anext(pieces) == "One"
    await pieces.aclose()
    await eventually(lambda: bool(counted.book.reports))
    assert counted.book.ends == [("a", S, False)]
    assert counted.book.last.used.is_estimated
    assert counted.book.tokens[1] > 0
    assert counted.replica.cooling() == {}


@STREAMED
async def test_request_cancelled_before_its_first_output_counts_its_prompt(counted: Counted, *, streamed: bool) -> None:
    """The provider read it all the same."""
    counted.first.default = hang()
    asking = asyncio.create_task(counted.replica.ask(streamed=streamed))
    await counted.first.arrival(1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert counted.book.ends == [("a", S, False)]
    read, written = counted.book.tokens
    assert read > 0
    assert written == 0
    assert not counted.book.last.used.is_answer


@STREAMED
async def test_step_of_a_tool_loop_is_no_answer(counted: Counted, *, streamed: bool) -> None:
    """Its tokens count; the answer comes later."""
    counted.first.default = tool_call("current_time", {"zone": "UTC"})
    await counted.replica.ask(streamed=streamed)
    assert counted.book.ends == [("a", A, False)]
    assert not counted.book.last.used.is_answer
    assert counted.book.tokens == (11, 7)


async def test_verdicts_and_names_are_counted(counted: Counted) -> None:
    """Each with its purpose, malformed ones included."""
    counted.first.script(tool_call("final_result", {"category": "ok", "confidence": "high"}))
    counted.second.script(tool_call("final_result", {"category": "ok", "confidence": 90}))
    factory = counted.replica.factory
    await factory.create_moderation_model("moderation", chat="telegram:-100").ask("Judge.", "Hm")
    await factory.create_name_generator_model("en", 40, chat="telegram:7").name("Hm", "Well")
    assert counted.book.ends == [("a", A, False), ("b", A, False), ("a", A, False)]
    seen = [(each.spec.purpose, each.spec.chat, each.used.is_answer) for each in counted.book.reports]
    assert seen == [
        ("moderation", "telegram:-100", False),  # not read by a user
        ("moderation", "telegram:-100", False),
        ("naming", "telegram:7", False),
    ]


async def test_candidate_that_was_not_asked_is_not_counted(counted: Counted) -> None:
    """A third candidate after two malformed answers, and one after two refusals."""
    counted.first.default = counted.second.default = answer("no verdict")
    with pytest.raises(AllProvidersFailed):
        await counted.replica.factory.create_moderation_model("moderation").ask("Judge.", "Hm")
    assert counted.book.ends == [("a", A, False), ("b", A, False)]


async def test_candidate_skipped_after_a_refusal_is_not_counted() -> None:
    """It was taken from the candidates and not asked."""
    book, redis = Book(), open_redis(None)
    async with LLMServer() as server:
        server.default = content_filter()
        async with bench(redis, [provider(name, server.url) for name in "abc"], meter=book) as replica:
            with pytest.raises(ContentRefused):
                await replica.factory.create_moderation_model("moderation").ask("Judge.", "Hm")
    await redis.aclose()
    assert book.ends == [("a", R, False), ("b", R, False)]
