"""Groups: when the bot answers, and with which context."""

import asyncio

import pytest

from tests.support.bot_harness import ELSEWHERE, FIRST, GROUP, RETRY, BotHarness, instructions, told
from tests.support.fake_llm.server import answer, gate

ANN, BOB = 7, 8


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        # Mentioned at the start, with and without punctuation.
        ("@understudy_bot what time is it?", "what time is it?"),
        ("@understudy_bot, what time is it?", "what time is it?"),
        ("@Understudy_Bot what time is it?", "what time is it?"),
        # At the end.
        ("What time is it @understudy_bot", "What time is it"),
        # Within a sentence the name stays part of the text.
        ("Hey @understudy_bot what time is it?", "Hey @understudy_bot what time is it?"),
        # After characters of two UTF-16 units.
        ("👋🏽 @understudy_bot hi", "👋🏽 @understudy_bot hi"),
        # Another bot's username starts with ours.
        ("@understudy_bot2 or @understudy_bot", "@understudy_bot2 or"),
        # By command, also one addressed to this bot.
        ("/ask what time is it?", "what time is it?"),
        ("/ask@understudy_bot what time is it?", "what time is it?"),
    ],
)
async def test_group_mention_is_answered(stage: BotHarness, said: str, heard: str) -> None:
    question = stage.says(said, GROUP, user_id=ANN)
    message = await stage.answer(GROUP)
    assert (message.text, message.reply_to, message.labels) == (FIRST, question.id, [RETRY, ELSEWHERE])
    assert told(stage.first.requests[0]) == [("user", f"Ann: {heard}")]


async def test_group_reply_to_the_bot_is_answered(stage: BotHarness) -> None:
    message = await stage.asks("/ask What time is it?", GROUP, user_id=ANN)
    await stage.asks("And in Tokyo?", GROUP, user_id=BOB, name="Bob", reply_to=message)
    assert told(stage.first.requests[1]) == [
        ("user", "Ann: What time is it?"),
        ("assistant", FIRST),
        ("user", "Bob: And in Tokyo?"),
    ]


async def test_group_text_mention_is_answered(stage: BotHarness) -> None:
    marks = [{"type": "text_mention", "offset": 0, "length": 10, "user": stage.telegram._bot_object()}]
    await stage.asks("Understudy what time is it?", GROUP, user_id=ANN, entities=marks)
    assert told(stage.first.requests[0]) == [("user", "Ann: what time is it?")]


@pytest.mark.parametrize(
    "said",
    [
        # Messages to everyone,
        "What time is it?",
        # to another user,
        "@somebody_else what time is it?",
        # to another bot.
        "/ask@another_bot what time is it?",
        "/dance",
        # An email address is not a mention.
        "mail me at ann@understudy_bot.example",
    ],
)
async def test_group_message_without_mention_is_ignored(stage: BotHarness, said: str) -> None:
    stage.says(said, GROUP, user_id=ANN)
    assert (await stage.asks("/ask Are you there?", GROUP, user_id=ANN)).text == FIRST
    assert len(stage.chat(GROUP).answers()) == 1
    assert told(stage.first.requests[0]) == [("user", "Ann: Are you there?")]


async def test_group_reply_to_another_user_is_ignored(stage: BotHarness) -> None:
    said = stage.says("What time is it?", GROUP, user_id=BOB, name="Bob")
    stage.says("Late.", GROUP, user_id=ANN, reply_to=said)
    await stage.asks("/ask Are you there?", GROUP, user_id=ANN)
    assert len(stage.chat(GROUP).answers()) == 1


async def test_group_service_messages_are_ignored(stage: BotHarness) -> None:
    """Also when they reply to the bot, as a pinned message does."""
    message = await stage.asks("/ask Are you there?", GROUP, user_id=ANN)
    for extra in (
        {"pinned_message": {"message_id": message.id, "date": 0, "chat": {"id": GROUP, "type": "supergroup"}}},
        {"new_chat_title": "Another name"},
    ):
        stage.says("", GROUP, user_id=ANN, reply_to=message, extra=extra)
    stage.says("", ANN, extra={"message_auto_delete_timer_changed": {"message_auto_delete_time": 86400}})
    await stage.asks("/ask Still?", GROUP, user_id=ANN)
    assert len(stage.chat(GROUP).answers()) == 2
    assert not stage.chat(ANN).answers()


async def test_group_mention_in_a_reply_includes_the_quoted_text(stage: BotHarness) -> None:
    """Even if the mention says nothing else."""
    said = stage.says("The moon is made of cheese.", GROUP, user_id=BOB, name="Bob")
    for text in ("@understudy_bot", "/ask", "@understudy_bot is that so?"):
        await stage.asks(text, GROUP, user_id=ANN, reply_to=said)
    heard = [told(request)[-1][1] for request in stage.first.requests]
    assert all("[In reply to this message of Bob:]\n The moon is made of cheese.\n" in text for text in heard)
    assert heard[2].endswith("Ann: is that so?")


