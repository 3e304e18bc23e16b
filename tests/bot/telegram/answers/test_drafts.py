"""Streamed answers as message drafts."""

from collections.abc import Callable

import pytest

from bot.telegram.answers.answer_messages import Place
from tests.support.delivery_messages import GROUP, PERSON
from tests.support.fake_telegram.server import TelegramServer
from tests.support.stream_harness import StreamHarness, gaps

pytestmark = pytest.mark.integration


async def test_draft_grows_and_becomes_a_message(streaming: StreamHarness, server: TelegramServer) -> None:
    """Previews with their own stop button, a second apart; one message at the end, no edit."""
    streaming.begin("draft")
    await streaming.write_slowly("word ", 5)
    await streaming.end()

    drafts = server.chat(PERSON).drafts
    assert [draft.text for draft in drafts] == [" ".join(["word"] * count) for count in range(1, 6)][: len(drafts)]
    assert set(gaps([draft.at for draft in drafts])) == {1.0}
    assert {(draft.draft_id, draft.can_stop) for draft in drafts} == {(streaming.answer.draft_id, True)}
    assert streaming.texts == ["word word word word word"]
    assert (streaming.calls("sendMessage"), streaming.calls("editMessageText")) == (1, 0)


async def test_draft_is_refreshed_while_the_model_is_silent(streaming: StreamHarness, server: TelegramServer) -> None:
    """Telegram discards drafts after 30 seconds."""
    streaming.begin("draft")
    streaming.reply.write("Hello")
    await streaming.write_slowly("\n", 10)
    assert streaming.calls("sendMessageDraft") == 1
    await streaming.pass_time(60)

    times = [draft.at for draft in server.chat(PERSON).drafts]
    assert len(times) >= 3
    assert max(gaps(times)) < 30


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda server: server.unknown_methods.add("sendMessageDraft"), id="unknown method"),
        pytest.param(
            lambda server: server.fail("sendMessageDraft", status=400, description="Bad Request: DRAFTS_DISABLED"),
            id="refused",
        ),
    ],
)
async def test_draft_falls_back_to_edits_where_unsupported(
    streaming: StreamHarness, server: TelegramServer, spoil: Callable[[TelegramServer], None]
) -> None:
    """At once, and for the rest of the answer."""
    spoil(server)
    streaming.begin("draft")
    await streaming.write_slowly("word ", 4)

    assert streaming.times("sendMessage") == [1.0]
    assert streaming.calls("sendMessageDraft") == 1
    await streaming.end()
    assert streaming.texts == ["word word word word"]


async def test_draft_mode_edits_a_message_in_groups(streaming: StreamHarness, server: TelegramServer) -> None:
    """Telegram has drafts in private chats only."""
    streaming.begin("draft", Place(GROUP, is_group=True))
    streaming.reply.write("Hello")
    await streaming.pass_time(1)

    assert streaming.texts == ["Hello"]
    assert server.calls_of("sendMessageDraft") == []


async def test_draft_after_a_429_never_becomes_an_edit(streaming: StreamHarness, server: TelegramServer) -> None:
    """The chat is held, nothing else is sent instead, and the end is delivered."""
    streaming.begin("draft")
    streaming.reply.write("Hello ")
    await streaming.pass_time(1)
    server.reject_as_flood("sendMessageDraft", 8)
    await streaming.write_slowly("word ", 8)
    assert (streaming.calls("sendMessage"), streaming.calls("editMessageText")) == (0, 0)
    await streaming.end()

    assert streaming.texts == ["Hello " + "word " * 7 + "word"]
    assert streaming.calls("editMessageText") == 0
