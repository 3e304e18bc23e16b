"""The log contains no message text, no token and no key: every scenario is checked; these are the likely leaks."""

import logging

import pytest

from services.chat.store.turns import TurnStore
from tests.support.bot_harness import KEYS, PERSON, SECOND, BotHarness
from tests.support.fake_llm.server import status

SECRET_TALK = "My cat is called Schnurrdiburr."


async def test_log_hides_a_prompt_quoted_by_a_provider(stage: BotHarness) -> None:
    body = {"error": {"message": f"cannot parse: {SECRET_TALK}", "type": "server_error", "code": None}}
    stage.first.default = status(503, body)
    assert (await stage.asks(SECRET_TALK)).text == SECOND
    stage.first.default = status(400, body)
    stage.says("/provider reset a", 1000)
    await stage.reply(1000)
    await stage.asks(SECRET_TALK)
    assert stage.events("provider.failed")
    assert "Schnurrdiburr" not in stage.log


async def test_log_hides_a_key_quoted_by_a_provider(stage: BotHarness) -> None:
    message = f"Incorrect API key provided: {KEYS['A_API_KEY']}"
    stage.first.default = status(401, {"error": {"message": message, "type": "auth", "code": "invalid_api_key"}})
    assert (await stage.asks(SECRET_TALK)).text == SECOND
    await stage.until(lambda: stage.chat(1000).texts())
    assert "sk-loopback" not in stage.log
    assert "sk-loopback" not in "".join(stage.chat(1000).texts())


@pytest.mark.usefixtures("short_retries")
async def test_log_has_the_traceback_of_a_failed_handler(stage: BotHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without message texts; the user is told."""

    async def broken(*_: object) -> None:
        raise ValueError("out of tune")

    monkeypatch.setattr(TurnStore, "start_new", broken)
    stage.says("/new", extra={"quote": {"text": SECRET_TALK, "position": 0}})
    assert (await stage.reply()).text == (
        "Something went wrong on our side. The error has been logged. Please try again."
    )
    failures = stage.events("inbox.job_failed")
    assert "out of tune" in failures[0]["exception"]
    assert "Schnurrdiburr" not in stage.log


async def test_log_hides_the_token_in_library_warnings(stage: BotHarness) -> None:
    """The token is part of every URL."""
    stage.telegram.drop("getUpdates", executed=False)
    await stage.asks(SECRET_TALK)
    stage.telegram.drop("sendMessage", 2, executed=False)
    stage.says(SECRET_TALK)
    await stage.until(lambda: stage.events("delivery.lost"))
    logging.getLogger("aiogram").warning("aiogram warns")
    assert "loopback-token" not in stage.log


async def test_log_names_provider_phase_and_conversation(stage: BotHarness) -> None:
    stage.first.default = status(503)
    await stage.asks(SECRET_TALK)
    ended = stage.events("turn.ended")[0]
    assert (ended["conversation"], ended["phase"], ended["provider"]) == (f"telegram:{PERSON}:0", "complete", "b")
    assert {entry["provider"] for entry in stage.events("provider.failed")} == {"a"}
    assert stage.events("provider.switched")[0]["after"] == "b"
