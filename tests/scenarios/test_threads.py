"""`/threads`: earlier conversations."""

import pytest

from tests.support.bot_harness import GROUP, PERSON, BotHarness, told
from tests.support.fake_llm.server import answer
from tests.support.fake_telegram.chats import Message

BOB = 8


async def named(stage: BotHarness, name: str, text: str) -> None:
    """Start a new conversation and wait for its name."""
    stage.first.naming = answer(name)
    count = len(stage.first.names)
    stage.says("/new")
    await stage.reply()
    await stage.asks(text)
    await stage.until(lambda: len(stage.first.names) > count)
    # The name is stored a moment after the response.
    for _ in range(100):
        if any(name in label for label in (await shelf(stage)).labels):
            return
        await stage.quiet(0.02)
    pytest.fail(f"no conversation is called {name}")


async def shelf(stage: BotHarness, chat_id: int = PERSON, **more: int) -> Message:
    question = stage.says("/threads", chat_id, **more)
    return await stage.reply(chat_id, after=question.id)


async def test_threads_switch_restores_the_history(stage: BotHarness) -> None:
    await named(stage, "Peru", "Tell me of Peru.")
    await named(stage, "Bread", "Tell me of bread.")
    message = await shelf(stage)
    assert message.labels == ["• Bread", "Peru"]
    stage.presses(message, "Peru")
    await stage.until(lambda: "Continue" in message.labels)
    stage.presses(message, "Continue")
    await stage.until(lambda: message.text == "Continuing “Peru”.")
    await stage.asks("And its capital?")
    assert told(stage.first.requests[-1])[0] == ("user", "Tell me of Peru.")
    assert (await shelf(stage)).labels == ["Bread", "• Peru"]


async def test_threads_delete_asks_for_confirmation(stage: BotHarness) -> None:
    """A second press on an old message finds nothing."""
    await named(stage, "Peru", "Tell me of Peru.")
    await named(stage, "Bread", "Tell me of bread.")
    message, old = await shelf(stage), await shelf(stage)
    stage.presses(message, "Peru")
    await stage.until(lambda: "Delete" in message.labels)
    stage.presses(message, "Delete")
    await stage.until(lambda: message.text.startswith("Delete “Peru” and all its messages"))
    assert message.labels == ["Yes, delete", "Back"]
    query = stage.presses(message, "Yes, delete")
    assert await stage.toast(query) == "Deleted."
    await stage.until(lambda: message.labels == ["• Bread"])
    query = stage.presses(old, "Peru")
    assert await stage.toast(query) == "This conversation no longer exists."
    await stage.until(lambda: old.labels == ["• Bread"])


async def test_threads_rename(stage: BotHarness) -> None:
    await named(stage, "Peru", "Tell me of Peru.")
    stage.says("/threads rename Holiday plans")
    assert (await stage.reply()).text == "Renamed to “Holiday plans”."
    assert (await shelf(stage)).labels == ["• Holiday plans"]
    stage.says("/threads rename")
    assert (await stage.reply()).text == "Add the name after the command: /threads rename Holiday plans"


async def test_threads_are_paginated(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(LIMIT_MESSAGES_PER_MINUTE="0")
    for number in range(10):
        await stage.asks(f"Number {number}")
        stage.says("/new")
        await stage.reply()
    message = await shelf(stage)
    assert len(message.labels) == 8 + 1
    stage.presses(message, "Older")
    await stage.until(lambda: message.labels[-1] == "Newer")
    assert len(message.labels) == 3 + 1
    stage.presses(message, "Newer")
    await stage.until(lambda: message.labels[-1] == "Older")


async def test_group_admins_decide(stage: BotHarness) -> None:
    """A member's press changes nothing."""
    await stage.asks("/ask Tell me of Peru.", GROUP, user_id=BOB)
    message = await shelf(stage, GROUP, user_id=BOB)
    stage.presses(message, message.labels[0], BOB)
    await stage.until(lambda: "Continue" in message.labels)
    query = stage.presses(message, "Continue", BOB)
    assert await stage.toast(query) == "In a group, only admins can change its conversations."
    question = stage.says("/threads rename Mine", GROUP, user_id=BOB)
    assert (await stage.reply(GROUP, after=question.id)).text.startswith("In a group, only admins")


async def test_threads_of_an_empty_chat(stage: BotHarness) -> None:
    assert (await shelf(stage)).text == "There are no conversations here yet."
