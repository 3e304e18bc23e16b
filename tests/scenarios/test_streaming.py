"""Streaming of an answer, and Stop."""

import asyncio
import gc
import inspect
from itertools import pairwise

from aiogram.types import Update

from tests.support.bot_harness import ELSEWHERE, LONG, RETRY, STOP, BotHarness, told
from tests.support.fake_llm.server import Answer, answer, cut, gate, stall

PIECES = (LONG, "More of it. ", "And the end.")
WHOLE = "".join(PIECES)


def held(event: asyncio.Event) -> Answer:
    """An answer whose first chunk is long enough to be shown and whose rest is released by the test."""
    behaviour = gate(event, after_pieces=1, then=answer(pieces=PIECES))
    assert isinstance(behaviour, Answer)
    return behaviour


async def test_answer_streams_with_stop_and_ends_with_retry(stage: BotHarness) -> None:
    """One message: sent once, then edited."""
    more = asyncio.Event()
    stage.first.default = held(more)
    stage.says("Tell me something long.")
    growing = await stage.growing()
    assert growing.text == LONG.strip()
    assert stage.chat().actions[0][1] == "typing"
    more.set()
    message = await stage.answer()
    assert message.id == growing.id
    assert (message.text, message.labels) == (WHOLE, [RETRY, ELSEWHERE])
    assert len(stage.telegram.calls_of("sendMessage", 7)) == 1
    assert [edit.text for edit in message.edits] == [LONG.strip(), WHOLE]


async def test_no_update_is_held_while_its_answer_is_written(stage: BotHarness) -> None:
    """It would be a tenth of a turn's memory, with the frames of the dispatcher that hold it."""
    more = asyncio.Event()
    stage.first.default = held(more)
    stage.says("Tell me something long.")
    await stage.growing()
    waiting = [each for each in gc.get_objects() if inspect.iscoroutine(each) and each.cr_frame is not None]
    assert any(each.__qualname__ == "Responder.answer" for each in waiting)
    holding = [each for each in waiting if any(isinstance(value, Update) for value in each.cr_frame.f_locals.values())]
    assert [each.__qualname__ for each in holding] == []
    more.set()
    await stage.answer()


async def test_edits_are_rate_limited(stage: BotHarness) -> None:
    """At most one per second in a private chat, and the final text."""
    stage.first.default = answer(LONG * 8, pause_s=0.015)
    message = await stage.asks("Tell me something long.")
    assert message.text == (LONG * 8).strip()
    times = [edit.at for edit in message.edits]
    assert len(times) > 2
    assert all(later - earlier > 0.95 for earlier, later in pairwise(times[:-1]))


async def test_stream_mode_off_sends_the_answer_once(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(STREAM_MODE="off")
    more = asyncio.Event()
    stage.first.default = held(more)
    stage.says("Tell me something long.")
    await stage.first.arrival(1)
    await stage.quiet()
    assert not stage.chat().answers()
    more.set()
    assert len((await stage.answer()).edits) == 1


async def test_stream_mode_draft_shows_drafts(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(STREAM_MODE="draft")
    more = asyncio.Event()
    stage.first.default = held(more)
    stage.says("Tell me something long.")
    drafts = await stage.until(lambda: stage.chat().drafts)
    assert drafts[0].text == LONG.strip()
    more.set()
    assert (await stage.answer()).text == WHOLE
    assert len(stage.chat().answers()) == 1


async def test_stop_button_of_a_draft(empty_stage: BotHarness) -> None:
    """Telegram's own button; its update names only the chat."""
    stage = empty_stage
    await stage.start(STREAM_MODE="draft")
    stage.first.default = held(asyncio.Event())
    stage.says("Tell me something long.")
    await stage.until(lambda: stage.chat().drafts)
    stage.telegram.stops_draft(7)
    assert (await stage.answer()).text == f"{LONG.strip()}\n\nStopped."


async def test_stop_button_keeps_the_text(stage: BotHarness) -> None:
    """The text so far stays, marked; the provider's stream is closed; the history has the partial answer."""
    stage.first.default = held(asyncio.Event())
    stage.says("Tell me something long.")
    query = stage.presses(await stage.growing(), STOP)
    message = await stage.answer()
    assert await stage.toast(query) == "Stopping."
    assert (message.text, message.labels) == (f"{LONG.strip()}\n\nStopped.", [RETRY, ELSEWHERE])
    await asyncio.wait_for(stage.first.requests[0].abandoned.wait(), 2)
    stage.first.default = answer("As you like.")
    await stage.asks("Shorter, please.")
    assert told(stage.first.requests[-1]) == [
        ("user", "Tell me something long."),
        ("assistant", LONG),
        ("user", "Shorter, please."),
    ]
    assert not stage.events("provider.failed")


async def test_stop_command_does_not_wait_behind_the_answer(stage: BotHarness) -> None:
    stage.first.default = held(asyncio.Event())
    question = stage.says("Tell me something long.")
    growing = await stage.growing()
    stage.says("/stop")
    message = await stage.answer(after=question.id)
    assert message.id == growing.id
    assert message.text == f"{LONG.strip()}\n\nStopped."
    await asyncio.wait_for(stage.first.requests[0].abandoned.wait(), 2)
    assert stage.chat().texts() == [message.text], "the stopped answer says enough"


async def test_stop_before_the_first_output(stage: BotHarness) -> None:
    """There is no text to keep: the chat shows that it was stopped, with Retry."""
    stage.first.default = gate(asyncio.Event(), then=answer())
    question = stage.says("Tell me something long.")
    await stage.first.arrival(1)
    stage.says("/stop")
    message = await stage.answer(after=question.id)
    assert (message.text, message.labels) == ("Stopped.", [RETRY, ELSEWHERE])
    await asyncio.wait_for(stage.first.requests[0].abandoned.wait(), 2)


async def test_stop_without_an_answer_is_reported(stage: BotHarness) -> None:
    stage.says("/stop")
    assert (await stage.reply()).text == "There is no answer to stop."


async def test_stop_button_of_a_finished_answer_stops_nothing(stage: BotHarness) -> None:
    """It may be visible for a moment longer."""
    more = asyncio.Event()
    stage.first.script(held(more), held(asyncio.Event()))
    stage.says("Tell me something long.")
    growing = await stage.growing()
    button = growing.buttons[0]["callback_data"]
    more.set()
    done = await stage.answer()
    stage.says("Something else.")
    other = await stage.growing()
    assert other.buttons[0]["callback_data"] != button
    done.markup = {"inline_keyboard": [[{"text": STOP, "callback_data": button}]]}
    query = stage.presses(done, STOP)
    assert (await stage.toast(query)).startswith("There is no answer to stop")
    await stage.quiet()
    assert other.labels == [STOP]


async def test_stalled_answer_is_kept_and_marked(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(A_STALL_TIMEOUT="0.4")
    stage.first.default = stall(after_pieces=3)
    message = await stage.asks("Are you there?")
    assert message.text == "The audience hears\n\nThe answer was interrupted."
    assert message.labels == [RETRY, ELSEWHERE]
    await asyncio.wait_for(stage.first.requests[0].abandoned.wait(), 2)


async def test_retry_of_an_interrupted_answer_uses_a_new_message(stage: BotHarness) -> None:
    stage.first.script(cut(after_pieces=3))
    broken = await stage.asks("Are you there?")
    stage.presses(broken, RETRY)
    again = await stage.answer(after=broken.id)
    assert again.text == "This is what the second provider says."
    assert told(stage.second.requests[-1]) == [("user", "Are you there?")]
    assert broken.text.startswith("The audience hears")
    assert not broken.buttons
