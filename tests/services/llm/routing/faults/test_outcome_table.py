"""Every row of the outcome table, for plain and for streamed requests, over real HTTP."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from pydantic_ai.models.openai import OpenAIChatModel

from core.config.providers import ProviderKind
from core.errors import AllProvidersFailed, AnswerInterrupted, ContentRefused, ContextWindowExceeded, RequestRejected
from core.redis.client import open_redis
from services.llm.providers.builder import ConnectionsClosed
from services.llm.routing.timing import RoutingTiming
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import NO_SUCH_HOST_URL, Behaviour, LLMServer
from tests.support.fallback_harness import FallbackHarness
from tests.support.llm_harness import LLMHarness, answered_by, bench, provider, said, stopped_server

pytestmark = pytest.mark.integration

STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
KINDS = (
    ProviderKind.OPENAI_COMPATIBLE,
    ProviderKind.ANTHROPIC,
    ProviderKind.GOOGLE,
    ProviderKind.GROQ,
    ProviderKind.MISTRAL,
    ProviderKind.DEEPSEEK,
)
EACH_KIND = pytest.mark.parametrize("harness", KINDS, ids=[kind.value for kind in KINDS], indirect=True)
"""The kinds with their own wire format or dialect: the same fault arrives as a different error."""

GAVE_UP: list[tuple[str, str, ProviderKind]] = [
    # the finish reason in place of "stop"
    ("OpenRouter, LiteLLM", "error", ProviderKind.OPENAI_COMPATIBLE),
    ("vLLM", "abort", ProviderKind.OPENAI_COMPATIBLE),
    ("DeepSeek", "insufficient_system_resource", ProviderKind.OPENAI_COMPATIBLE),
    ("OpenRouter's own kind", "error", ProviderKind.OPENROUTER),
]


@pytest.fixture
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[FallbackHarness]:
    """Open two OpenAI-compatible providers, or a first one of the kind that the test names."""
    kind = getattr(request, "param", ProviderKind.OPENAI_COMPATIBLE)
    async with LLMServer() as first, LLMServer() as second:
        second.default = llm.answer("from the second")
        patient = {"timeout_s": 5.0, "first_token_timeout_s": 5.0, "stall_timeout_s": 5.0}
        providers = [provider_at(first, kind, id="first", **patient), provider("second", second.url)]
        redis = open_redis(None)
        async with bench(redis, providers) as replica:
            yield FallbackHarness((first, second), replica, [])
        await redis.aclose()


MOVES_ON: list[tuple[str, Callable[[], Behaviour], int, float]] = [
    # behaviour of the first provider, number of requests, cooldown in seconds
    ("500", lambda: llm.status(500), 2, 300),
    ("502", lambda: llm.status(502), 2, 300),
    ("502 by a proxy", lambda: llm.html_page(502), 2, 300),
    ("503", lambda: llm.status(503), 2, 300),
    ("504", lambda: llm.status(504), 2, 300),
    ("408", lambda: llm.status(408), 2, 300),
    ("reset before any byte", llm.reset, 2, 300),
    ("closed before any byte", llm.closed_without_answer, 2, 300),
    ("another 5xx", lambda: llm.status(520), 1, 300),
    ("408 with Retry-After", lambda: llm.status(408, headers={"retry-after": "9"}), 1, 300),
    ("503 with Retry-After", lambda: llm.status(503, headers={"retry-after": "9"}), 1, 300),
    ("529", lambda: llm.status(529), 1, 300),
    ("499: given up on the other side", lambda: llm.status(499), 1, 300),
    ("429", lambda: llm.status(429), 1, 300),
    ("429 with Retry-After", lambda: llm.status(429, headers={"retry-after": "42"}), 1, 42),
    ("429 with Retry-After 0", lambda: llm.status(429, headers={"retry-after": "0"}), 1, 1),
    ("429 with a day of Retry-After", lambda: llm.status(429, headers={"retry-after": "86400"}), 1, 3600),
    ("429 with a fraction", lambda: llm.status(429, headers={"retry-after": "7.5"}), 1, 7.5),
    ("429 with a unit", lambda: llm.status(429, headers={"retry-after": "7s"}), 1, 7),
    ("429 with nonsense", lambda: llm.status(429, headers={"retry-after": "soon"}), 1, 300),
    ("503 with a fraction", lambda: llm.status(503, headers={"retry-after": "1.5"}), 1, 300),
    (
        "a captive portal",
        lambda: llm.status(511, b"<html><title>Network Authentication Required</title></html>"),
        1,
        300,
    ),
    ("401", lambda: llm.status(401), 1, 1800),
    ("402", lambda: llm.status(402), 1, 1800),
    ("403", lambda: llm.status(403), 1, 1800),
    ("404", lambda: llm.status(404), 1, 1800),
    ("no such model", llm.model_unknown, 1, 1800),
    ("the quota is used up", llm.quota_exceeded, 1, 1800),
    ("an empty body", llm.empty_body, 1, 300),
    ("an empty stream", llm.empty_stream, 1, 300),
    ("an answer without content", llm.empty_answer, 1, 300),
    ("an HTML page with 200", llm.html_page, 1, 300),
    ("an error object with 200", llm.error_object_in_200, 1, 300),
    ("an error before the first piece", llm.error_in_stream, 1, 300),
    ("no choices", llm.no_choices, 1, 300),
    ("only thinking", llm.thinking_only, 1, 300),
    ("only white space", llm.whitespace_only, 1, 300),
    ("an unreadable first piece", lambda: llm.garbage_in_stream(after_pieces=0), 1, 300),
    ("a context window too small", llm.context_exceeded, 1, 0),
]


@EACH_KIND
@STREAMED
@pytest.mark.parametrize(
    ("does", "asked", "cooldown_s"), [row[1:] for row in MOVES_ON], ids=[row[0] for row in MOVES_ON]
)
async def test_failure_moves_on_to_the_second_provider(
    harness: FallbackHarness, does: Callable[[], Behaviour], asked: int, cooldown_s: float, *, streamed: bool
) -> None:
    """The failure is not visible, and requests and cooldown of the first provider are as in the table."""
    harness.first.default = does()

    response = await harness.replica.ask(streamed=streamed)

    assert said(response) == "from the second"
    assert answered_by(response) == "second"
    assert len(harness.first.requests) == asked
    cooling = harness.replica.cooling()
    assert cooling == ({"first": pytest.approx(cooldown_s, abs=1)} if cooldown_s else {})


@asynccontextmanager
async def impatient(harness: FallbackHarness, **changes: float) -> AsyncIterator[LLMHarness]:
    """Open a replica of the same providers, with short deadlines of the first one."""
    first, second = harness.replica.fallback.providers
    async with bench(open_redis(None), [replace(first, **changes), second]) as replica:
        yield replica


@EACH_KIND
@STREAMED
async def test_silent_provider_times_out(harness: FallbackHarness, *, streamed: bool) -> None:
    """A provider that accepts and says nothing is left at its deadline and not asked again.

    A plain request shows no first output: its deadline is that of the whole answer.
    """
    harness.first.default = llm.hang()
    async with impatient(harness, **{"first_token_timeout_s" if streamed else "timeout_s": 0.3}) as replica:
        response = await replica.ask(streamed=streamed)

        assert said(response) == "from the second"
        assert replica.cooling() == {"first": pytest.approx(300)}
    assert len(harness.first.requests) == 1
    await asyncio.wait_for(harness.first.requests[0].abandoned.wait(), 5)


@EACH_KIND
async def test_headers_are_no_output(harness: FallbackHarness) -> None:
    """A stream that opens and then hangs counts as silent."""
    harness.first.default = llm.hang_after_headers()
    async with impatient(harness, first_token_timeout_s=0.3) as replica:
        response = await replica.ask(streamed=True)

        assert said(response) == "from the second"
        assert replica.cooling() == {"first": pytest.approx(300)}


@STREAMED
@pytest.mark.parametrize("kind", ["refused", "dns", "tls"])
async def test_unreachable_provider_is_not_retried(harness: FallbackHarness, kind: str, *, streamed: bool) -> None:
    """Connection refused, an unknown host and a failed TLS handshake."""
    url = {
        "refused": await stopped_server(),
        "dns": NO_SUCH_HOST_URL,
        "tls": harness.first.url.replace("http:", "https:"),
    }[kind]
    providers = [provider("first", url), provider("second", harness.second.url)]
    async with bench(open_redis(None), providers) as replica:
        response = await replica.ask(streamed=streamed)

        assert said(response) == "from the second"
        assert replica.clock.pauses == []
        assert replica.cooling() == {"first": pytest.approx(300)}


@EACH_KIND
@STREAMED
async def test_single_hiccup_is_retried(harness: FallbackHarness, *, streamed: bool) -> None:
    """After one 500 the same provider is asked again after 200 to 300 ms and answers."""
    harness.first.default = llm.answer("from the first")
    harness.first.script(llm.status(500))

    response = await harness.replica.ask(streamed=streamed)

    assert answered_by(response) == "first"
    assert harness.second.connections == 0
    assert harness.replica.cooling() == {}
    [pause] = harness.replica.clock.pauses
    assert 0.2 <= pause <= 0.3


@STREAMED
async def test_retries_setting_disables_the_retry(harness: FallbackHarness, *, streamed: bool) -> None:
    """`<ID>_RETRIES=0` moves on at once."""
    harness.first.default = llm.status(500)
    providers = [provider("first", harness.first.url, retries=0), provider("second", harness.second.url)]
    async with bench(open_redis(None), providers) as replica:
        await replica.ask(streamed=streamed)

    assert len(harness.first.requests) == 1


UNCLEAR: list[tuple[str, Callable[[], Behaviour]]] = [
    ("400", lambda: llm.status(400)),
    ("422", lambda: llm.status(422)),
    ("413", lambda: llm.status(413)),
    ("400 of a proxy", lambda: llm.html_page(400)),
    ("403 of a firewall", lambda: llm.html_page(403)),
]
EACH_UNCLEAR = pytest.mark.parametrize("does", [row[1] for row in UNCLEAR], ids=[row[0] for row in UNCLEAR])


@EACH_KIND
@STREAMED
@EACH_UNCLEAR
async def test_unclear_refusal_is_the_providers_fault_if_another_answers(
    harness: FallbackHarness, does: Callable[[], Behaviour], *, streamed: bool
) -> None:
    """The second provider answers the same request: the first cools down."""
    harness.first.default = does()

    response = await harness.replica.ask(streamed=streamed)

    assert answered_by(response) == "second"
    assert len(harness.first.requests) == 1
    assert harness.replica.cooling() == {"first": pytest.approx(300)}
    assert harness.replica.preferred == "second"


@EACH_KIND
@STREAMED
async def test_unclear_refusal_of_two_is_the_requests_fault(harness: FallbackHarness, *, streamed: bool) -> None:
    """It surfaces, and nothing cools down."""
    harness.first.default = harness.second.default = llm.status(400)

    with pytest.raises(RequestRejected):
        await harness.replica.ask(streamed=streamed)

    assert [len(harness.first.requests), len(harness.second.requests)] == [1, 1]
    assert harness.replica.cooling() == {}


@STREAMED
async def test_azure_content_filter_surfaces(harness: FallbackHarness, *, streamed: bool) -> None:
    """Its 400 is not a fault of the request."""
    harness.first.default = llm.content_filter_rejected()

    with pytest.raises(ContentRefused):
        await harness.replica.ask(streamed=streamed)

    assert harness.second.connections == 0
    assert harness.replica.cooling() == {}


BREAKS_OFF: list[tuple[str, Callable[[], Behaviour]]] = [
    ("an error", lambda: llm.error_in_stream(after_pieces=1)),
    ("an error that blames the request", lambda: llm.error_in_stream(1, code=400, type="invalid_request_error")),
    ("a cut", lambda: llm.cut(after_pieces=1)),
    ("a stall", lambda: llm.stall(after_pieces=1)),
    ("an unreadable piece", lambda: llm.garbage_in_stream(after_pieces=1)),
    ("an end without a finish reason", llm.no_finish_reason),
]


@EACH_KIND
@pytest.mark.parametrize("does", [row[1] for row in BREAKS_OFF], ids=[row[0] for row in BREAKS_OFF])
async def test_failure_after_the_first_output_interrupts(
    harness: FallbackHarness, does: Callable[[], Behaviour]
) -> None:
    """The text so far is kept, the provider cools down, and no other one is asked."""
    harness.first.default = does()
    heard: list[str] = []

    async with impatient(harness, stall_timeout_s=0.3) as replica:
        with pytest.raises(AnswerInterrupted) as failure:
            await _listen(replica, heard)
        assert replica.cooling() == {"first": pytest.approx(300)}

    assert "".join(heard).strip()
    assert failure.value.provider == "first"
    assert harness.second.connections == 0


async def _listen(replica: LLMHarness, heard: list[str]) -> None:
    async for piece in replica.pieces():
        heard.append(piece)


@pytest.mark.parametrize(("finish", "kind"), [row[1:] for row in GAVE_UP], ids=[row[0] for row in GAVE_UP])
async def test_unfinished_answer_is_a_failure(harness: FallbackHarness, finish: str, kind: ProviderKind) -> None:
    """A plain request moves on; a stream is kept and marked as interrupted."""
    harness.first.default = llm.answer("Half an answer", finish=finish)
    providers = [replace(provider_at(harness.first, kind), id="first"), provider("second", harness.second.url)]
    for streamed in (False, True):
        async with bench(open_redis(None), providers) as replica:
            if streamed:
                with pytest.raises(AnswerInterrupted, match="gave its answer up"):
                    await replica.ask(streamed=True)
            else:
                assert said(await replica.ask(streamed=False)) == "from the second"
            assert replica.cooling() == {"first": pytest.approx(300)}


async def test_unfinished_answer_without_an_end_marker_is_a_failure(harness: FallbackHarness) -> None:
    """Silence or a disconnect after such a finish reason does not make the answer complete."""
    harness.first.default = replace(llm.cut_after_the_finish(), finish="error")

    assert said(await harness.replica.ask(streamed=False)) == "from the second"
    assert harness.replica.cooling() == {"first": pytest.approx(300)}


@STREAMED
async def test_unknown_finish_reason_is_an_end(harness: FallbackHarness, *, streamed: bool) -> None:
    """Some servers send neither "stop" nor "length"."""
    harness.first.default = llm.answer("A whole answer", finish="eos_token")

    assert said(await harness.replica.ask(streamed=streamed)) == "A whole answer"
    assert harness.replica.cooling() == {}


# (in place of the end marker, the server's behaviour)
NO_END_MARKER: list[tuple[str, Callable[[], Behaviour]]] = [
    ("the end of the body", llm.no_done_marker),
    ("a cut", llm.cut_after_the_finish),
    ("silence", llm.hang_after_the_finish),
]


@EACH_KIND
@pytest.mark.parametrize("does", [row[1] for row in NO_END_MARKER], ids=[row[0] for row in NO_END_MARKER])
async def test_missing_end_marker_is_tolerated(harness: FallbackHarness, does: Callable[[], Behaviour]) -> None:
    """An answer with a finish reason is complete."""
    harness.first.default = does()

    async with impatient(harness, stall_timeout_s=0.3) as replica:
        assert said(await replica.ask(streamed=True)) == "A whole answer"
        assert replica.cooling() == {}


@EACH_KIND
async def test_silence_after_the_finish_reason_ends_the_stream(harness: FallbackHarness) -> None:
    """Sooner than silence between two pieces, since the answer is complete."""
    harness.first.default = llm.hang_after_the_finish()

    async with impatient(harness, stall_timeout_s=30) as replica, asyncio.timeout(15):
        assert said(await replica.ask(streamed=True)) == "A whole answer"


async def test_stream_that_keeps_coming_outlasts_the_timeout(harness: FallbackHarness) -> None:
    """`<ID>_TIMEOUT` bounds plain answers; a stream is bounded by its stalls, and by a longest time in all."""
    harness.first.default = llm.answer(pieces=["word "] * 20, pause_s=0.05)
    providers = [provider("first", harness.first.url, timeout_s=0.6), provider("second", harness.second.url)]
    async with bench(open_redis(None), providers) as replica:
        assert said(await replica.ask(streamed=True)) == "word " * 20
    async with bench(open_redis(None), providers, timing=RoutingTiming(longest_stream_s=0.6)) as replica:
        with pytest.raises(AnswerInterrupted, match=r"not finished within 0\.6 s"):
            await replica.ask(streamed=True)


@STREAMED
async def test_standstill_of_the_event_loop_is_blamed_on_no_provider(
    harness: FallbackHarness, *, streamed: bool
) -> None:
    """The loop is blocked beyond the deadline while the answer is on its way."""
    harness.first.default = llm.answer("from the first", delay_s=0.3)
    providers = [
        provider("first", harness.first.url, first_token_timeout_s=0.6),
        provider("second", harness.second.url),
    ]
    async with bench(open_redis(None), providers) as replica:
        asking = asyncio.create_task(replica.ask(streamed=streamed))
        await harness.first.arrival(1)
        time.sleep(1.0)  # noqa: ASYNC251 - the standstill
        assert said(await asking) == "from the first"
        assert replica.cooling() == {}


@pytest.mark.parametrize(
    "chunk",
    [{"choices": [{"index": 0, "finish_reason": "stop"}]}, {"usage": None, "object": "chat.completion.chunk"}],
    ids=["without a delta", "without choices"],
)
async def test_chunk_may_lack_fields(harness: FallbackHarness, chunk: dict[str, Any]) -> None:
    async def send(exchange: llm.Exchange) -> None:
        await exchange.start_stream()
        await exchange.chunk(exchange.wire.text("Hello"))
        await exchange.chunk(
            b"data: " + json.dumps({"id": "1", "model": "m", "created": 1, **chunk}).encode() + b"\n\n"
        )
        await exchange.chunk(exchange.wire.finish("stop", usage=False))
        await exchange.chunk(exchange.wire.done())
        await exchange.end()

    harness.first.default = llm.Act(send)
    assert said(await harness.replica.ask(streamed=True)) == "Hello"


async def test_break_in_a_tool_call_moves_on(harness: FallbackHarness) -> None:
    """Nothing was shown and no tool was run, so the second provider answers, and the first cools down."""
    harness.first.default = replace(llm.tool_call("current_time", '{"time_'), breaks_off=llm.cut(0).breaks_off)
    assert said(await harness.replica.ask(streamed=True)) == "from the second"
    assert harness.replica.cooling() == {"first": 300}


async def test_break_after_text_and_within_a_tool_call_never_switches(harness: FallbackHarness) -> None:
    broken = replace(llm.tool_call("current_time", '{"time_', text="Let me see."), breaks_off=llm.cut(0).breaks_off)
    harness.first.default = broken
    with pytest.raises(AnswerInterrupted):
        await harness.replica.ask(streamed=True)
    assert not harness.second.requests


async def test_silent_provider_holds_a_plain_request_for_the_first_output_only(harness: FallbackHarness) -> None:
    """Plain requests are collected streams, under the deadlines of streams."""
    harness.first.default = llm.hang()
    providers = [
        provider("first", harness.first.url, first_token_timeout_s=0.2, timeout_s=30.0),
        provider("second", harness.second.url),
    ]
    async with bench(open_redis(None), providers) as replica, asyncio.timeout(10):
        assert said(await replica.ask(streamed=False)) == "from the second"
    assert harness.first.requests[0].json["stream"] is True


@STREAMED
async def test_bug_of_ours_surfaces_without_a_cooldown(harness: FallbackHarness, *, streamed: bool) -> None:
    """An error that no provider caused is raised unchanged."""
    with pytest.raises(AttributeError):
        await harness.replica.ask(streamed=streamed, messages=["no message"])

    assert harness.first.connections == 0
    assert harness.replica.cooling() == {}


@STREAMED
async def test_bug_in_an_adapter_before_the_request_causes_no_cooldown(
    harness: FallbackHarness, monkeypatch: pytest.MonkeyPatch, *, streamed: bool
) -> None:
    """The same error raised while parsing a response would be the provider's fault."""

    def fail(*_: object, **__: object) -> None:
        raise IndexError

    monkeypatch.setattr(OpenAIChatModel, "_map_messages", fail)
    with pytest.raises(IndexError):
        await harness.replica.ask(streamed=streamed)

    assert harness.replica.cooling() == {}


