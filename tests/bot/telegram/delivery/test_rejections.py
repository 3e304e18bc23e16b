"""Fallbacks for parts that Telegram rejects, and for chats that it closes."""

import asyncio

import pytest
from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup, MessageEntity
from structlog.testing import capture_logs

from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.failures import DeliveryTiming
from bot.telegram.delivery.outgoing import OutgoingFile, SendResult, Sent
from bot.telegram.markdown.render import Rendered
from tests.support.clock import ManualClock
from tests.support.delivery_messages import GROUP, PERSON, STOP, send_with_button
from tests.support.fake_telegram.server import TelegramServer
from tests.support.markdown import render

pytestmark = pytest.mark.integration

TIMING = DeliveryTiming()


async def test_edit_without_changes_is_a_success(delivery: Delivery, server: TelegramServer) -> None:
    """The message has that text already: one call, no retry."""
    first = await send_with_button(delivery)

    outcome = await delivery.edit(PERSON, first.message_id, render("hello"), markup=STOP, final=True)

    assert (outcome.result, outcome.sent) == (SendResult.SHOWN, first)
    assert [call.status for call in server.calls] == [200, 400]


async def test_final_edit_of_a_deleted_message_sends_a_new_one(delivery: Delivery, server: TelegramServer) -> None:
    """A user deleted the message, or it was lost: the final text still arrives, in its topic."""
    first = await delivery.send(GROUP, render("begin"), topic_id=5)
    assert first is not None
    server.chat(GROUP).answers()[0].deleted = True

    live = await delivery.edit(GROUP, first.message_id, render("begin of"), topic_id=5, final=False)
    outcome = await delivery.edit(GROUP, first.message_id, render("the end"), topic_id=5, markup=STOP, final=True)

    assert (live.result, outcome.result) == (SendResult.GONE, SendResult.SHOWN)
    [message] = server.chat(GROUP).answers()
    assert (message.text, message.topic_id, message.labels) == ("the end", 5, ["Stop"])
    assert outcome.sent == Sent(GROUP, message.id)


@pytest.mark.parametrize(
    "entity",
    [
        pytest.param(MessageEntity(type="bold", offset=3, length=40), id="out of range"),
        pytest.param(MessageEntity(type="bold", offset=1, length=2), id="within a surrogate pair"),
        pytest.param(MessageEntity(type="sparkle", offset=0, length=1), id="of an unknown type"),
    ],
)
@pytest.mark.parametrize("final", [True, False])
async def test_rejected_formatting_is_sent_as_plain_text(
    delivery: Delivery, server: TelegramServer, entity: MessageEntity, *, final: bool
) -> None:
    """No answer is lost to a parse error, neither sent nor edited."""
    rendered = Rendered("\N{GRINNING FACE}abc", (entity,))

    first = await delivery.send(PERSON, rendered, final=final)
    assert first is not None
    outcome = await delivery.edit(
        PERSON, first.message_id, Rendered("\N{GRINNING FACE}abcd", (entity,)), markup=STOP, final=final
    )

    assert outcome.result is SendResult.SHOWN
    [message] = server.chat(PERSON).answers()
    assert (message.text, message.entities, message.labels) == ("\N{GRINNING FACE}abcd", [], ["Stop"])


async def test_rejected_buttons_are_omitted(delivery: Delivery, server: TelegramServer) -> None:
    """An invalid button costs no answer."""
    bad = InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="x", callback_data="x" * 65)]])

    assert await delivery.send(PERSON, render("**x**"), markup=bad) is not None
    assert server.chat(PERSON).answers()[0].entities


async def test_unknown_rejection_omits_parts_but_not_the_text(delivery: Delivery, server: TelegramServer) -> None:
    """An error that is not known is met with fewer and fewer parts."""
    server.fail("sendMessage", 2, status=400, description="Bad Request: SOMETHING_NEW_INVALID")

    assert await delivery.send(PERSON, render("**x**"), markup=STOP) is not None
    assert server.chat(PERSON).texts() == ["x"]


async def test_unknown_rejection_of_a_final_edit_omits_its_buttons_first(
    delivery: Delivery, server: TelegramServer
) -> None:
    first = await send_with_button(delivery)
    server.fail("editMessageText", 1, status=400, description="Bad Request: SOMETHING_NEW_INVALID")
    outcome = await delivery.edit(PERSON, first.message_id, Rendered("the end"), markup=STOP, final=True)
    assert outcome.sent == first
    [message] = server.chat(PERSON).answers()
    assert (message.text, message.labels) == ("the end", [])


