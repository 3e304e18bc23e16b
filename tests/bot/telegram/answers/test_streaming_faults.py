"""Streamed answers while Telegram fails, and when they are cancelled."""

import asyncio

import pytest
from structlog.testing import capture_logs

from services.chat.reply import ReplyPhase
from tests.support.delivery_messages import PERSON
from tests.support.fake_telegram.server import TelegramServer
from tests.support.stream_harness import StreamHarness, gaps

pytestmark = pytest.mark.integration


async def test_streaming_pauses_after_a_429_and_loses_nothing(streaming: StreamHarness, server: TelegramServer) -> None:
    """A held chat gets no call; afterwards edits continue at a longer interval, in the same message."""
    streaming.begin()
    streaming.reply.write("begin ")
    await streaming.pass_time(1)
    server.reject_as_flood("editMessageText", 20)
    await streaming.write_slowly("word ", 19)
    assert streaming.calls("editMessageText") == 1
    typed = streaming.calls("sendChatAction")
    assert typed == 1

    await streaming.write_slowly("word ", 20)
    edits = streaming.times("editMessageText")
    assert edits[1] >= 22
    assert set(gaps(edits[1:])) == {2.0}
    await streaming.end()
    assert streaming.texts == ["begin " + "word " * 38 + "word"]
    assert streaming.calls("sendMessage") == 1


async def test_streaming_delays_only_the_final_edit_after_a_429(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """The last edit waits for the end of the hold."""
    streaming.begin()
    streaming.reply.write("begin")
    await streaming.pass_time(2)
    server.flood(PERSON, 30)
    streaming.reply.write(" and end")
    await streaming.end()

    assert streaming.texts == ["begin and end"]
    assert streaming.calls("sendMessage") == 1
    [refused, done] = streaming.times("editMessageText")
    assert done - refused >= 30


async def test_streaming_retries_a_first_message_after_a_429(streaming: StreamHarness, server: TelegramServer) -> None:
    """Rejected, so not sent: the answer appears after the hold."""
    server.reject_as_flood("sendMessage", 5)
    streaming.begin()
    streaming.reply.write("Hello")
    await streaming.pass_time(5)
    assert streaming.texts == []
    await streaming.pass_time(4)
    assert streaming.texts == ["Hello"]
    await streaming.end()
    assert streaming.texts == ["Hello"]


async def test_streaming_shows_skipped_text_without_further_text(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """The model pauses during a flood: its earlier text is displayed all the same."""
    streaming.begin()
    streaming.reply.write("begin")
    await streaming.pass_time(1)
    server.reject_as_flood("editMessageText", 5)
    streaming.reply.write(" and more")
    await streaming.pass_time(12)

    assert streaming.texts == ["begin and more"]


async def test_streaming_does_not_retry_a_failed_edit(streaming: StreamHarness, server: TelegramServer) -> None:
    """A 5xx costs one progress edit; the final edit is delivered through more of them."""
    streaming.begin()
    streaming.reply.write("begin")
    await streaming.pass_time(1)
    server.fail("editMessageText", status=502)
    streaming.reply.write(" more")
    await streaming.pass_time(1)
    assert streaming.calls("editMessageText") == 1
    server.fail("editMessageText", 3, status=502)
    streaming.reply.write(" end")
    await streaming.end()

    assert streaming.texts == ["begin more end"]


async def test_streaming_stops_after_a_first_message_with_unknown_result(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """It may have arrived, so the next message is the final one."""
    server.drop("sendMessage")
    streaming.begin()
    await streaming.write_slowly("word ", 10)
    assert streaming.calls("sendMessage") == 1
    await streaming.end()

    assert streaming.texts == ["word", "word " * 9 + "word"]


async def test_streaming_sends_a_deleted_message_again_only_at_the_end(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """No further edits of it, and the answer is not lost."""
    streaming.begin()
    streaming.reply.write("begin ")
    await streaming.pass_time(1)
    server.chat(PERSON).answers()[0].deleted = True
    await streaming.write_slowly("word ", 5)
    assert streaming.calls("editMessageText") == 1
    assert streaming.texts == []
    await streaming.end()

    assert streaming.texts == ["begin " + "word " * 4 + "word"]
    assert server.chat(PERSON).answers()[0].labels == ["Retry"]


async def test_streaming_ends_when_the_user_blocks_the_bot(streaming: StreamHarness, server: TelegramServer) -> None:
    """One log event, and no call after it."""
    streaming.begin()
    streaming.reply.write("begin ")
    await streaming.pass_time(1)
    server.block(PERSON)
    streaming.reply.write("word ")
    await streaming.pass_time(1)
    calls = len(server.calls)
    with capture_logs() as logs:
        await streaming.write_slowly("word ", 10)
        await streaming.end()

    assert len(server.calls) == calls
    assert logs == []


async def test_streaming_tries_one_page_if_the_bot_is_blocked(streaming: StreamHarness, server: TelegramServer) -> None:
    """The first page fails; the others are not tried."""
    server.block(PERSON)
    streaming.begin("off")
    streaming.reply.write("word " * 3000)
    await streaming.end()

    assert streaming.calls("sendMessage") == 1


async def test_streaming_sends_the_end_as_a_message_if_edits_are_unsupported(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """Some emulators support sending only."""
    server.unknown_methods |= {"editMessageText", "sendChatAction"}
    streaming.begin()
    streaming.reply.write("begin ")
    await streaming.pass_time(1)
    await streaming.write_slowly("word ", 5)
    await streaming.end()

    assert streaming.texts == ["begin", "begin " + "word " * 4 + "word"]
    assert streaming.calls("editMessageText") == 2


async def test_streaming_sends_rejected_formatting_as_plain_text(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """The same words, during the answer and at its end."""
    server.fail("sendMessage", status=400, description="Bad Request: can't parse entities: unsupported")
    streaming.begin()
    streaming.reply.write("a **bold** word")
    await streaming.pass_time(1)
    assert streaming.texts == ["a bold word"]
    server.fail("editMessageText", status=400, description="Bad Request: ENTITY_BOUNDS_INVALID")
    await streaming.end()

    [message] = server.chat(PERSON).answers()
    assert (message.text, message.entities, message.labels) == ("a bold word", [], ["Retry"])


async def test_finish_delivers_the_end_after_a_cancellation(streaming: StreamHarness, server: TelegramServer) -> None:
    """Shutdown: `show` ends at once, and `finish` delivers the end of the turn, however often it is called."""
    streaming.begin()
    streaming.reply.write("begin")
    await streaming.pass_time(1)
    assert streaming.task is not None
    assert streaming.answer is not None
    streaming.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await streaming.task
    await streaming.pass_time(10)
    assert streaming.calls("sendChatAction") == 1

    streaming.reply.end(ReplyPhase.INTERRUPTED, notice="Interrupted.")
    await streaming.answer.finish()
    await streaming.answer.finish()

    assert streaming.texts == ["begin\n\nInterrupted."]
    assert streaming.calls("editMessageText") == 1


async def test_show_is_cancelled_while_the_chat_is_held(streaming: StreamHarness, server: TelegramServer) -> None:
    """The wait for the end of a hold does not outlast a shutdown."""
    server.flood(PERSON, 600)
    streaming.begin()
    streaming.reply.write("Hello")
    streaming.reply.end(ReplyPhase.COMPLETE)
    await streaming.pass_time(2)
    assert streaming.task is not None
    streaming.task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await streaming.task
