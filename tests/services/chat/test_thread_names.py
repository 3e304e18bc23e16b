"""ThreadNamer: generated names, fallbacks, background work."""

import asyncio
from dataclasses import replace

import pytest

from core.db.database import Database
from core.messages import ConversationKey, Surface
from services.chat.reply import Reply, ReplyPhase
from services.chat.store.conversation import Thread
from services.chat.store.thread_list import ThreadList
from services.chat.thread_names import MAX_LENGTH, QUEUE_LIMIT, WORKERS, Beginning, ThreadNamer
from tests.support.chat_harness import PRIVATE, ChatHarness, chat_harness, message
from tests.support.fake_llm.server import LLMServer, answer, gate, hang, status
from tests.support.llm_harness import eventually, provider

OTHER = ConversationKey(Surface.TELEGRAM, 8)
QUESTION = "How do I bake bread without any yeast, and how long does that take?"


async def wait_for_name(harness: ChatHarness, key: ConversationKey = PRIVATE) -> str:
    """Wait for the name of the current thread."""
    async with asyncio.timeout(5):
        while (name := (await harness.stores.turns.current(key)).name) is None:
            await asyncio.sleep(0.005)
    return name


async def test_thread_is_named_once_after_its_first_answer(file: Database, first: LLMServer) -> None:
    """The model gets the message and the answer."""
    first.naming = answer("Bread without yeast")
    async with chat_harness(file, provider("a", first.url), names_threads=True) as harness:
        await harness.say(QUESTION)
        assert await wait_for_name(harness) == "Bread without yeast"
        await harness.say("Thanks.")
        await harness.say("Really.")
    assert len(first.names) == 1
    sent = first.names[0].json["messages"][-1]["content"]
    assert QUESTION in sent
    assert "Hello" in sent


async def test_naming_delays_neither_answer_nor_shutdown(file: Database, first: LLMServer) -> None:
    first.naming = hang()
    async with chat_harness(file, provider("a", first.url), names_threads=True) as harness:
        async with asyncio.timeout(3):
            assert (await harness.say(QUESTION)).phase is ReplyPhase.COMPLETE
            await eventually(lambda: bool(first.names))
            await harness.say("And then?")
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 2


async def test_naming_waits_until_the_chat_is_quiet(file: Database, first: LLMServer) -> None:
    """Not while a turn runs there, nor right after it."""
    first.naming = answer("A name")
    event = asyncio.Event()
    async with chat_harness(file, provider("a", first.url), names_threads=True, naming_quiet_s=0.3) as harness:
        await harness.say(QUESTION)
        first.script(gate(event))
        asking = asyncio.create_task(harness.say("And then?"))
        await first.arrival(2)
        await asyncio.sleep(0.5)
        assert not first.names
        event.set()
        await asking
        assert not first.names
        assert await wait_for_name(harness) == "A name"


async def test_question_cancels_a_name_of_its_chat(file: Database, first: LLMServer) -> None:
    """The name is asked for again when the chat is quiet."""
    first.naming = hang()
    async with chat_harness(file, provider("a", first.url), names_threads=True) as harness:
        await harness.say(QUESTION)
        await eventually(lambda: bool(first.names))
        first.naming = answer("A name")
        await harness.say("And then?")
        await asyncio.wait_for(first.names[0].abandoned.wait(), 5)
        assert await wait_for_name(harness) == "A name"


@pytest.mark.parametrize("limit", [1, None], ids=["one slot", "a server of one's own without a limit"])
async def test_question_elsewhere_cancels_a_name_at_the_same_server(
    file: Database, first: LLMServer, limit: int | None
) -> None:
    """The question of another chat does not wait for the title, which is asked for later."""
    first.naming = hang()
    own = provider("a", first.url, remote=False, max_concurrency=limit)
    async with chat_harness(file, own, names_threads=True) as harness:
        await harness.say(QUESTION)
        await eventually(lambda: bool(first.names))
        first.naming = answer("A name")
        async with asyncio.timeout(3):
            elsewhere = await harness.say(message("Hello?", key=OTHER))
        assert elsewhere.phase is ReplyPhase.COMPLETE
        await asyncio.wait_for(first.names[0].abandoned.wait(), 5)
        assert await wait_for_name(harness) == "A name"


