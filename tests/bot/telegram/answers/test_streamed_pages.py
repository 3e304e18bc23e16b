"""Streamed answers over several messages, and those that continue an earlier attempt."""

import itertools

import pytest

from bot.telegram.delivery.delivery import Delivery
from bot.telegram.markdown.render import Rendered
from tests.support.delivery_messages import PERSON
from tests.support.fake_telegram.server import TelegramServer
from tests.support.stream_harness import StreamHarness

pytestmark = pytest.mark.integration


async def test_pages_are_sent_in_order_and_full_ones_left_alone(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """A full page is edited one last time, without Stop; the next message continues."""
    streaming.begin()
    paragraphs = [f"{number} " + "lorem ipsum " * 40 for number in range(30)]
    for paragraph in paragraphs:
        streaming.reply.write(paragraph + "\n\n")
        await streaming.pass_time(1)
    await streaming.end(footer="answered by b")

    messages = server.chat(PERSON).answers()
    assert len(messages) == 4
    words = "\n\n".join(message.text for message in messages)
    assert words.split() == [*" ".join(paragraphs).split(), "answered", "by", "b"]
    assert [message.labels for message in messages] == [[], [], [], ["Retry"]]
    for earlier, later in itertools.pairwise(messages):
        assert earlier.edits[-1].at <= later.edits[0].at
    assert {call.status for call in server.calls} == {200}


async def test_pages_of_a_quick_answer_are_each_sent_once(streaming: StreamHarness, server: TelegramServer) -> None:
    """Several pages within the first second: in order, and code fences are reopened."""
    streaming.begin()
    code = "".join(f"line_{number} = {number}\n" for number in range(600))
    streaming.reply.write(f"```python\n{code}```")
    await streaming.end()

    messages = server.chat(PERSON).answers()
    assert len(messages) > 2
    assert "".join(message.text + "\n" for message in messages).split() == code.split()
    assert {entity["type"] for message in messages for entity in message.entities} == {"pre"}
    assert streaming.calls("editMessageText") == 0


async def test_pages_keep_4096_astral_characters_whole(streaming: StreamHarness, server: TelegramServer) -> None:
    """Twice as many UTF-16 units as characters: two messages, no half of a pair, nothing lost or doubled."""
    text = "\N{GRINNING FACE}" * 4096
    streaming.begin()
    streaming.reply.write(text[:100])
    await streaming.pass_time(1)
    streaming.reply.write(text[100:])
    await streaming.pass_time(3)
    await streaming.end()

    assert "".join(streaming.texts) == text
    assert len(streaming.texts) == 2
    assert {call.status for call in server.calls} == {200}


@pytest.mark.parametrize("seen", [True, False])
async def test_pages_without_visible_text_after_a_full_one_are_deleted(
    streaming: StreamHarness, server: TelegramServer, *, seen: bool
) -> None:
    """A fence that was opened and left empty is deleted if displayed, and the full page gets the buttons."""
    streaming.begin()
    streaming.reply.write("x" * 4095 + "\n\n`")
    await streaming.pass_time(3 if seen else 0.5)
    assert len(streaming.texts) == (2 if seen else 1)
    streaming.reply.write("``py\n")
    await streaming.end()

    [message] = server.chat(PERSON).answers()
    assert (message.text, message.labels) == ("x" * 4095, ["Retry"])


async def test_pages_put_a_footer_that_does_not_fit_into_its_own_message(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """A full last page stays unchanged; the buttons go under the footer."""
    streaming.begin()
    streaming.reply.write("x" * 4090)
    await streaming.end(footer="answered by b")

    assert streaming.texts == ["x" * 4090, "answered by b"]
    assert [message.labels for message in server.chat(PERSON).answers()] == [[], ["Retry"]]


async def test_pages_continue_in_the_messages_of_an_earlier_attempt(
    streaming: StreamHarness, delivery: Delivery, server: TelegramServer
) -> None:
    """Page by page, without new messages; a surplus one is deleted."""
    before = [sent for text in ("half of", "and a", "rest") if (sent := await delivery.send(PERSON, Rendered(text)))]
    streaming.reply.earlier_ids = tuple(each.message_id for each in before)
    streaming.begin()
    streaming.reply.write("First page.\n\n" + "word " * 900)
    await streaming.end()

    assert [message.id for message in server.chat(PERSON).answers()] == [each.message_id for each in before[:2]]
    assert streaming.texts[0].startswith("First page.")
    assert server.chat(PERSON).answers()[1].labels == ["Retry"]
    assert streaming.calls("sendMessage") == len(before)


async def test_pages_report_each_new_message_once_before_the_next(
    streaming: StreamHarness, server: TelegramServer
) -> None:
    """A process that dies after the first page knows its message."""
    streaming.begin()
    streaming.reply.write("Hello")
    await streaming.pass_time(1)
    assert streaming.recorded == [message.id for message in server.chat(PERSON).answers()]
    streaming.reply.write(" there.\n\n" + "word " * 900)
    await streaming.end()
    assert streaming.recorded == [message.id for message in server.chat(PERSON).answers()]
    assert len(streaming.recorded) == 2


async def test_pages_report_the_message_that_replaces_a_deleted_one(
    streaming: StreamHarness, delivery: Delivery, server: TelegramServer
) -> None:
    """A user deleted the message of an earlier attempt: the answer comes in a new one."""
    earlier = await delivery.send(PERSON, Rendered("half of"))
    assert earlier is not None
    await delivery.delete(PERSON, earlier.message_id)
    streaming.reply.earlier_ids = (earlier.message_id,)
    streaming.begin()
    streaming.reply.write("All of it.")
    await streaming.end()
    [message] = server.chat(PERSON).answers()
    assert message.text == "All of it."
    assert streaming.recorded == [message.id]
