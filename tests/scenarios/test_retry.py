"""Retry and Retry elsewhere."""

import asyncio

from tests.support.bot_harness import ELSEWHERE, FIRST, RETRY, SECOND, BotHarness, told
from tests.support.fake_llm.server import answer, gate, status


async def test_retry_asks_the_same_message(stage: BotHarness) -> None:
    stage.first.script(answer("My first thought."), answer("My second thought."))
    message = await stage.asks("What do you think?")
    query = stage.presses(message, RETRY)
    again = await stage.answer(after=message.id)
    assert again.text == "My second thought."
    assert await stage.toast(query) == ""
    assert told(stage.first.requests[1]) == [("user", "What do you think?")], "the first thought would colour the next"
    assert not message.buttons


async def test_retry_replaces_the_answer_in_the_history(stage: BotHarness) -> None:
    stage.first.script(answer("My first thought."), answer("My second thought."))
    message = await stage.asks("What do you think?")
    stage.presses(message, RETRY)
    await stage.answer(after=message.id)
    await stage.asks("Why?")
    assert told(stage.first.requests[2]) == [
        ("user", "What do you think?"),
        ("assistant", "My second thought."),
        ("user", "Why?"),
    ]


async def test_retry_elsewhere_offers_the_providers(stage: BotHarness) -> None:
    message = await stage.asks("What do you think?")
    query = stage.presses(message, ELSEWHERE)
    await stage.until(lambda: message.labels == ["a", "b", "Back"])
    assert await stage.toast(query) == "Which provider should try?"
    stage.presses(message, "b")
    assert (await stage.answer(after=message.id)).text == SECOND
    assert message.text == FIRST
    assert not message.buttons
    assert (await stage.asks("And now?")).text == FIRST, "it was for this answer only"


async def test_retry_elsewhere_can_be_cancelled(stage: BotHarness) -> None:
    message = await stage.asks("What do you think?")
    stage.presses(message, ELSEWHERE)
    await stage.until(lambda: "Back" in message.labels)
    stage.presses(message, "Back")
    await stage.until(lambda: message.labels == [RETRY, ELSEWHERE])


async def test_retry_elsewhere_needs_a_second_provider(empty_stage: BotHarness) -> None:
    await empty_stage.start(AVAILABLE_PROVIDERS='{"a": ["m"]}')
    assert (await empty_stage.asks("What do you think?")).labels == [RETRY]


async def test_retry_elsewhere_falls_back(stage: BotHarness) -> None:
    stage.second.default = status(503)
    message = await stage.asks("What do you think?")
    stage.presses(message, ELSEWHERE)
    await stage.until(lambda: "b" in message.labels)
    stage.presses(message, "b")
    assert (await stage.answer(after=message.id)).text == FIRST
    assert len(stage.second.requests) >= 1


async def test_retry_is_limited_to_the_latest_answer(stage: BotHarness) -> None:
    old = await stage.asks("What do you think?")
    await stage.asks("And now?")
    query = stage.presses(old, RETRY)
    assert await stage.toast(query) == "Only the latest answer can be retried."
    assert len(stage.first.requests) == 2
    assert old.labels == [RETRY, ELSEWHERE]


async def test_retry_is_refused_after_new(stage: BotHarness) -> None:
    old = await stage.asks("What do you think?")
    stage.says("/new")
    await stage.reply()
    query = stage.presses(old, RETRY)
    assert await stage.toast(query) == "Only the latest answer can be retried."


async def test_retry_is_refused_from_another_chat(stage: BotHarness) -> None:
    """A client can send any callback data."""
    message = await stage.asks("What do you think?")
    stage.says("Hello", 8)
    other = await stage.answer(8)
    other.markup = message.markup
    for button in (RETRY, ELSEWHERE):
        query = stage.presses(other, button, 8)
        assert await stage.toast(query) == "This answer can no longer be retried."
    assert len(stage.first.requests) == 2


async def test_a_second_press_before_the_buttons_are_gone(stage: BotHarness) -> None:
    """It is one wish, and gets one answer."""
    message = await stage.asks("What do you think?")
    markup = message.markup
    gone = stage.telegram.hold("editMessageReplyMarkup")
    stage.presses(message, RETRY)
    stage.presses(message, RETRY)
    await stage.answer(after=message.id)
    gone.end()
    await stage.quiet()
    assert message.markup != markup
    assert len(stage.first.requests) == 2
    assert len(stage.chat().answers()) == 2


async def test_retry_during_the_next_answer_is_refused(stage: BotHarness) -> None:
    message = await stage.asks("What do you think?")
    more = asyncio.Event()
    stage.first.script(gate(more, then=answer("Later.")))
    stage.says("And now?")
    await stage.first.arrival(2)
    query = stage.presses(message, RETRY)
    assert await stage.toast(query) == "Only the latest answer can be retried."
    more.set()
    assert (await stage.answer()).text == "Later."
    assert len(stage.first.requests) == 2


async def test_retry_can_be_repeated_after_a_failure(stage: BotHarness) -> None:
    """The question appears once in the history."""
    message = await stage.asks("What do you think?")
    stage.first.default = stage.second.default = status(400)
    stage.presses(message, RETRY)
    failed = await stage.answer(after=message.id)
    assert failed.text.startswith("The AI providers rejected this request")
    stage.first.default = answer(FIRST)
    stage.presses(failed, RETRY)
    again = await stage.answer(after=failed.id)
    assert again.text == FIRST
    assert told(stage.first.requests[-1]) == [("user", "What do you think?")]
    await stage.asks("Why?")
    assert told(stage.first.requests[-1]) == [("user", "What do you think?"), ("assistant", FIRST), ("user", "Why?")]
