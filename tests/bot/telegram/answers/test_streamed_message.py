"""Streamed answers: timing of updates, and their end."""

import pytest

from bot.telegram.answers.answer_messages import Place
from services.chat.reply import ReplyPhase
from tests.support.delivery_messages import GROUP, PERSON
from tests.support.fake_telegram.server import TelegramServer
from tests.support.stream_harness import EMPTY, StreamHarness, gaps

pytestmark = pytest.mark.integration


async def test_streamed_answer_sends_the_first_message_after_a_second(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """Few characters wait for the second to end; the message has the Stop button and is a reply."""
    question = server.user_says("hi")
    streaming.begin(place=Place(PERSON, is_group=False, reply_to=question.id))
    await streaming.pass_time(0.5)
    streaming.reply.write("Hello")
    await streaming.pass_time(0.25)
    assert streaming.texts == []

    await streaming.pass_time(0.25)

    [message] = server.chat(PERSON).answers()
    assert (message.text, message.labels, message.reply_to) == ("Hello", ["Stop"], question.id)
    assert streaming.times("sendMessage") == [1.0]


@pytest.mark.parametrize(("characters", "shown"), [(79, 0), (80, 1)])
async def test_streamed_answer_sends_80_characters_at_once(
    streaming: StreamHarness, characters: int, shown: int
) -> None:
    """A fast model is displayed without delay."""
    streaming.begin()
    await streaming.pass_time(0.25)
    streaming.reply.write("x" * characters)
    await streaming.pass_time(0.25)

    assert len(streaming.texts) == shown


async def test_streamed_answer_sends_nothing_before_visible_text(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """White space and an empty fence are no text; the first visible character ends the wait, for three seconds."""
    streaming.begin()
    await streaming.pass_time(0.75)
    streaming.reply.write("\n\n")
    await streaming.pass_time(0.75)
    streaming.reply.write("```python\n")
    await streaming.pass_time(0.75)
    assert streaming.calls("sendMessage") == 0

    streaming.reply.write("x = 1")
    await streaming.pass_time(1)

    assert streaming.texts == ["x = 1"]
    assert server.chat(PERSON).answers()[0].entities[0]["type"] == "pre"


@pytest.mark.parametrize(
    ("place", "spacing"),
    [
        pytest.param(Place(PERSON, is_group=False), 1.0, id="private"),
        pytest.param(Place(GROUP, is_group=True), 3.0, id="group"),
    ],
)
async def test_streamed_answer_spaces_its_edits(streaming: StreamHarness, place: Place, spacing: float) -> None:
    """However fast the text grows: one second between edits in private chats, three in groups."""
    streaming.begin(place=place)
    await streaming.write_slowly("word ", 80, pause_s=0.25)

    times = sorted([*streaming.times("sendMessage"), *streaming.times("editMessageText")])

    assert times[0] == 1.0
    assert len(times) == int(19 / spacing) + 1
    assert set(gaps(times)) == {spacing}
    await streaming.end()
    assert streaming.texts == ["word " * 79 + "word"]


async def test_streamed_answer_skips_edits_without_visible_change(streaming: StreamHarness) -> None:
    """Neither a silent model nor invisible characters cost a call."""
    streaming.begin()
    streaming.reply.write("Hello")
    await streaming.pass_time(10)
    await streaming.write_slowly("\n", 5, pause_s=2)
    assert streaming.calls("editMessageText") == 0

    streaming.reply.write("you")
    await streaming.pass_time(2)
    assert streaming.calls("editMessageText") == 1


async def test_streamed_answer_formats_a_mark_once_it_is_closed(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """Telegram accepts every edit, and the end has no marks."""
    streaming.begin()
    streaming.reply.write("A **bo")
    await streaming.pass_time(1)
    streaming.reply.write("ld** word")
    await streaming.pass_time(1)
    await streaming.end()

    message = server.chat(PERSON).answers()[0]
    assert message.text == "A bold word"
    assert message.entities == [{"type": "bold", "offset": 2, "length": 4}]
    assert {call.status for call in server.calls} == {200}


async def test_streamed_answer_shows_typing_until_its_end(streaming: StreamHarness, server: TelegramServer) -> None:
    """Every 4.5 seconds from the start, and never after the end."""
    streaming.begin()
    await streaming.pass_time(10)
    assert [at - streaming.start for at, _ in server.chat(PERSON).actions] == [0, 4.5, 9]

    streaming.reply.write("Hello")
    await streaming.end()
    await streaming.pass_time(20)
    assert len(server.chat(PERSON).actions) == 3


async def test_streamed_answer_ends_with_one_edit_with_footer_and_buttons(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """Retry replaces Stop; the footer stands in italics under the answer."""
    streaming.begin()
    streaming.reply.write("Hello **you**")
    await streaming.pass_time(2)
    await streaming.end(footer="answered by b")

    [message] = server.chat(PERSON).answers()
    assert (message.text, message.labels) == ("Hello you\n\nanswered by b", ["Retry"])
    assert [entity["type"] for entity in message.entities] == ["bold", "italic"]
    assert streaming.calls("editMessageText") == 1


@pytest.mark.parametrize("phase", [ReplyPhase.STOPPED, ReplyPhase.INTERRUPTED])
async def test_streamed_answer_keeps_interrupted_text_with_its_notice(
    streaming: StreamHarness, phase: ReplyPhase
) -> None:
    """The text so far is kept, with a line that gives the reason."""
    streaming.begin()
    streaming.reply.write("Half of \N{GRINNING FACE}")
    await streaming.pass_time(2)
    await streaming.end(phase, notice="Interrupted.", footer="answered by b")

    assert streaming.texts == ["Half of \N{GRINNING FACE}\n\nInterrupted.\n\nanswered by b"]


async def test_streamed_answer_sends_a_quick_answer_once(streaming: StreamHarness, server: TelegramServer) -> None:
    """Finished within the first second: sent once, never edited."""
    streaming.begin()
    streaming.reply.write("Yes.")
    await streaming.end()

    assert streaming.texts == ["Yes."]
    assert server.chat(PERSON).answers()[0].labels == ["Retry"]
    assert (streaming.calls("sendMessage"), streaming.calls("editMessageText")) == (1, 0)


@pytest.mark.parametrize(
    ("phase", "words", "text"),
    [
        pytest.param(ReplyPhase.FAILED, {"notice": "No provider answers."}, "No provider answers.", id="failed"),
        pytest.param(ReplyPhase.COMPLETE, {}, EMPTY, id="complete and empty"),
        pytest.param(ReplyPhase.STOPPED, {"notice": "Stopped."}, "Stopped.", id="stopped at once"),
        pytest.param(ReplyPhase.COMPLETE, {"footer": "by b"}, f"{EMPTY}\n\nby b", id="footer"),
    ],
)
async def test_streamed_answer_replaces_an_empty_answer_by_a_line(
    streaming: StreamHarness, server: TelegramServer, phase: ReplyPhase, words: dict[str, str], text: str
) -> None:
    """A user always gets an answer, with buttons to try again."""
    streaming.begin()
    await streaming.pass_time(2)
    await streaming.end(phase, **words)

    assert streaming.texts == [text]
    assert server.chat(PERSON).answers()[0].labels == ["Retry"]


async def test_streamed_answer_sends_everything_at_the_end_if_streaming_is_off(streaming: StreamHarness) -> None:
    """One message at the end, the typing indicator meanwhile."""
    streaming.begin("off")
    await streaming.write_slowly("word ", 20)
    assert streaming.texts == []
    await streaming.end()

    assert streaming.texts == ["word " * 19 + "word"]
    assert (streaming.calls("sendMessage"), streaming.calls("editMessageText")) == (1, 0)
    assert streaming.calls("sendChatAction") == 5
