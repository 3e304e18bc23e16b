"""The lifetime of a request's objects: they are freed at its end, without waiting for the garbage collector."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager, suppress

import httpx2
import pytest
from pydantic_ai.direct import model_request_stream

from core.errors import ProviderError
from core.redis.client import open_redis
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import Behaviour, LLMServer
from tests.support.llm_harness import HELLO, LLMHarness, bench, provider

pytestmark = pytest.mark.integration

OURS = ("services.", "core.")


@pytest.fixture
async def first() -> AsyncIterator[LLMServer]:
    async with LLMServer() as server:
        yield server


@pytest.fixture
async def replica(first: LLMServer) -> AsyncIterator[LLMHarness]:
    async with LLMServer() as second, open_redis(None) as redis:
        second.default = llm.answer("The second answers.")
        providers = [
            provider("first", first.url, retries=0, first_token_timeout_s=0.05),
            provider("second", second.url),
        ]
        async with bench(redis, providers) as replica:
            yield replica


@contextmanager
def unreachable_cycles() -> Generator[Counter[str]]:
    """Counts, at its end, our objects that only the garbage collector can free, by class."""
    found: Counter[str] = Counter()
    gc.freeze()  # a collection looks at younger objects only
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        classes = (f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
        found.update(name for name in classes if name.startswith(OURS))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()


async def read(replica: LLMHarness) -> None:
    with suppress(ProviderError):
        await replica.ask(streamed=True)


async def collect(replica: LLMHarness) -> None:
    with suppress(ProviderError):
        await replica.ask(streamed=False)


async def stop_reading(replica: LLMHarness) -> None:
    model = replica.factory.create_llm_model_with_fallback("test")
    async with model_request_stream(model, HELLO) as stream:
        await anext(aiter(stream))


async def cancel(replica: LLMHarness) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.03):
            await replica.ask(streamed=True)


@pytest.mark.parametrize(
    ("behaviour", "ask"),
    [
        (lambda: llm.answer("one two three"), read),
        (lambda: llm.answer("one two three"), collect),
        (lambda: llm.status(503), read),  # the second answers
        (lambda: llm.status(503), collect),
        (lambda: llm.status(400), read),  # unclear, until the second answers
        (llm.hang, read),  # silent: the deadline ends the wait
        (llm.empty_stream, read),
        (lambda: llm.cut(after_pieces=2), read),  # breaks off after its first output
        (lambda: llm.stall(after_pieces=2), stop_reading),
        (llm.hang, cancel),
    ],
)
async def test_request_leaves_no_object_to_the_garbage_collector(
    first: LLMServer,
    replica: LLMHarness,
    behaviour: Callable[[], Behaviour],
    ask: Callable[[LLMHarness], Awaitable[None]],
) -> None:
    first.default = behaviour()
    await replica.ask(streamed=True, choice="second")  # builds the objects of the process
    with unreachable_cycles() as found:
        await ask(replica)
        await asyncio.sleep(0)
    assert not found


async def test_streaming_answer_holds_no_request_body(first: LLMServer, replica: LLMHarness) -> None:
    """The request that the response refers to is without it: of a long conversation it is many kilobytes."""
    first.default, asked = llm.stall(after_pieces=2), f"{first.url}/chat/completions"
    model = replica.factory.create_llm_model_with_fallback("test")
    async with model_request_stream(model, HELLO) as stream:
        await anext(aiter(stream))
        gc.collect()  # requests of earlier tests
        held = [each for each in gc.get_objects() if isinstance(each, httpx2.Request) and str(each.url) == asked]
        assert [request.content for request in held] == [b""]
        assert all("authorization" in request.headers for request in held)
    assert first.requests[-1].json["messages"]
