"""Topics of forums and private chats: each is a separate conversation."""

import pytest

from tests.support.bot_harness import FIRST, GROUP, NAME, PERSON, SECOND, BotHarness, told


@pytest.mark.parametrize("chat_id", [GROUP, PERSON], ids=["forum", "private chat"])
async def test_topics_have_separate_conversations(stage: BotHarness, chat_id: int) -> None:
    for topic, text in ((11, "/ask One."), (12, "/ask Two."), (None, "/ask Three."), (11, "/ask Four.")):
        message = await stage.asks(text, chat_id, user_id=PERSON, message_thread_id=topic)
        assert message.topic_id == topic, "the answer comes where the question was asked"
    name = "Ann: " if chat_id == GROUP else ""
    assert [told(request) for request in stage.first.requests] == [
        [("user", f"{name}One.")],
        [("user", f"{name}Two.")],
        [("user", f"{name}Three.")],
        [("user", f"{name}One."), ("assistant", FIRST), ("user", f"{name}Four.")],
    ]


async def test_typing_is_shown_in_the_topic(stage: BotHarness) -> None:
    await stage.asks("/ask One.", GROUP, user_id=PERSON, message_thread_id=11)
    assert {call.params["message_thread_id"] for call in stage.telegram.calls_of("sendChatAction")} == {"11"}


async def test_new_affects_one_topic_only(stage: BotHarness) -> None:
    await stage.asks("/ask One.", GROUP, user_id=PERSON, message_thread_id=11)
    await stage.asks("/ask Two.", GROUP, user_id=PERSON, message_thread_id=12)
    stage.says("/new", GROUP, user_id=PERSON, message_thread_id=11)
    assert (await stage.reply(GROUP)).topic_id == 11
    await stage.asks("/ask Three.", GROUP, user_id=PERSON, message_thread_id=11)
    await stage.asks("/ask Four.", GROUP, user_id=PERSON, message_thread_id=12)
    assert len(told(stage.first.requests[2])) == 1
    assert len(told(stage.first.requests[3])) == 3


async def test_model_choice_holds_for_all_topics(stage: BotHarness) -> None:
    stage.says("/model", PERSON, message_thread_id=11)
    message = await stage.reply()
    assert message.topic_id == 11
    stage.presses(message, "b")
    await stage.until(lambda: "n" in message.labels)
    stage.presses(message, "n")
    await stage.until(lambda: not message.labels)
    assert (await stage.asks("Hello", PERSON, message_thread_id=12)).text == SECOND


async def test_topic_opening_message_is_not_quoted(stage: BotHarness) -> None:
    """Every forum message formally replies to it; that the bot opened it does not address the bot."""
    opened = stage.says("", GROUP, user_id=42, message_thread_id=11,
                        extra={"forum_topic_created": {"name": "Talk", "icon_color": 0}})  # fmt: skip
    stage.says("Hello everybody", GROUP, user_id=PERSON, message_thread_id=11, reply_to=opened)
    await stage.asks("/ask One.", GROUP, user_id=PERSON, message_thread_id=11, reply_to=opened)
    assert told(stage.first.requests[0]) == [("user", "Ann: One.")]
    assert [text for text in stage.chat(GROUP).texts() if text] == [FIRST]


async def test_closed_topic_falls_back_to_the_chat(stage: BotHarness) -> None:
    stage.chat(GROUP).closed_topics.add(11)
    stage.says("/ask One.", GROUP, user_id=PERSON, message_thread_id=11)
    message = await stage.answer(GROUP)
    assert (message.text, message.topic_id) == (FIRST, None)


async def test_new_topic_of_a_private_chat_gets_the_name_of_its_conversation(stage: BotHarness) -> None:
    """A name made up by Telegram is replaced; one given by a person stays."""
    for topic, implicit in ((11, True), (12, False)):
        created = {"name": "New Chat", "icon_color": 1, "is_name_implicit": implicit}
        stage.says("", PERSON, message_thread_id=topic, extra={"forum_topic_created": created})
        await stage.asks("Which tea is green?", PERSON, message_thread_id=topic)
    await stage.named(2)
    named = await stage.until(lambda: stage.telegram.calls_of("editForumTopic"))
    assert [(call.params["message_thread_id"], call.params["name"]) for call in named] == [("11", NAME)]
    # A further conversation in the topic does not rename it.
    stage.says("/new", PERSON, message_thread_id=11)
    await stage.reply()
    await stage.asks("And black?", PERSON, message_thread_id=11)
    await stage.named(3)
    assert len(stage.telegram.calls_of("editForumTopic")) == 1