async def test_lasting_rejection_is_an_error_event(delivery: Delivery, server: TelegramServer) -> None:
    """Three forms of the message are tried."""
    server.fail("sendMessage", 100, status=400, description="Bad Request: SOMETHING_NEW_INVALID")

    with capture_logs() as logs:
        assert await delivery.send(PERSON, render("**x**"), markup=STOP) is None

    assert [(entry["event"], entry["fault"]) for entry in logs if entry["log_level"] == "error"] == [
        ("delivery.lost", "refused")
    ]


@pytest.mark.parametrize(
    ("status", "description"),
    [
        (403, "Forbidden: bot was blocked by the user"),
        (403, "Forbidden: user is deactivated"),
        (403, "Forbidden: bot was kicked from the supergroup chat"),
        (403, "Forbidden: bot is not a member of the channel chat"),
        (400, "Bad Request: chat not found"),
        # Muted in a group: Telegram says so with a 400.
        (400, "Bad Request: not enough rights to send text messages to the chat"),
        (400, "Bad Request: need administrator rights in the channel chat"),
        (400, "Bad Request: CHANNEL_PRIVATE"),
        (400, "Bad Request: the group chat was deleted"),
    ],
)
async def test_closed_chat_is_unreachable_after_one_call(
    delivery: Delivery, server: TelegramServer, status: int, description: str
) -> None:
    """One call and one info event: users may leave."""
    server.fail("*", 100, status=status, description=description)

    with capture_logs() as logs:
        outcome = await delivery.post(PERSON, render("**x**"), markup=STOP)

    assert (outcome.result, outcome.sent) == (SendResult.UNREACHABLE, None)
    assert len(server.calls) == 1
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("delivery.unreachable", "info")]


@pytest.mark.parametrize("trouble", ["gone_topics", "closed_topics"])
async def test_closed_topic_is_omitted(delivery: Delivery, server: TelegramServer, trouble: str) -> None:
    """The answer goes to the group itself."""
    getattr(server.chat(GROUP), trouble).add(5)

    assert await delivery.send(GROUP, render("x"), topic_id=5) is not None
    assert [message.topic_id for message in server.chat(GROUP).answers()] == [None]


async def test_reply_to_a_deleted_message_is_omitted(delivery: Delivery, server: TelegramServer) -> None:
    """With one call: the send allows for it."""
    assert await delivery.send(PERSON, render("x"), reply_to=4711) is not None
    assert len(server.calls) == 1

    server.fail("sendMessage", status=400, description="Bad Request: message to be replied not found")
    assert await delivery.send(PERSON, render("y"), reply_to=4711) is not None
    assert server.chat(PERSON).texts() == ["x", "y"]


async def test_migrated_group_is_followed(delivery: Delivery, server: TelegramServer) -> None:
    """Final texts go to the new group: the first after one rejection, later ones directly."""
    first = await send_with_button(delivery, chat_id=GROUP)
    server.fail(
        "*", 100, status=400, description="Bad Request: group chat was upgraded to a supergroup chat",
        chat_id=GROUP, migrate_to=-1001,
    )  # fmt: skip

    outcome = await delivery.edit(GROUP, first.message_id, render("the end"), final=True)
    assert outcome.sent is not None
    assert outcome.sent.chat_id == -1001
    assert await delivery.send(GROUP, render("and more")) is not None

    assert server.chat(-1001).texts() == ["the end", "and more"]
    assert [call.status for call in server.calls_of("sendMessage", GROUP)] == [200]


async def test_unsupported_drafts_are_tried_once(delivery: Delivery, server: TelegramServer) -> None:
    """A 404 is remembered for the bot; a rejection in one chat is not."""
    assert await delivery.drafts.show(GROUP, 1, render("x")) is SendResult.UNSUPPORTED
    assert await delivery.drafts.show(PERSON, 1, render("x")) is SendResult.SHOWN
    server.unknown_methods.add("sendMessageDraft")
    assert await delivery.drafts.show(PERSON, 1, render("xy")) is SendResult.UNSUPPORTED
    assert await delivery.drafts.show(PERSON, 1, render("xyz")) is SendResult.UNSUPPORTED
    assert [call.status for call in server.calls] == [400, 200, 404]


async def test_unsupported_drafts_stay_so_where_another_chat_fails_meanwhile(
    delivery: Delivery, server: TelegramServer
) -> None:
    """The call of a draft that was in flight when another one got a 404 fails otherwise."""
    held = server.hold("sendMessageDraft", chat_id=GROUP)
    late = asyncio.create_task(delivery.drafts.show(GROUP, 1, render("x")))
    await server.wait_for(lambda: held.times == 0)
    server.fail("sendMessageDraft", status=404, description="Not Found", chat_id=PERSON)
    assert await delivery.drafts.show(PERSON, 1, render("x")) is SendResult.UNSUPPORTED
    held.end()
    assert await late is SendResult.UNSUPPORTED
    assert await delivery.drafts.show(PERSON, 1, render("xy")) is SendResult.UNSUPPORTED
    assert [call.status for call in server.calls] == [404, 400]


