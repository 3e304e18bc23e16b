"""The names of threads, made aside."""

import asyncio
from dataclasses import replace

import pytest

from core.db.database import Database
from core.messages import ConversationKey
from services.chat.reply import Reply, ReplyPhase
from services.chat.store.conversation import Thread
from services.chat.thread_names import MAX_LENGTH, QUEUE_LIMIT, WORKERS, Beginning, ThreadNamer
from tests.support.chat_harness import PRIVATE, ChatHarness, chat_harness, message
from tests.support.fake_llm.server import LLMServer, answer, gate, hang, status
from tests.support.llm_harness import eventually, provider

QUESTION = "How do I bake bread without any yeast, and how long does that take?"


async def name_of(bench: ChatHarness, key: ConversationKey = PRIVATE) -> str:
    """Wait for the name of the current thread."""
    async with asyncio.timeout(5):
        while (name := (await bench.stores.threads.current(key)).name) is None:  # noqa: ASYNC110 - a database has no event
            await asyncio.sleep(0.005)
    return name


async def test_a_thread_is_named_after_its_first_answer(file: Database, first: LLMServer) -> None:
    """Once, by what was said in it."""
    first.naming = answer("Bread without yeast")
    async with chat_harness(file, provider("a", first.url), names_threads=True) as bench:
        await bench.say(QUESTION)
        assert await name_of(bench) == "Bread without yeast"
        await bench.say("Thanks.")
        await bench.say("Really.")
    assert len(first.names) == 1
    told = first.names[0].json["messages"][-1]["content"]
    assert QUESTION in told
    assert "Hello" in told, "what was answered"


async def test_the_answer_does_not_wait_for_it(file: Database, first: LLMServer) -> None:
    """Nor does a shutdown."""
    first.naming = hang()
    async with chat_harness(file, provider("a", first.url), names_threads=True) as bench:
        async with asyncio.timeout(3):
            assert (await bench.say(QUESTION)).phase is ReplyPhase.COMPLETE
            await eventually(lambda: bool(first.names))
            await bench.say("And then?")
        assert len(first.names) == 1, "it is being named already"
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 2


@pytest.mark.parametrize("naming", [status(503), status(400), answer('""')])
async def test_where_nobody_names_it_the_first_words_do(file: Database, first: LLMServer, naming: object) -> None:
    """Of its user's message."""
    first.naming = naming
    async with chat_harness(file, provider("a", first.url, retries=0), names_threads=True) as bench:
        await bench.say(QUESTION)
        name = await name_of(bench)
    assert name == "How do I bake bread without any yeast…"
    assert len(name) <= MAX_LENGTH


async def test_without_consent_nothing_leaves_for_a_name(file: Database, first: LLMServer, second: LLMServer) -> None:
    """A thread that was answered on the own machines is named there."""
    second.naming = answer("Leaked")
    own, remote = provider("a", first.url, remote=False), provider("b", second.url, remote=True)
    first.naming = status(503)
    async with chat_harness(file, own, remote, names_threads=True, asks_consent=True) as bench:
        await bench.say(QUESTION)
        assert (await name_of(bench)).startswith("How do I bake")
    assert second.connections == 0


async def test_a_demo_thinks_of_no_names(file: Database, first: LLMServer) -> None:
    """And nobody else is bothered for one."""
    first.naming = answer("A name")
    async with chat_harness(file, provider("a", first.url), names_threads=True, demo_ids=frozenset({"a"})) as bench:
        await bench.say(QUESTION)
        assert (await name_of(bench)).startswith("How do I bake")
    assert first.names == []


async def test_no_answer_no_name(file: Database, first: LLMServer) -> None:
    """What failed has nothing to be named after; the next answer has."""
    first.naming = answer("A name")
    first.script(status(400))
    async with chat_harness(file, provider("a", first.url), names_threads=True) as bench:
        assert (await bench.say(QUESTION)).phase is ReplyPhase.FAILED
        assert (await bench.stores.threads.current(PRIVATE)).name is None
        await bench.say(QUESTION)
        assert await name_of(bench) == "A name"


async def test_a_retry_is_named_by_what_was_asked(file: Database, first: LLMServer) -> None:
    """Its own message is empty."""
    first.naming = answer("A name")
    first.script(status(400))
    async with chat_harness(file, provider("a", first.url), names_threads=True) as bench:
        failed: Reply = await bench.say(QUESTION)
        await bench.retry(failed)
        await name_of(bench)
    assert QUESTION in first.names[0].json["messages"][-1]["content"]


async def test_a_name_that_somebody_gave_stays(file: Database, first: LLMServer) -> None:
    """The one that was being made comes too late."""
    event = asyncio.Event()
    first.naming = gate(event, then=answer("Too late"))
    async with chat_harness(file, provider("a", first.url), names_threads=True) as bench:
        await bench.say(QUESTION)
        await eventually(lambda: bool(first.names))
        thread = await bench.stores.threads.current(PRIVATE)
        await bench.stores.threads.name_unnamed(thread.id, "Mine")
        event.set()
        await bench.say(message("Go on"))
        await asyncio.sleep(0.1)
        assert await name_of(bench) == "Mine"


class Broken:
    """Threads whose names make a bug of ours show."""

    def __init__(self) -> None:
        self.named: list[int] = []

    async def name_unnamed(self, thread_id: int, name: str) -> None:
        if thread_id == 1:
            raise KeyError(name)
        self.named.append(thread_id)


async def test_a_bug_costs_one_name_and_a_crowd_is_bounded() -> None:
    """The workers go on, and what does not fit into the line gets its name another time."""
    broken = Broken()
    namer = ThreadNamer(broken, None)  # type: ignore[arg-type] - a demo's threads ask no model
    thread = Thread(0, PRIVATE, None, message().sent_at)
    for number in range(1, QUEUE_LIMIT + 50):
        namer.request(Beginning(replace(thread, id=number), "Hello", "Hi", is_demo=True))
    await namer.start()
    await eventually(lambda: len(broken.named) == QUEUE_LIMIT - 1)
    await namer.close()
    assert broken.named == list(range(2, QUEUE_LIMIT + 1))
    assert WORKERS > 1
