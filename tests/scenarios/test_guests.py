"""Guest mode: mentions in chats that the bot is not in."""

import json

from tests.support.bot_harness import FIRST, PERSON, BotHarness, instructions, told
from tests.support.fake_llm.server import status

CHAT = {"id": -777, "type": "supergroup", "title": "Elsewhere"}
ANN = {"id": PERSON, "is_bot": False, "first_name": "Ann", "language_code": "en"}


def mentioned(stage: BotHarness, text: str, number: int = 1, **fields: object) -> None:
    """Someone mentions the bot in a chat that it is not in."""
    name = "@understudy_bot"
    message = {
        "message_id": number, "date": int(stage.telegram._clock.time()), "chat": CHAT, "from": ANN,
        "text": f"{name} {text}", "entities": [{"type": "mention", "offset": 0, "length": len(name)}],
        "guest_query_id": f"q{number}", **fields,
    }  # fmt: skip
    stage.telegram.push_update(guest_message=message)


async def test_mention_elsewhere_gets_a_placeholder_that_becomes_the_answer(stage: BotHarness) -> None:
    await stage.asks("My name is a secret: Bond.")
    mentioned(stage, "Which tea is green?")
    (edit,) = await stage.until(
        lambda: [call for call in stage.telegram.calls_of("editMessageText") if "inline_message_id" in call.params]
    )
    assert (edit.params["inline_message_id"], edit.params["text"]) == ("inline-q1", FIRST)
    (placeholder,) = stage.telegram.calls_of("answerGuestQuery")
    article = json.loads(placeholder.params["result"])
    assert article["input_message_content"]["message_text"] == "One moment, I am writing an answer."
    # Strangers read the answer: nothing of the private chat is in the request, and nothing is kept of it.
    assert told(stage.first.requests[-1]) == [("user", "Ann: Which tea is green?")]
    assert "you are a guest" in instructions(stage.first.requests[-1])
    await stage.asks("And now?")
    assert ("user", "Ann: Which tea is green?") not in told(stage.first.requests[-1])


async def test_mention_over_a_limit_gets_no_answer_and_no_request(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(LIMIT_MESSAGES_PER_MINUTE="1", BUDGET_USER_DAY="0")
    mentioned(stage, "One?")
    mentioned(stage, "Two?", 2)
    await stage.until(lambda: stage.events("guest.not_admitted"))
    await stage.quiet()
    assert not stage.telegram.calls_of("answerGuestQuery")
    assert not stage.first.requests


async def test_mention_while_no_provider_answers(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(A_RETRIES="0", B_RETRIES="0")
    stage.first.default = stage.second.default = status(503)
    mentioned(stage, "Which tea is green?")
    (edit,) = await stage.until(lambda: stage.telegram.calls_of("editMessageText"))
    assert edit.params["text"].startswith("All AI providers are unavailable")
