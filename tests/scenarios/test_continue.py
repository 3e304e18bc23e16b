"""An answer that was cut at its length limit can be continued."""

from tests.support.bot_harness import ELSEWHERE, RETRY, BotHarness, told
from tests.support.fake_llm.server import answer


async def test_cut_answer_is_marked_and_continued(stage: BotHarness) -> None:
    """The press asks for the rest in a turn of its own; a whole answer has no such button."""
    stage.first.script(answer("One, two,", finish="length"), answer("three."))
    message = await stage.asks("Count.")
    assert message.text == "One, two,\n\nThe answer was cut at its length limit."
    assert message.labels == ["Continue", RETRY, ELSEWHERE]

    stage.presses(message, "Continue")
    rest = await stage.answer(after=message.id)

    assert (rest.text, rest.labels) == ("three.", [RETRY, ELSEWHERE])
    assert not message.buttons
    assert message.text.startswith("One, two,")
    asked = told(stage.first.requests[1])
    assert asked[:2] == [("user", "Count."), ("assistant", "One, two,")]
    assert asked[2][1].startswith("Your answer was cut at its length limit.")


async def test_continue_remains_after_retry_elsewhere_and_back(stage: BotHarness) -> None:
    stage.first.script(answer("One, two,", finish="length"), answer("three."))
    message = await stage.asks("Count to three.")
    stage.presses(message, ELSEWHERE)
    await stage.until(lambda: message.labels == ["Continue", "a", "b", "Back"])
    stage.presses(message, "Back")
    await stage.until(lambda: message.labels == ["Continue", RETRY, ELSEWHERE])
    stage.presses(message, "Continue")
    assert (await stage.answer(after=message.id)).text == "three."