async def test_naming_waits_for_a_free_slot(file: Database, first: LLMServer) -> None:
    """While a question of another chat has the only slot, no name is asked for."""
    first.naming = answer("A name")
    own = provider("a", first.url, remote=False, max_concurrency=1)
    event = asyncio.Event()
    async with chat_harness(file, own, names_threads=True, naming_quiet_s=0.15) as harness:
        first.script(answer("Hello"), gate(event))
        await harness.say(QUESTION)
        busy = asyncio.create_task(harness.say(message("Hello?", key=OTHER)))
        await first.arrival(2)
        await asyncio.sleep(0.3)
        assert not first.names
        event.set()
        await busy
        assert await wait_for_name(harness) == "A name"


@pytest.mark.parametrize("naming", [status(503), status(400), answer('""')])
async def test_name_falls_back_to_the_first_words(file: Database, first: LLMServer, naming: object) -> None:
    """Of the user's message, when no provider generates a name."""
    first.naming = naming
    async with chat_harness(file, provider("a", first.url, retries=0), names_threads=True) as harness:
        await harness.say(QUESTION)
        name = await wait_for_name(harness)
    assert name == "How do I bake bread without any yeast…"
    assert len(name) <= MAX_LENGTH


async def test_naming_asks_no_remote_provider_without_consent(
    file: Database, first: LLMServer, second: LLMServer
) -> None:
    """The local provider fails: the name falls back to the first words."""
    second.naming = answer("Leaked")
    own, remote = provider("a", first.url, remote=False), provider("b", second.url, remote=True)
    first.naming = status(503)
    async with chat_harness(file, own, remote, names_threads=True, asks_consent=True) as harness:
        await harness.say(QUESTION)
        assert (await wait_for_name(harness)).startswith("How do I bake")
    assert second.connections == 0


async def test_naming_asks_no_model_after_a_demo_answer(file: Database, first: LLMServer) -> None:
    """The name falls back to the first words."""
    first.naming = answer("A name")
    async with chat_harness(file, provider("a", first.url), names_threads=True, demo_ids=frozenset({"a"})) as harness:
        await harness.say(QUESTION)
        assert (await wait_for_name(harness)).startswith("How do I bake")
    assert first.names == []


async def test_failed_turn_is_not_named(file: Database, first: LLMServer) -> None:
    """The next answer names the thread."""
    first.naming = answer("A name")
    answering, first.default = first.default, status(400)
    async with chat_harness(file, provider("a", first.url), names_threads=True) as harness:
        assert (await harness.say(QUESTION)).phase is ReplyPhase.FAILED
        first.default = answering
        assert (await harness.stores.turns.current(PRIVATE)).name is None
        await harness.say(QUESTION)
        assert await wait_for_name(harness) == "A name"


async def test_retry_names_by_the_original_prompt(file: Database, first: LLMServer) -> None:
    """The message of a Retry is empty."""
    first.naming = answer("A name")
    first.script(status(400))
    async with chat_harness(file, provider("a", first.url), names_threads=True) as harness:
        failed: Reply = await harness.say(QUESTION)
        await harness.retry(failed)
        await wait_for_name(harness)
    assert QUESTION in first.names[0].json["messages"][-1]["content"]


async def test_naming_keeps_a_name_given_meanwhile(file: Database, first: LLMServer) -> None:
    """The generated name comes too late."""
    event = asyncio.Event()
    first.naming = gate(event, then=answer("Too late"))
    async with chat_harness(file, provider("a", first.url), names_threads=True) as harness:
        await harness.say(QUESTION)
        await eventually(lambda: bool(first.names))
        thread = await harness.stores.turns.current(PRIVATE)
        await ThreadList(file).name_unnamed(thread.id, "Mine")
        event.set()
        await asyncio.sleep(0.1)
        assert await wait_for_name(harness) == "Mine"


class BrokenStore:
    """A store that fails for one thread."""

    def __init__(self) -> None:
        self.named: list[int] = []

    async def name_unnamed(self, thread_id: int, name: str) -> None:
        if thread_id == 1:
            raise KeyError(name)
        self.named.append(thread_id)


async def test_namer_survives_a_failing_thread_and_bounds_its_queue() -> None:
    """Threads beyond the limit are named after a later answer."""
    store = BrokenStore()
    namer = ThreadNamer(store, None)
    thread = Thread(0, PRIVATE, None, message().sent_at)
    for number in range(1, QUEUE_LIMIT + 50):
        namer.request(Beginning(replace(thread, id=number), "Hello", "Hi", is_demo=True))
    await namer.start()
    await eventually(lambda: len(store.named) == QUEUE_LIMIT - 1)
    await namer.close()
    assert store.named == list(range(2, QUEUE_LIMIT + 1))
    assert WORKERS > 1
