"""Edited questions: the latest one can be answered anew by a button under its answer."""

from tests.support.bot_harness import ELSEWHERE, FIRST, GROUP, PERSON, RETRY, BotHarness, told
from tests.support.fake_llm.server import answer

EDITED = "Answer the edit"


async def test_edited_question_is_answered_anew_by_a_button(stage: BotHarness) -> None:
    question = stage.says("Which tea is green?")
    message = await stage.answer()
    stage.telegram.user_edits(question, "Which tea is black?")
    await stage.until(lambda: message.labels == [EDITED, RETRY, ELSEWHERE])
    assert len(stage.first.requests) == 1, "an edit alone costs no request"
    stage.first.default = answer("Assam.")
    stage.presses(message, EDITED)
    anew = await stage.seen(lambda found: found.text == "Assam.", after=0)
    await stage.until(lambda: anew.labels == [RETRY, ELSEWHERE])
    assert told(stage.first.requests[-1]) == [("user", "Which tea is black?")]
    # The history has the edited question, and a Retry asks it again.
    await stage.asks("Thank you.")
    assert told(stage.first.requests[-1]) == [
        ("user", "Which tea is black?"), ("assistant", "Assam."), ("user", "Thank you."),
    ]  # fmt: skip


async def test_edit_without_a_button(stage: BotHarness) -> None:
    """Of an earlier question, of the same words, and of another's message in a group that is not for the bot."""
    first = stage.says("One.")
    message = await stage.answer()
    second = stage.says("Two.")
    latest = await stage.answer()
    stage.telegram.user_edits(first, "Three.")
    stage.telegram.user_edits(second, "Two.")
    other = stage.says("Just talk.", GROUP, user_id=PERSON)
    stage.telegram.user_edits(other, "Just a talk.")
    await stage.asks("Four.")
    assert EDITED not in [*message.labels, *latest.labels]
    assert not stage.chat(GROUP).answers()


async def test_edited_question_in_a_group_is_for_its_author(stage: BotHarness) -> None:
    question = stage.says("/ask Which tea is green?", GROUP, user_id=PERSON)
    message = await stage.answer(GROUP)
    stage.telegram.user_edits(question, "/ask Which tea is black?")
    await stage.until(lambda: EDITED in message.labels)
    assert await stage.toast(stage.presses(message, EDITED, 8)) == "Only the person who asked can retry this answer."
    stage.presses(message, EDITED, PERSON)
    await stage.until(lambda: len(stage.first.requests) == 2)
    assert told(stage.first.requests[-1]) == [("user", "Ann: Which tea is black?")]
    assert FIRST in [found.text for found in stage.chat(GROUP).answers()]