async def test_typing_is_limited_over_all_chats(delivery: Delivery, server: TelegramServer, clock: ManualClock) -> None:
    """With thousands of answers in progress, typing would use up the limit of the bot."""
    await asyncio.gather(*(delivery.typing(chat_id) for chat_id in range(1, 2 * TIMING.typing_per_s)))
    assert len(server.calls_of("sendChatAction")) == TIMING.typing_per_s

    clock.shift(1)
    await delivery.typing(PERSON)

    assert len(server.calls_of("sendChatAction")) == TIMING.typing_per_s + 1


async def test_typing_never_raises(delivery: Delivery, server: TelegramServer) -> None:
    """Nothing depends on it, for any answer."""
    server.fail("sendChatAction", status=500)
    server.drop("sendChatAction")
    server.garble("sendChatAction")
    server.fail("sendChatAction", status=404, description="Not Found")

    for _ in range(5):
        await delivery.typing(PERSON)

    assert len(server.chat(PERSON).actions) == 3
    assert len(server.calls) == 5


@pytest.mark.parametrize(
    "description",
    [
        "Bad Request: reply message not found",
        "Bad Request: message to be replied not found",
        "Bad Request: message to reply not found",
        "Bad Request: replied message not found",
        "Bad Request: REPLY_MESSAGE_ID_INVALID",
        "Bad Request: REPLY_TO_INVALID",
        "Bad Request: QUOTE_TEXT_INVALID",
        "Bad Request: message quote not found",
    ],
)
async def test_rejected_reply_is_sent_without_it(delivery: Delivery, server: TelegramServer, description: str) -> None:
    """The text, its formatting, buttons and topic stay; only the reply goes."""
    server.fail("sendMessage", 1, status=400, description=description)

    assert await delivery.send(GROUP, render("**x**"), topic_id=5, reply_to=3, markup=STOP) is not None

    [message] = server.chat(GROUP).answers()
    assert (message.text, bool(message.entities), message.labels, message.topic_id) == ("x", True, ["Stop"], 5)
    assert "reply_parameters" not in server.calls_of("sendMessage")[-1].params


@pytest.mark.parametrize(
    "description",
    ["Bad Request: message thread not found", "Bad Request: TOPIC_CLOSED", "Bad Request: the topic was deleted"],
)
async def test_rejected_topic_is_left_out(delivery: Delivery, server: TelegramServer, description: str) -> None:
    """The answer arrives in the group itself."""
    server.fail("sendMessage", 1, status=400, description=description)

    assert await delivery.send(GROUP, render("**x**"), topic_id=5, markup=STOP) is not None

    [message] = server.chat(GROUP).answers()
    assert (bool(message.entities), message.labels, message.topic_id) == (True, ["Stop"], None)


@pytest.mark.parametrize(
    ("description", "times"),
    [
        # About anything, or about a part that the message does not have.
        ("Bad Request: SOMETHING_NEW_INVALID", 4),
        ("Bad Request: MESSAGE_ID_INVALID", 4),
        ("Bad Request: can't parse entities", 4),
        ("Bad Request: BUTTON_DATA_INVALID", 4),
    ],
)
async def test_final_text_arrives_without_everything_else(
    delivery: Delivery, server: TelegramServer, description: str, times: int
) -> None:
    """Formatting, reply, buttons and topic go one after the other until the text is accepted."""
    server.fail("sendMessage", times, status=400, description=description)

    assert await delivery.send(GROUP, render("**x**"), topic_id=5, reply_to=3, markup=STOP) is not None

    [message] = server.chat(GROUP).answers()
    assert (message.text, message.entities, message.labels, message.topic_id) == ("x", [], [], None)


async def test_file_is_sent_despite_rejected_parts(delivery: Delivery, server: TelegramServer) -> None:
    """A document has the same fallbacks as a text."""
    server.fail("sendDocument", 1, status=400, description="Bad Request: reply message not found")

    outcome = await delivery.post(
        GROUP, render("**x**"), reply_to=3, markup=STOP, file=OutgoingFile("answer.txt", b"text")
    )

    [message] = server.chat(GROUP).answers()
    assert outcome.sent == Sent(GROUP, message.id)
    assert (message.text, message.document, message.labels) == ("x", b"text", ["Stop"])
