"""An answer over four messages is its first message and a file with all of it."""

import asyncio

import pytest

from bot.telegram.answers.answer_messages import Place
from bot.telegram.answers.streamed_message import MOST_MESSAGES, MOST_MESSAGES_WITHOUT_FILE
from bot.telegram.markdown.pages import Pages, RenderThread, RenderThreadLimits
from services.preferences import StreamMode
from tests.support.delivery_messages import GROUP
from tests.support.fake_telegram.server import TelegramServer
from tests.support.stream_harness import StreamHarness, text

SENTENCE = "A sentence of an answer that does not end. "
LONG = SENTENCE * 5000


@pytest.mark.parametrize("mode", ["edit", "draft", "off"])
async def test_long_answer_becomes_a_message_and_a_file(
    streaming: StreamHarness, server: TelegramServer, mode: StreamMode
) -> None:
    """However it is streamed, the chat has two messages in the end, and the file has every character."""
    streaming.begin(mode)
    await streaming.write_slowly(LONG[: len(LONG) // 4], 4)
    await streaming.end(footer="small print")

    first, file = server.chat(streaming.chat_id).answers()
    assert first.text.startswith(SENTENCE.strip())
    assert file.document == (LONG[: len(LONG) // 4] * 4).encode()
    assert file.text == f"{text('answer-as-file')}\n\nsmall print"
    assert (first.labels, file.labels) == ([], ["Retry"])
    assert file.id in streaming.recorded


async def test_long_answer_sends_few_messages_while_it_streams(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """A megabyte is four messages and one that it goes on, with the Stop button."""
    streaming.begin()
    await streaming.write_slowly(SENTENCE * 500, 20)

    messages = server.chat(streaming.chat_id).answers()
    assert len(messages) == MOST_MESSAGES + 1
    assert (messages[-1].text, messages[-1].labels) == (text("answer-goes-on"), ["Stop"])
    assert streaming.calls("sendMessage") == MOST_MESSAGES + 1
    await streaming.end()
    assert len(server.chat(streaming.chat_id).answers()) == 2


async def test_answer_of_four_messages_has_no_file(streaming: StreamHarness, server: TelegramServer) -> None:
    streaming.begin()
    streaming.reply.write(SENTENCE * 340)
    await streaming.end()
    assert streaming.calls("sendDocument") == 0
    assert len(server.chat(streaming.chat_id).answers()) == MOST_MESSAGES


async def test_chat_without_files_gets_messages(streaming: StreamHarness, server: TelegramServer) -> None:
    """Twenty messages arrive, and the last says that the rest is missing."""
    server.fail("sendDocument", 99, status=400, description="Bad Request: not enough rights to send documents")
    streaming.begin("edit", Place(GROUP, is_group=True))
    await streaming.write_slowly(LONG, 1)
    await streaming.end(within_s=200)

    messages = server.chat(GROUP).answers()
    # The last line has a message of its own where the last page has no room for it.
    assert len(messages) in {MOST_MESSAGES_WITHOUT_FILE, MOST_MESSAGES_WITHOUT_FILE + 1}
    assert messages[-1].text.endswith(text("answer-too-long"))
    assert messages[-1].labels == ["Retry"]
    shown = "".join(message.text + " " for message in messages)
    assert shown[:70_000] == LONG[:70_000]


async def test_repeated_answer_replaces_the_messages_of_its_first_attempt(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """After a crash the file comes again, and messages of the first attempt are deleted."""
    streaming.begin()
    await streaming.write_slowly(SENTENCE * 500, 3)
    earlier = tuple(message.id for message in server.chat(streaming.chat_id).answers())
    await streaming.close()

    again = StreamHarness(streaming._delivery, streaming.clock, server, streaming._traffic)
    again.reply.earlier_ids = earlier
    again.begin("off")
    again.reply.write(SENTENCE * 1500)
    await again.end()

    first, file = server.chat(streaming.chat_id).answers()
    assert (first.id, file.document) == (earlier[0], (SENTENCE * 1500).encode())


async def test_render_thread_leaves_the_loop_free() -> None:
    """While a long text is rendered, the event loop runs others."""
    pages, ticks = Pages(most=4), 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    async with RenderThread(RenderThreadLimits(units=0, characters=0)) as thread:
        await thread.fill(pages, "**a** `b` " * 1500)
    ticking.cancel()
    expected = Pages(most=4)
    async with RenderThread(RenderThreadLimits(units=10**9, characters=10**9)) as at_once:
        await at_once.fill(expected, "**a** `b` " * 1500)
    assert pages.all == expected.all
    assert ticks > 10


async def test_cancelled_fill_leaves_no_update_running() -> None:
    """The pages may be used again at once."""
    pages = Pages()
    async with RenderThread(RenderThreadLimits(units=0, characters=0)) as thread:
        filling = asyncio.create_task(thread.fill(pages, SENTENCE * 2000))
        await asyncio.sleep(0.005)
        filling.cancel()
        await asyncio.wait([filling])
        taken = pages.taken
        await asyncio.sleep(0.02)
        assert pages.taken == taken
        await thread.fill(pages, SENTENCE * 2000)
    assert pages.taken == len(SENTENCE) * 2000
