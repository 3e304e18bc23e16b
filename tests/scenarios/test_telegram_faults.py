"""Failures of Telegram: no answer is lost."""

import asyncio

import pytest

from tests.support.bot_harness import FIRST, LONG, PERSON, RETRY, STOP, BotHarness
from tests.support.fake_llm.server import Answer, answer, gate
from tests.support.fake_telegram.chats import Message

WHOLE = f"{LONG}And the end."


def held(event: asyncio.Event) -> Answer:
    """An answer whose beginning is shown and whose rest is released by the test."""
    behaviour = gate(event, after_pieces=1, then=answer(pieces=[LONG, "And the end."]))
    assert isinstance(behaviour, Answer)
    return behaviour


async def growing(stage: BotHarness) -> tuple[Message, asyncio.Event]:
    """An answer in progress, and the event that releases its rest."""
    more = asyncio.Event()
    stage.first.script(held(more))
    stage.says("Tell me something long.")
    return await stage.growing(), more


@pytest.mark.parametrize(
    ("status", "description"),
    [
        (500, "Internal Server Error"),
        (502, "Bad Gateway"),
        # Too many messages to this chat: accepted a second later.
        (429, "Too Many Requests: retry after 1"),
    ],
)
async def test_failed_send_is_retried(stage: BotHarness, status: int, description: str) -> None:
    """The answer appears once."""
    stage.telegram.fail("sendMessage", 1, status=status, description=description,
                        retry_after=1 if status == 429 else None)  # fmt: skip
    assert (await stage.asks("Are you there?")).text == FIRST
    assert len(stage.chat().answers()) == 1


async def test_final_edit_waits_for_flood_control(stage: BotHarness) -> None:
    message, more = await growing(stage)
    stage.telegram.fail("editMessageText", 1, status=429, description="Too Many Requests: retry after 1", retry_after=1)
    more.set()
    await stage.until(lambda: message.labels[:1] == [RETRY])
    assert message.text == WHOLE
    assert len(stage.chat().answers()) == 1, "a new message because an edit met a flood makes the flood worse"


async def test_failed_final_edit_is_retried(stage: BotHarness) -> None:
    message, more = await growing(stage)
    stage.telegram.fail("editMessageText", 1, status=500)
    more.set()
    await stage.until(lambda: message.labels[:1] == [RETRY])
    assert message.text == WHOLE


async def test_unchanged_edit_is_no_failure(stage: BotHarness) -> None:
    """Telegram reports it as an error."""
    message, more = await growing(stage)
    stage.telegram.fail("editMessageText", 1, status=400, description="Bad Request: message is not modified")
    more.set()
    await stage.until(lambda: stage.events("turn.ended"))
    assert (await stage.asks("And now?")).text == FIRST
    assert not stage.events("delivery.lost")
    assert message.text.startswith(LONG.strip())


async def test_deleted_message_is_replaced(stage: BotHarness) -> None:
    """The whole answer is sent as a new message."""
    message, more = await growing(stage)
    message.deleted = True
    more.set()
    again = await stage.answer(after=message.id)
    assert (again.text, again.labels[:1]) == (WHOLE, [RETRY])


async def test_blocked_bot_gives_up(stage: BotHarness) -> None:
    """It is logged once and not as an error."""
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


async def test_rejected_entities_are_omitted(stage: BotHarness) -> None:
    """The same text is sent plain."""
    stage.first.default = answer("This is **bold**.")
    stage.telegram.fail("sendMessage", status=400, description="Bad Request: can't parse entities: unsupported")
    message = await stage.asks("Say it loud.")
    assert (message.text, message.entities) == ("This is bold.", [])


async def test_rejected_entities_of_the_final_edit_are_omitted(stage: BotHarness) -> None:
    more = asyncio.Event()
    behaviour = gate(more, after_pieces=1, then=answer(pieces=[LONG, "**Bold**."]))
    stage.first.script(behaviour)
    stage.says("Tell me something long.")
    message = await stage.growing()
    stage.telegram.fail("editMessageText", status=400, description="Bad Request: can't parse entities: unsupported")
    more.set()
    await stage.until(lambda: message.labels[:1] == [RETRY])
    assert (message.text, message.entities) == (f"{LONG}Bold.", [])


async def test_deleted_question_is_answered_without_reply(stage: BotHarness) -> None:
    more = asyncio.Event()
    stage.first.script(gate(more, then=answer(FIRST)))
    question = stage.says("/ask Are you there?", -100, user_id=PERSON)
    await stage.first.arrival(1)
    question.deleted = True
    more.set()
    message = await stage.answer(-100, after=question.id)
    assert (message.text, message.reply_to) == (FIRST, None)


@pytest.mark.parametrize("executed", [True, False], ids=["after it was done", "before it was done"])
async def test_send_with_unknown_result_is_repeated_once(stage: BotHarness, *, executed: bool) -> None:
    stage.telegram.drop("sendMessage", executed=executed)
    stage.says("Are you there?")
    await stage.until(lambda: len(stage.telegram.calls_of("sendMessage")) == 2)
    await stage.quiet(0.2)
    assert stage.chat().texts() == [FIRST] * (2 if executed else 1)


async def test_send_with_undecodable_response_is_not_repeated(stage: BotHarness) -> None:
    """It was carried out."""
    stage.telegram.garble("sendMessage", body='{"ok": true, "result": {"message_id": 2}}')
    stage.says("Are you there?")
    await stage.until(lambda: stage.chat().texts())
    await stage.quiet(0.3)
    assert stage.chat().texts() == [FIRST]


async def test_failed_typing_indicator_is_ignored(stage: BotHarness) -> None:
    stage.telegram.fail("sendChatAction", 100, status=429, description="Too Many Requests: retry after 1")
    stage.telegram.fail("answerCallbackQuery", 100, status=400, description="Bad Request: query is too old")
    message, _ = await growing(stage)
    stage.presses(message, STOP)
    await stage.until(lambda: RETRY in message.labels)
    assert message.text == f"{LONG.strip()}\n\nStopped."
