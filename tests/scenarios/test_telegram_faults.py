"""What Telegram answers when it does not do what it is told: no answer is lost to it."""

import asyncio

import pytest

from tests.support.bot_harness import FIRST, LONG, PERSON, RETRY, STOP, BotHarness
from tests.support.fake_llm.server import Answer, answer, gate
from tests.support.fake_telegram.chats import Message

WHOLE = f"{LONG}And the end."


def held(event: asyncio.Event) -> Answer:
    """An answer that is shown, and goes on when the test says so."""
    behaviour = gate(event, after_pieces=1, then=answer(pieces=[LONG, "And the end."]))
    assert isinstance(behaviour, Answer)
    return behaviour


async def growing(stage: BotHarness) -> tuple[Message, asyncio.Event]:
    """An answer in the middle, and what lets it go on."""
    more = asyncio.Event()
    stage.first.script(held(more))
    stage.says("Tell me something long.")
    return await stage.growing(), more


@pytest.mark.parametrize(
    ("status", "description"),
    [
        (500, "Internal Server Error"),
        (502, "Bad Gateway"),
        # Too many messages to this chat: a second later they are taken.
        (429, "Too Many Requests: retry after 1"),
    ],
)
async def test_sending_fails_for_a_moment(stage: BotHarness, status: int, description: str) -> None:
    """It is tried again, and the answer stands there once."""
    stage.telegram.fail("sendMessage", 1, status=status, description=description,
                        retry_after=1 if status == 429 else None)  # fmt: skip
    assert (await stage.asks("Are you there?")).text == FIRST
    assert len(stage.chat().answers()) == 1


async def test_the_last_edit_meets_flood_control(stage: BotHarness) -> None:
    message, more = await growing(stage)
    stage.telegram.fail("editMessageText", 1, status=429, description="Too Many Requests: retry after 1", retry_after=1)
    more.set()
    await stage.until(lambda: message.labels[:1] == [RETRY])
    assert message.text == WHOLE
    assert len(stage.chat().answers()) == 1, "a new message because an edit met a flood makes the flood worse"


async def test_the_last_edit_fails_for_a_moment(stage: BotHarness) -> None:
    message, more = await growing(stage)
    stage.telegram.fail("editMessageText", 1, status=500)
    more.set()
    await stage.until(lambda: message.labels[:1] == [RETRY])
    assert message.text == WHOLE


async def test_an_edit_that_changes_nothing(stage: BotHarness) -> None:
    """Telegram calls that an error; it is none."""
    message, more = await growing(stage)
    stage.telegram.fail("editMessageText", 1, status=400, description="Bad Request: message is not modified")
    more.set()
    await stage.until(lambda: stage.events("turn.ended"))
    assert (await stage.asks("And now?")).text == FIRST
    assert not stage.events("delivery.lost")
    assert message.text.startswith(LONG.strip())


async def test_the_growing_message_is_deleted(stage: BotHarness) -> None:
    """The whole answer comes in a new one."""
    message, more = await growing(stage)
    message.deleted = True
    more.set()
    again = await stage.answer(after=message.id)
    assert (again.text, again.labels[:1]) == (WHOLE, [RETRY])


async def test_the_bot_was_blocked(stage: BotHarness) -> None:
    """Nothing can be delivered: that is noted, and neither tried for ever nor an error."""
    _, more = await growing(stage)
    stage.telegram.block(PERSON)
    more.set()
    await stage.until(lambda: stage.events("delivery.unreachable"))
    calls = len(stage.telegram.calls_of("sendMessage", PERSON))
    assert (await stage.asks("Are you there?", 8)).text == FIRST
    assert len(stage.telegram.calls_of("sendMessage", PERSON)) == calls
    stage.chat().refusal = None
    assert (await stage.asks("I am back.")).text == FIRST
    assert not [entry for entry in stage.events("delivery.lost") if entry["level"] == "error"]


async def test_the_formatting_is_refused(stage: BotHarness) -> None:
    """The same text goes out plain."""
    stage.first.default = answer("This is **bold**.")
    stage.telegram.fail("sendMessage", status=400, description="Bad Request: can't parse entities: unsupported")
    message = await stage.asks("Say it loud.")
    assert (message.text, message.entities) == ("This is bold.", [])


async def test_the_formatting_of_the_last_edit_is_refused(stage: BotHarness) -> None:
    more = asyncio.Event()
    behaviour = gate(more, after_pieces=1, then=answer(pieces=[LONG, "**Bold**."]))
    stage.first.script(behaviour)
    stage.says("Tell me something long.")
    message = await stage.growing()
    stage.telegram.fail("editMessageText", status=400, description="Bad Request: can't parse entities: unsupported")
    more.set()
    await stage.until(lambda: message.labels[:1] == [RETRY])
    assert (message.text, message.entities) == (f"{LONG}Bold.", [])


async def test_the_question_is_deleted_before_it_is_answered(stage: BotHarness) -> None:
    more = asyncio.Event()
    stage.first.script(gate(more, then=answer(FIRST)))
    question = stage.says("/ask Are you there?", -100, user_id=PERSON)
    await stage.first.arrival(1)
    question.deleted = True
    more.set()
    message = await stage.answer(-100, after=question.id)
    assert (message.text, message.reply_to) == (FIRST, None)


@pytest.mark.parametrize("executed", [True, False], ids=["after it was done", "before it was done"])
async def test_the_connection_breaks_on_a_send(stage: BotHarness, *, executed: bool) -> None:
    """Nobody can tell whether it was done: it is tried once more, and no more than that."""
    stage.telegram.drop("sendMessage", executed=executed)
    stage.says("Are you there?")
    await stage.until(lambda: len(stage.telegram.calls_of("sendMessage")) == 2)
    await stage.quiet(0.2)
    assert stage.chat().texts() == [FIRST] * (2 if executed else 1)


async def test_the_answer_to_a_send_makes_no_sense(stage: BotHarness) -> None:
    """It was done, so it is not done again."""
    stage.telegram.garble("sendMessage", body='{"ok": true, "result": {"message_id": 2}}')
    stage.says("Are you there?")
    await stage.until(lambda: stage.chat().texts())
    await stage.quiet(0.3)
    assert stage.chat().texts() == [FIRST]


async def test_typing_that_fails_disturbs_nobody(stage: BotHarness) -> None:
    stage.telegram.fail("sendChatAction", 100, status=429, description="Too Many Requests: retry after 1")
    stage.telegram.fail("answerCallbackQuery", 100, status=400, description="Bad Request: query is too old")
    message, _ = await growing(stage)
    stage.presses(message, STOP)
    await stage.until(lambda: RETRY in message.labels)
    assert message.text == f"{LONG.strip()}\n\nStopped."
