"""The rows of the outcome table for the kinds with a wire or a dialect of their own, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import pytest

from core.errors import AnswerInterrupted, ContentRefused, RequestRejected
from core.provider_settings import ProviderKind, ProviderSettings
from core.redis import open_redis
from tests.services.llm.bench import Bench, answered_by, bench, provider, said
from tests.support import llm_server as llm
from tests.support.llm_providers import provider_at
from tests.support.llm_server import Behaviour, LLMServer
from tests.support.llm_wire import Fault
from tests.support.llm_wire_gemini import retry_info

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
    replica: Bench


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


MOVES_ON: list[tuple[str, Callable[[], Behaviour], int, float]] = [
    # what the first provider does, how often it is asked, how long it cools down
    ("500", lambda: llm.status(500), 2, 300),
    ("502 by a proxy", lambda: llm.html_page(502), 2, 300),
    ("503", lambda: llm.status(503), 2, 300),
    ("reset before any byte", llm.reset, 2, 300),
    ("closed before any byte", llm.closed_without_answer, 2, 300),
    ("503 with Retry-After", lambda: llm.status(503, headers={"retry-after": "9"}), 1, 300),
    ("529", lambda: llm.status(529), 1, 300),
    ("499: given up on the other side", lambda: llm.status(499), 1, 300),
    ("429", lambda: llm.status(429), 1, 300),
    ("429 with Retry-After", lambda: llm.status(429, headers={"retry-after": "42"}), 1, 42),
    ("401", lambda: llm.status(401), 1, 1800),
    ("402", lambda: llm.status(402), 1, 1800),
    ("403", lambda: llm.status(403), 1, 1800),
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
async def test_the_second_provider_answers(
    stage: Stage, does: Callable[[], Behaviour], asked: int, cooldown_s: float, *, streamed: bool
) -> None:
    """The failure is not seen, the first provider is asked as often as the table says and cools down that long."""
    stage.first.default = does()

    response = await stage.replica.ask(streamed=streamed)

    assert said(response) == "from the second"
    assert answered_by(response) == "second"
    assert len(stage.first.requests) == asked
    assert stage.replica.cooling() == ({"first": pytest.approx(cooldown_s, abs=1)} if cooldown_s else {})


@EACH_KIND
@STREAMED
async def test_a_refused_key_is_a_matter_for_an_operator(stage: Stage, *, streamed: bool) -> None:
    """Whatever status the kind has for it."""
    stage.first.api_key = "another"

    response = await stage.replica.ask(streamed=streamed)

    assert answered_by(response) == "second"
    assert stage.replica.cooling() == {"first": pytest.approx(1800)}


@pytest.mark.parametrize("kind", [GOOGLE])
@STREAMED
async def test_googles_own_way_to_say_how_long(stage: Stage, *, streamed: bool) -> None:
    """RetryInfo in the body stands for the header."""
    exhausted = Fault("Resource has been exhausted.", "RESOURCE_EXHAUSTED", 429, (retry_info("17s"),))
    stage.first.default = llm.Act(lambda exchange: exchange.fault(429, exhausted))

    await stage.replica.ask(streamed=streamed)

    assert stage.replica.cooling() == {"first": pytest.approx(17)}


@EACH_KIND
@STREAMED
async def test_a_hiccup_moves_nobody(stage: Stage, *, streamed: bool) -> None:
    """After a single 500 the same provider is tried again, and answers."""
    stage.first.default = llm.answer("from the first")
    stage.first.script(llm.status(500))

    assert answered_by(await stage.replica.ask(streamed=streamed)) == "first"
    assert stage.second.connections == 0
    assert stage.replica.cooling() == {}


@EACH_KIND
@STREAMED
async def test_silence_ends_at_the_deadline(stage: Stage, kind: ProviderKind, *, streamed: bool) -> None:
    """A provider that accepts and says nothing is left, and the connection to it closed."""
    stage.first.default = llm.hang()
    # A plain request shows no first output: its deadline is that of the whole answer.
    first = of_kind(kind, stage.first, timeout_s=5.0 if streamed else 0.3)
    async with bench(open_redis(None), [first, provider("second", stage.second.url)]) as replica:
        response = await replica.ask(streamed=streamed)
        assert replica.cooling() == {"first": pytest.approx(300)}

    assert said(response) == "from the second"
    assert len(stage.first.requests) == 1
    async with asyncio.timeout(2):
        await stage.first.requests[0].abandoned.wait()


REFUSALS: list[tuple[ProviderKind, str, Callable[[], Behaviour]]] = [
    # Mistral's API has no way to refuse, Groq's and DeepSeek's fewer than Google's
    (GOOGLE, "a safety stop", llm.content_filter),
    (GOOGLE, "a blocked prompt", llm.content_filter_rejected),
    (GROQ, "a content filter", llm.content_filter),
    (DEEPSEEK, "a content filter", llm.content_filter),
    (DEEPSEEK, "a risk in the content", llm.content_filter_rejected),
    (ANTHROPIC, "a refusal", llm.refusal),
]


@STREAMED
@pytest.mark.parametrize(
    ("kind", "does"),
    [(kind, does) for kind, _, does in REFUSALS],
    ids=[f"{kind}: {name}" for kind, name, _ in REFUSALS],
)
async def test_a_refusal_surfaces(stage: Stage, does: Callable[[], Behaviour], *, streamed: bool) -> None:
    """Nobody cools down, and nobody else is asked."""
    stage.first.default = does()

    with pytest.raises(ContentRefused):
        await stage.replica.ask(streamed=streamed)

    assert stage.second.connections == 0
    assert stage.replica.cooling() == {}


@EACH_KIND
@STREAMED
@pytest.mark.parametrize("code", [400, 422])
async def test_a_fault_of_the_request_surfaces(stage: Stage, code: int, *, streamed: bool) -> None:
    """Another provider would not mend it."""
    stage.first.default = llm.status(code)

    with pytest.raises(RequestRejected):
        await stage.replica.ask(streamed=streamed)

    assert stage.second.connections == 0
    assert stage.replica.cooling() == {}


async def hear(replica: Bench, heard: list[str]) -> None:
    """Read a streamed answer, keeping what came before a failure."""
    async for piece in replica.pieces():
        heard.append(piece)  # noqa: PERF401 - the error comes in mid-iteration


BREAKS_OFF: list[tuple[str, Callable[[], Behaviour]]] = [
    ("an error", lambda: llm.error_in_stream(after_pieces=1)),
    ("a cut", lambda: llm.cut(after_pieces=1)),
    ("a stall", lambda: llm.stall(after_pieces=1)),
    ("an unreadable piece", lambda: llm.garbage_in_stream(after_pieces=1)),
    ("an end without a finish reason", llm.no_finish_reason),
]


@EACH_KIND
@pytest.mark.parametrize("does", [row[1] for row in BREAKS_OFF], ids=[row[0] for row in BREAKS_OFF])
async def test_after_the_first_output_nobody_takes_over(stage: Stage, does: Callable[[], Behaviour]) -> None:
    """What was said stays, the failure surfaces as an interruption, the provider cools down, nobody else is asked."""
    stage.first.default = does()
    heard: list[str] = []

    with pytest.raises(AnswerInterrupted) as failure:
        await hear(stage.replica, heard)

    assert "".join(heard).strip()
    assert failure.value.provider == "first"
    assert stage.second.connections == 0
    assert stage.replica.cooling() == {"first": pytest.approx(300)}


@pytest.mark.parametrize("kind", [DEEPSEEK])
async def test_an_answer_that_deepseek_gave_up_is_interrupted(stage: Stage) -> None:
    """`insufficient_system_resource` is no reason to be content with."""
    stage.first.default = llm.answer("Half an answer", finish="insufficient_system_resource")

    with pytest.raises(AnswerInterrupted):
        await stage.replica.ask(streamed=True)

    assert stage.replica.cooling() == {"first": pytest.approx(300)}


@EACH_KIND
@STREAMED
async def test_a_good_answer(stage: Stage, *, streamed: bool) -> None:
    """And where nothing is wrong, nothing is found wrong."""
    stage.first.default = llm.answer("from the first", thinking="Let me see.")

    assert said(await stage.replica.ask(streamed=streamed)) == "from the first"
    assert stage.replica.cooling() == {}
