"""Manners of a stream: the waiting line, tool work in the same message, and known complaints about other bots."""

from itertools import pairwise

import pytest

from services.chat.reply import ReplyPhase
from tests.support.delivery_messages import GROUP, PERSON
from tests.support.fake_telegram.chats import Message
from tests.support.fake_telegram.server import TelegramServer
from tests.support.stream_harness import WAITING, Place, StreamHarness

pytestmark = pytest.mark.integration

SEARCH = "Searching the web: leap years"


def shown(server: TelegramServer, chat_id: int = PERSON) -> Message:
    """The only message of the bot."""
    (message,) = server.chat(chat_id).answers()
    return message


@pytest.mark.parametrize(
    "place", [Place(PERSON, is_group=False), Place(GROUP, is_group=True)], ids=["private", "group"]
)
async def test_a_silent_provider_shows_a_waiting_line_with_stop(
    streaming: StreamHarness, server: TelegramServer, place: Place
) -> None:
    """After three seconds; the answer takes its place in the same message."""
    streaming.begin(place=place)
    await streaming.pass_time(2.75)
    assert streaming.texts == []
    await streaming.pass_time(0.5)
    message = shown(server, place.chat_id)
    assert (message.text, message.labels) == (WAITING, ["Stop"])
    await streaming.pass_time(20)
    assert streaming.calls("editMessageText") == 0, "a line that stays costs nothing"
    streaming.reply.write("A leap year has a day more.")
    await streaming.end()
    assert shown(server, place.chat_id) is message
    assert (message.text, message.labels) == ("A leap year has a day more.", ["Retry"])


async def test_a_failure_after_the_waiting_line_takes_its_place(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    streaming.begin()
    await streaming.pass_time(4)
    await streaming.end(ReplyPhase.FAILED, notice="Nobody answers.")
    assert (shown(server).text, shown(server).labels) == ("Nobody answers.", ["Retry"])


async def test_a_waiting_draft_becomes_a_message_that_is_not_edited(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """A client may paint the last draft over a later edit: the final text is sent with its buttons."""
    streaming.begin("draft")
    await streaming.pass_time(4)
    assert [draft.text for draft in server.chat(PERSON).drafts] == [WAITING]
    streaming.reply.write("Hello")
    await streaming.pass_time(2)
    await streaming.end()
    assert (shown(server).text, shown(server).labels, len(shown(server).edits)) == ("Hello", ["Retry"], 1)


async def test_tool_work_is_shown_in_the_same_message(streaming: StreamHarness, server: TelegramServer) -> None:
    streaming.begin()
    await streaming.pass_time(4)
    streaming.reply.show_activity(SEARCH)
    await streaming.pass_time(2)
    assert shown(server).text == SEARCH
    streaming.reply.write("I found it.")
    await streaming.pass_time(2)
    assert shown(server).text == "I found it."
    streaming.reply.show_activity(SEARCH)
    await streaming.pass_time(3)
    assert (shown(server).text, shown(server).labels) == (f"I found it.\n\n{SEARCH}", ["Stop"])
    await streaming.end()
    assert shown(server).text == "I found it."


async def test_short_tool_work_does_not_flicker(streaming: StreamHarness, server: TelegramServer) -> None:
    streaming.begin()
    streaming.reply.write("Let me see.")
    await streaming.pass_time(2)
    streaming.reply.show_activity(SEARCH)
    await streaming.pass_time(0.5)
    streaming.reply.write(" It is Monday.")
    await streaming.end()
    assert [edit.text for edit in shown(server).edits] == ["Let me see.", "Let me see. It is Monday."]


# Known complaints about other bots.


async def test_complaint_a_doubled_final(streaming: StreamHarness, server: TelegramServer) -> None:
    """The connection broke while the last edit was carried out."""
    streaming.begin()
    streaming.reply.write("The whole answer.")
    await streaming.pass_time(2)
    server.drop("editMessageText", executed=True)
    await streaming.end()
    assert streaming.texts == ["The whole answer."]


async def test_complaint_a_vanished_final(streaming: StreamHarness, server: TelegramServer) -> None:
    """Flood control, a server error and a deleted message in turn: the text and its buttons arrive."""
    streaming.begin()
    await streaming.pass_time(4)
    streaming.reply.write("The whole answer.")
    server.reject_as_flood("editMessageText", 5)
    server.fail("editMessageText", 2, status=502, description="Bad Gateway")
    message = shown(server)
    message.deleted = True
    await streaming.end()
    assert (shown(server).text, shown(server).labels) == ("The whole answer.", ["Retry"])


async def test_complaint_an_error_banner_after_a_good_answer(streaming: StreamHarness, server: TelegramServer) -> None:
    """A failing indicator, a refused edit on the way and a held chat leave no trace in the answer."""
    streaming.begin()
    server.fail("sendChatAction", 5, status=500)
    streaming.reply.write("Half an answer")
    await streaming.pass_time(2)
    server.fail("editMessageText", 1, status=400, description="Bad Request: can't parse entities")
    streaming.reply.write(", and **the rest**.")
    await streaming.pass_time(2)
    await streaming.end()
    assert streaming.texts == ["Half an answer, and the rest."]


async def test_complaint_flicker(streaming: StreamHarness, server: TelegramServer) -> None:
    """Between the first text and the end, no edit takes back what was shown, and none repeats it."""
    streaming.begin()
    await streaming.pass_time(4)
    for word in ("A", "long", "answer", "that", "grows", "word", "by", "word", "with", "a", "pause", "after", "each"):
        streaming.reply.write(f"{word} ")
        await streaming.pass_time(0.7)
    await streaming.end()
    texts = [edit.text for edit in shown(server).edits]
    assert texts[0] == WAITING
    assert all(later.startswith(earlier) and later != earlier for earlier, later in pairwise(texts[1:-1]))
    assert texts[-1] == texts[-2] or texts[-1].startswith(texts[-2])
