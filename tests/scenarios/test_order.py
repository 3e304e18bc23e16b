"""Order within a conversation, concurrency between conversations."""

import asyncio

from tests.support.bot_harness import FIRST, GROUP, BotHarness, told
from tests.support.fake_llm.server import answer, gate


async def test_messages_are_answered_in_order(stage: BotHarness) -> None:
    """Each with the earlier ones in its history."""
    stage.first.script(*(answer(f"To number {number}.", delay_s=0.05 * (5 - number)) for number in range(1, 6)))
    for number in range(1, 6):
        stage.says(f"Number {number}.")
    await stage.until(lambda: len(stage.chat().answers()) == 5)
    assert stage.chat().texts() == [f"To number {number}." for number in range(1, 6)]
    assert told(stage.first.requests[4])[:3] == [
        ("user", "Number 1."),
        ("assistant", "To number 1."),
        ("user", "Number 2."),
    ]


async def test_queue_limit_declines_the_twenty_second_message(empty_stage: BotHarness) -> None:
    """One is answered, twenty wait. Other chats are not affected."""
    await empty_stage.start(LIMIT_MESSAGES_PER_MINUTE="0")
    more = asyncio.Event()
    empty_stage.first.script(gate(more, then=answer("At last.")))
    for number in range(22):
        last = empty_stage.says(f"Number {number}.")
    told_so = await empty_stage.reply()
    assert told_so.text.startswith("Too many messages are waiting")
    assert len(empty_stage.chat().answers()) == 1
    assert (await empty_stage.asks("And me?", 8)).text == FIRST
    more.set()
    await empty_stage.until(lambda: len(empty_stage.chat().answers()) == 22)
    heard = [told(request)[-1][1] for request in empty_stage.first.requests]
    assert last.text not in heard
    assert [text for text in heard if text != "And me?"] == [f"Number {number}." for number in range(21)]
    assert (await empty_stage.asks(last.text)).text == FIRST, "there is room again"


async def test_queue_limit_in_a_group_replies_to_the_message(empty_stage: BotHarness) -> None:
    await empty_stage.start(LIMIT_MESSAGES_PER_MINUTE="0")
    more = asyncio.Event()
    empty_stage.first.script(gate(more, then=answer("At last.")))
    messages = [empty_stage.says(f"/ask Number {number}.", GROUP, user_id=7) for number in range(22)]
    assert (await empty_stage.reply(GROUP)).reply_to == messages[-1].id
    more.set()


async def test_conversations_run_concurrently(stage: BotHarness) -> None:
    """All twelve requests reach the provider before the first answer."""
    all_there = asyncio.Event()
    people = range(7, 19)
    stage.first.default = gate(all_there, then=answer("To you."))
    for person in people:
        stage.says("Hello", person)
    await stage.first.arrival(len(people))
    all_there.set()
    for person in people:
        assert (await stage.answer(person)).text == "To you."


async def test_message_during_an_answer_waits(stage: BotHarness) -> None:
    more = asyncio.Event()
    stage.first.script(gate(more, then=answer("One.")), answer("Two."))
    stage.says("First question")
    await stage.first.arrival(1)
    stage.says("Second question")
    await stage.quiet(0.2)
    assert len(stage.first.requests) == 1
    more.set()
    await stage.until(lambda: stage.chat().texts() == ["One.", "Two."])


async def test_edited_message_is_not_answered_again(stage: BotHarness) -> None:
    question = stage.says("What is that?")
    await stage.answer()
    stage.telegram.user_edits(question, "What is this?")
    await stage.asks("And that?")
    assert len(stage.chat().answers()) == 2
