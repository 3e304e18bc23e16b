"""Polling with odd and failing responses of Telegram."""

import pytest

from tests.support.bot_harness import FIRST, GROUP, PERSON, BotHarness

NONSENSE = {
    "message": {"message_id": "not a number", "chat": 5},
    "callback_query": {"id": 1},
    "my_chat_member": ["not", "an", "object"],
}


async def test_polling_skips_unreadable_updates(stage: BotHarness) -> None:
    """They are logged and confirmed."""
    stage.telegram.push_update(message=NONSENSE["message"])
    stage.says("Are you there?")
    for kind in ("callback_query", "my_chat_member"):
        stage.telegram.push_update(**{kind: NONSENSE[kind]})
    await stage.until(lambda: stage.chat().texts() == [FIRST] and not stage.telegram.pending)
    assert (await stage.asks("And now?")).text == FIRST
    assert [entry["kinds"] for entry in stage.events("update.unreadable")] == [[kind] for kind in NONSENSE]


@pytest.mark.parametrize("oddity", [{"external_reply": {"origin": {"type": "oracle"}}}, {"poll": {"question": 5}}])
async def test_polling_answers_a_message_with_an_unreadable_field(stage: BotHarness, oddity: dict[str, object]) -> None:
    """Its text is readable."""
    stage.says("Are you there?", extra=oddity)
    assert (await stage.answer()).text == FIRST
    assert stage.events("update.unreadable")


async def test_polling_answers_partly_readable_group_messages_for_the_bot(stage: BotHarness) -> None:
    oddity = {"poll": {"question": 5}}
    stage.says("Talking to each other", GROUP, user_id=PERSON, extra=oddity)
    stage.says("@understudy_bot are you there?", GROUP, user_id=PERSON, extra=oddity)
    assert (await stage.answer(GROUP)).text == FIRST
    assert len(stage.chat(GROUP).answers()) == 1


@pytest.mark.parametrize(
    ("status", "description", "retry_after"),
    [
        (502, "Bad Gateway", None),
        (500, "Internal Server Error", None),
        (429, "Too Many Requests: retry after 1", 1),
    ],
)
async def test_polling_continues_after_an_error(
    stage: BotHarness, status: int, description: str, retry_after: int | None
) -> None:
    await stage.asks("Are you there?")
    fault = stage.telegram.fail("getUpdates", 1, status=status, description=description, retry_after=retry_after)
    await stage.asks("And now?")
    stage.says("Still?")
    await stage.until(lambda: len(stage.chat().texts()) == 3)
    assert fault.times == 0


async def test_polling_continues_after_an_undecodable_response(stage: BotHarness) -> None:
    """A proxy's page instead of updates; they arrive with the next poll."""
    stage.telegram.garble("getUpdates")
    await stage.asks("Are you there?")
    await stage.asks("And now?")
    assert len(stage.chat().answers()) == 2


async def test_polling_survives_a_short_conflict(stage: BotHarness) -> None:
    """As in a rolling restart."""
    stage.telegram.second_poller()
    stage.says("Are you there?")
    await stage.until(lambda: stage.events("polling.conflict"))
    assert stage.task is not None
    assert not stage.task.done()


async def test_polling_removes_a_leftover_webhook(empty_stage: BotHarness) -> None:
    """Telegram rejects polling while one is set."""
    empty_stage.telegram.webhook = {"url": "https://elsewhere.example"}
    await empty_stage.start()
    assert (await empty_stage.asks("Are you there?")).text == FIRST
