"""One conversation in order, conversations side by side."""

import asyncio

from tests.support.bot_harness import FIRST, GROUP, BotHarness, told
from tests.support.fake_llm.server import answer, gate


async def test_messages_sent_at_once_are_answered_in_order(stage: BotHarness) -> None:
    """Each with what was said before it."""
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


async def test_twenty_wait_and_the_next_is_told_so(stage: BotHarness) -> None:
    """One is being answered, twenty wait: the twenty-second is not taken. Another chat is not concerned."""
    more = asyncio.Event()
    stage.first.script(gate(more, then=answer("At last.")))
    for number in range(22):
        last = stage.says(f"Number {number}.")
    told_so = await stage.reply()
    assert told_so.text.startswith("Too many messages are waiting")
    assert len(stage.chat().answers()) == 1
    assert (await stage.asks("And me?", 8)).text == FIRST
    more.set()
    await stage.until(lambda: len(stage.chat().answers()) == 22)
    heard = [told(request)[-1][1] for request in stage.first.requests]
    assert last.text not in heard
    assert [text for text in heard if text != "And me?"] == [f"Number {number}." for number in range(21)]
    assert (await stage.asks(last.text)).text == FIRST, "there is room again"


async def test_in_a_group_who_is_told_so_sees_which_message_it_was(stage: BotHarness) -> None:
    more = asyncio.Event()
    stage.first.script(gate(more, then=answer("At last.")))
    messages = [stage.says(f"/ask Number {number}.", GROUP, user_id=7) for number in range(22)]
    assert (await stage.reply(GROUP)).reply_to == messages[-1].id
    more.set()


async def test_conversations_run_side_by_side(stage: BotHarness) -> None:
    """Nobody waits for anybody else: no answer comes before all twelve questions are with the provider."""
    all_there = asyncio.Event()
    people = range(7, 19)
    stage.first.default = gate(all_there, then=answer("To you."))
    for person in people:
        stage.says("Hello", person)
    await stage.first.arrival(len(people))
    all_there.set()
    for person in people:
        assert (await stage.answer(person)).text == "To you."


async def test_what_is_said_while_an_answer_is_made_waits_for_it(stage: BotHarness) -> None:
    more = asyncio.Event()
    stage.first.script(gate(more, then=answer("One.")), answer("Two."))
    stage.says("First question")
    await stage.first.arrival(1)
    stage.says("Second question")
    await stage.quiet(0.2)
    assert len(stage.first.requests) == 1
    more.set()
    await stage.until(lambda: stage.chat().texts() == ["One.", "Two."])


async def test_an_edited_message_is_no_new_one(stage: BotHarness) -> None:
    question = stage.says("What is that?")
    await stage.answer()
    stage.telegram.user_edits(question, "What is this?")
    await stage.asks("And that?")
    assert len(stage.chat().answers()) == 2