async def test_group_mention_in_a_reply_includes_the_picture(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(A_FAMILIES='{"m": "gpt-4o"}')
    shown = stage.says("", GROUP, user_id=BOB, photo=b"\xff\xd8\xff\xe0 a picture")
    await stage.asks("@understudy_bot what is this?", GROUP, user_id=ANN, reply_to=shown)
    assert told(stage.first.requests[0]) == [("user", "Ann: what is this?<image_url>")]


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("@understudy_bot", "Add your question to the mention and I will answer."),
        ("/ask", "Add your question after the command: /ask why is the sky blue?"),
    ],
)
async def test_group_mention_without_a_question_asks_for_one(stage: BotHarness, said: str, hint: str) -> None:
    question = stage.says(said, GROUP, user_id=ANN)
    message = await stage.reply(GROUP)
    assert (message.text, message.reply_to) == (hint, question.id)
    assert not stage.first.requests


async def test_group_and_private_chat_are_separate(stage: BotHarness) -> None:
    """In both directions; the instructions name the place."""
    await stage.asks("My secret is 1234.", ANN)
    await stage.asks("/ask What do you know?", GROUP, user_id=ANN)
    await stage.asks("What did I ask?", ANN)
    group, private = stage.first.requests[1], stage.first.requests[2]
    assert told(group) == [("user", "Ann: What do you know?")]
    assert "secret" not in str(group.json)
    assert 'a group chat called "Group 100"' in instructions(group)
    assert told(private) == [("user", "My secret is 1234."), ("assistant", FIRST), ("user", "What did I ask?")]
    assert "private chat with Ann" in instructions(private)


async def test_group_names_channels_and_anonymous_admins(stage: BotHarness) -> None:
    channel = {"id": -200, "type": "channel", "title": "The News"}
    await stage.asks("/ask What is new?", GROUP, user_id=777000, extra={"sender_chat": channel})
    assert told(stage.first.requests[0]) == [("user", "The News: What is new?")]


async def test_group_chatter_does_not_fill_the_queue(stage: BotHarness) -> None:
    """More than twenty messages that are not for the bot, during a long answer."""
    more = asyncio.Event()
    stage.first.script(gate(more, then=answer("Done.")))
    question = stage.says("/ask Tell me something long.", GROUP, user_id=ANN)
    await stage.first.arrival(1)
    for number in range(30):
        stage.says(f"Nonsense number {number}", GROUP, user_id=BOB)
    last = stage.says("/ask And me?", GROUP, user_id=BOB, name="Bob")
    await stage.until(lambda: not stage.telegram.pending)
    more.set()
    assert (await stage.answer(GROUP, after=question.id)).text == "Done."
    assert (await stage.seen(lambda message: message.reply_to == last.id, GROUP)).text == FIRST
    assert len(stage.chat(GROUP).answers()) == 2


async def test_group_retry_replies_to_the_question(stage: BotHarness) -> None:
    question = stage.says("/ask Are you there?", GROUP, user_id=ANN)
    message = await stage.answer(GROUP)
    stage.presses(message, RETRY, ANN)
    assert (await stage.answer(GROUP, after=message.id)).reply_to == question.id
    assert told(stage.first.requests[1]) == [("user", "Ann: Are you there?")]


async def test_group_migration_during_an_answer(stage: BotHarness) -> None:
    """The answer follows to the new chat id."""
    stage.telegram.fail(
        "sendMessage", status=400, description="Bad Request: group chat was upgraded to a supergroup chat",
        migrate_to=-1001, chat_id=GROUP,
    )  # fmt: skip
    stage.says("/ask Are you there?", GROUP, user_id=ANN)
    assert (await stage.answer(-1001)).text == FIRST


async def test_group_question_is_acknowledged_until_it_is_answered(empty_stage: BotHarness) -> None:
    """Off by default."""
    stage = empty_stage
    await stage.start()
    assert (await stage.asks("/ask Hello?", GROUP, user_id=ANN)).reply_to is not None
    assert not stage.telegram.calls_of("setMessageReaction")
    await stage.stop()
    await stage.start(ACKNOWLEDGE_IN_GROUPS="true")
    opened = asyncio.Event()
    stage.first.default = gate(opened, then=answer(FIRST))
    question = stage.says("/ask Hello?", GROUP, user_id=ANN)
    await stage.until(lambda: question.reactions == [["👀"]])
    opened.set()
    await stage.answer(GROUP, after=question.id)
    await stage.until(lambda: question.reactions == [["👀"], []])
    await stage.asks("Hello?")
    assert len(stage.telegram.calls_of("setMessageReaction")) == 2, "none in a private chat"
