"""Delivery of messages when Telegram accepts them."""

from aiogram.types import MessageEntity

from bot.telegram.delivery.calls import SendResult, Sent
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.markdown.render import Rendered, render
from tests.support.delivery_messages import GROUP, PERSON, STOP, send_with_button
from tests.support.fake_telegram.server import TelegramServer


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