@STREAMED
async def test_request_that_outlives_the_connections_blames_no_provider(
    harness: FallbackHarness, *, streamed: bool
) -> None:
    """At the end of the process. A cooldown would hold at the other replicas, whose provider is well."""
    await harness.replica.factory._builder.aclose()
    with pytest.raises(ConnectionsClosed):
        await harness.replica.ask(streamed=streamed)

    assert harness.first.connections == 0
    assert harness.replica.cooling() == {}


@EACH_KIND
@STREAMED
async def test_all_failed_names_each_reason(harness: FallbackHarness, *, streamed: bool) -> None:
    """The first cause is not hidden behind the last one."""
    harness.first.default = llm.status(401)
    harness.second.default = llm.empty_answer()

    with pytest.raises(AllProvidersFailed) as failure:
        await harness.replica.ask(streamed=streamed)

    assert isinstance(failure.value, RuntimeError)
    first, second = failure.value.attempts
    assert (first.provider, second.provider) == ("first", "second")
    assert first.reason.startswith("HTTP 401 (")
    assert second.reason == "empty answer"


@EACH_KIND
@STREAMED
async def test_context_window_exceeded_everywhere(harness: FallbackHarness, *, streamed: bool) -> None:
    """No candidate's window is large enough: no cooldown."""
    harness.first.default = harness.second.default = llm.context_exceeded()

    with pytest.raises(ContextWindowExceeded):
        await harness.replica.ask(streamed=streamed)

    assert harness.replica.cooling() == {}
