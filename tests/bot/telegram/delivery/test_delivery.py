"""Delivery of messages when Telegram accepts them."""

from datetime import UTC, datetime

import pytest
from aiogram.exceptions import TelegramBadRequest
from aiogram.methods import DeleteMessage
from aiogram.types import Chat, Message, MessageEntity

from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.outgoing import SendResult, Sent
from bot.telegram.delivery.replies import reply_to
from bot.telegram.markdown.render import Rendered
from tests.support.delivery_messages import GROUP, PERSON, STOP, send_with_button
from tests.support.fake_telegram.server import TelegramServer
from tests.support.markdown import render

pytestmark = pytest.mark.integration


async def test_send_delivers_the_rendered_text(delivery: Delivery, server: TelegramServer) -> None:
    """Text, entities, buttons, topic and reply arrive; links have no preview and no parse mode is sent."""
    question = server.user_says("what?", GROUP, user_id=PERSON, message_thread_id=5)
    rendered = render("a **bold** https://example.org")

    got = await delivery.send(GROUP, rendered, topic_id=5, reply_to=question.id, markup=STOP)

    [message] = server.chat(GROUP).answers()
    assert got == Sent(GROUP, message.id)
    assert (message.text, message.labels, message.topic_id) == (rendered.text, ["Stop"], 5)
    assert message.reply_to == question.id
    assert message.entities[0] == {"type": "bold", "offset": 2, "length": 4}
    assert message.link_preview == {"is_disabled": True}
    assert "parse_mode" not in server.calls_of("sendMessage")[0].params


async def test_edit_replaces_text_and_removes_buttons(delivery: Delivery, server: TelegramServer) -> None:
    """An edit without markup leaves no buttons, and no second message."""
    first = await send_with_button(delivery)

    outcome = await delivery.edit(PERSON, first.message_id, render("hello *you*"), final=True)

    assert (outcome.result, outcome.sent) == (SendResult.SHOWN, first)
    [message] = server.chat(PERSON).answers()
    assert (message.text, message.labels, message.link_preview) == ("hello you", [], {"is_disabled": True})


async def test_send_accepts_2048_astral_characters(delivery: Delivery, server: TelegramServer) -> None:
    """Telegram counts UTF-16 units: 2048 of them are a full message, and entities may end at its last unit."""
    full = "\N{GRINNING FACE}" * 2048

    assert await delivery.send(PERSON, Rendered(full, (MessageEntity(type="bold", offset=0, length=4096),)))
    assert server.chat(PERSON).texts() == [full]


async def test_delete_edit_markup_and_answer_callback_accept_late_calls(
    delivery: Delivery, server: TelegramServer
) -> None:
    """A message that is gone counts as deleted, and an old callback query is no failure."""
    first = await send_with_button(delivery)
    query = server.presses(server.chat(PERSON).answers()[0], "Stop")

    await delivery.answer_callback(query, "stopped", alert=True)
    await delivery.answer_callback("long ago")
    assert await delivery.edit_markup(PERSON, first.message_id, None)
    assert await delivery.edit_markup(PERSON, first.message_id, None)
    assert await delivery.delete(PERSON, first.message_id)
    assert await delivery.delete(PERSON, first.message_id)
    assert not await delivery.edit_markup(PERSON, first.message_id, STOP)

    assert server.callback_answers[query]["text"] == "stopped"
    assert server.chat(PERSON).texts() == []


async def test_attempt_returns_the_error_that_prevented_it(delivery: Delivery, server: TelegramServer) -> None:
    first = await send_with_button(delivery)
    server.fail("deleteMessage", 1, status=400, description="Bad Request: message can't be deleted")
    method = DeleteMessage(chat_id=PERSON, message_id=first.message_id)
    assert isinstance(await delivery.attempt(method, PERSON), TelegramBadRequest)
    assert len(server.chat(PERSON).answers()) == 1
    # A call that finds everything as wanted has not failed.
    server.fail("deleteMessage", 1, status=400, description="Bad Request: message is not modified")
    assert await delivery.attempt(method, PERSON) is None


@pytest.mark.parametrize(("chat_id", "kind"), [(GROUP, "supergroup"), (PERSON, "private")])
async def test_reply_to_quotes_the_message_in_groups_only(
    delivery: Delivery, server: TelegramServer, chat_id: int, kind: str
) -> None:
    question = server.user_says("what?", chat_id, user_id=PERSON)
    about = Message(message_id=question.id, date=datetime.now(UTC), chat=Chat(id=chat_id, type=kind))
    await reply_to(delivery, about, "that")
    [message] = server.chat(chat_id).answers()
    assert message.reply_to == (question.id if chat_id == GROUP else None)
