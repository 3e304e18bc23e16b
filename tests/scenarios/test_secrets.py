"""Secrets in a provider's words: no chat, log, table or page shows them."""

import asyncio

import pytest

from tests.support.bot_harness import ADMIN, KEYS, SECOND, BotHarness
from tests.support.fake_llm.behaviours import answer, status
from tests.support.fake_telegram.server import TOKEN
from tests.support.processes.redis_server import free_port
from tests.support.web_client import WebClient

WEB_TOKEN = "a-long-random-word-of-the-operator"
KEY = KEYS["A_API_KEY"]


def shown(stage: BotHarness) -> str:
    """Everything that the bot has sent to Telegram."""
    return "\n".join(str(call.params) for call in stage.telegram.calls)


@pytest.mark.parametrize(
    "error",
    [
        {"message": "unauthorized", "code": KEY},
        {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"},
        {"message": "Incorrect API key provided: sk-lo***789", "type": KEY[:20]},
        {"message": f"blocked by the filter of {KEY}", "code": "content_filter"},
    ],
    ids=["code", "message", "shortened", "filter"],
)
@pytest.mark.parametrize("code", [400, 401, 500])
async def test_a_key_in_an_error_reaches_no_chat(empty_stage: BotHarness, error: dict[str, str], code: int) -> None:
    stage = empty_stage
    port = free_port()
    await stage.start(WEB_PORT=str(port), WEB_TOKEN=WEB_TOKEN)
    client = WebClient(port, WEB_TOKEN)
    stage.first.default = status(code, {"error": error})
    await stage.asks("Are you there?")
    for command in ("/provider", "/provider test a"):
        question = stage.says(command, ADMIN)
        await stage.reply(ADMIN, after=question.id)
    pages = [(await client.get(path)).text for path in ("/llm/status", "/metrics")]
    for place in (shown(stage), stage.log, *pages):
        for part in (KEY, KEY[:12], "sk-lo***", "***789"):
            assert part not in place


async def test_an_answer_that_holds_a_configured_secret_is_masked(stage: BotHarness) -> None:
    """Its entities go with it, since their places no longer hold."""
    stage.first.default = answer(f"**The key** is {KEY}, the token {TOKEN}, and `code` is code.")
    assert (await stage.asks("Say it")).text == "The key is ***, the token ***, and code is code."
    assert KEY not in shown(stage)
    assert stage.events("secret.masked")
    stage.first.default = answer(pieces=["A line of an answer.\n\n" * 1500, f"It ends in {KEY}."])
    stage.says("Say a lot")
    await stage.until(lambda: stage.telegram.calls_of("sendDocument"))
    document = str(stage.telegram.calls_of("sendDocument")[-1].params)
    assert KEY not in document
    masked = {each["method"] for each in stage.events("secret.masked")}
    assert "sendDocument" in masked
    assert masked <= {"sendMessage", "editMessageText", "sendDocument"}
    stage.first.default = answer("A password such as hunter2 or sk-someone-elses-key stays in a conversation.")
    assert "sk-someone-elses-key" in (await stage.asks("And now?")).text
    await asyncio.sleep(0)
    assert SECOND not in shown(stage)
