"""Storage, and its failures."""

from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest

from bot.composition import infrastructure as app
from core.db.database import FILE_NAME, Database
from core.redis.client import open_redis
from tests.support.bot_harness import ADMIN, FIRST, RETRY, SECOND, BotHarness, told
from tests.support.fake_llm.server import status
from tests.support.processes.redis_server import RedisServer
from tests.support.sqlite_file import locked_file

NOT_SAVED = "This answer could not be saved yet, so I may not remember it later."
NOT_READ = "The earlier conversation could not be loaded for this answer."


def locked(stage: BotHarness) -> AbstractAsyncContextManager[object]:
    """Another program holds the database lock."""
    return locked_file(stage.directory / FILE_NAME)


@pytest.fixture
async def hasty(short_retries: None, empty_stage: BotHarness, monkeypatch: pytest.MonkeyPatch) -> BotHarness:
    """A bot with short timeouts and few retries when its database is locked."""
    monkeypatch.setattr(app, "Database", partial(Database, busy_timeout_s=0.1))
    await empty_stage.start()
    return empty_stage


async def test_conversation_survives_a_restart(stage: BotHarness) -> None:
    """Retry works on an answer of another process."""
    message = await stage.asks("My name is Ann.")
    assert await stage.stop() == 0
    await stage.start()
    stage.presses(message, RETRY)
    await stage.answer(after=message.id)
    assert told(stage.first.requests[1]) == [("user", "My name is Ann.")]
    assert await stage.stop() == 0
    await stage.start()
    await stage.asks("What is my name?")
    assert told(stage.first.requests[2]) == [
        ("user", "My name is Ann."),
        ("assistant", FIRST),
        ("user", "What is my name?"),
    ]


async def test_messages_sent_during_downtime_are_answered(stage: BotHarness) -> None:
    await stage.asks("Are you there?")
    await stage.stop()
    stage.says("And now?")
    await stage.start()
    assert (await stage.answer()).text == FIRST
    await stage.quiet(0.2)
    assert len(stage.first.requests) == 2, "what was answered before is not answered again"


async def test_locked_database_costs_memory_not_the_answer(hasty: BotHarness) -> None:
    await hasty.asks("My name is Ann.")
    async with locked(hasty):
        hasty.says("Are you there?")
        message = await hasty.reply()
        assert message.text == f"{FIRST}\n\n{NOT_SAVED}"
        assert not message.buttons, "nobody knows any more what there would be to try again"
    assert told(hasty.first.requests[1])[0] == ("user", "My name is Ann."), "reading goes on while others write"
    assert (await hasty.asks("And now?")).text == FIRST


async def test_first_message_with_a_locked_database_is_answered(hasty: BotHarness) -> None:
    """Not even an empty conversation can be created."""
    async with locked(hasty):
        hasty.says("Are you there?")
        assert (await hasty.reply()).text == f"{FIRST}\n\n{NOT_READ}\n{NOT_SAVED}"


async def test_unsaved_turns_are_saved_later(hasty: BotHarness) -> None:
    async with locked(hasty):
        hasty.says("My name is Ann.")
        await hasty.reply()
    await hasty.asks("What is my name?")
    assert told(hasty.first.requests[-1])[0] == ("user", "My name is Ann.")


@pytest.mark.parametrize("command", ["/new"])
async def test_command_reports_a_database_failure(hasty: BotHarness, command: str) -> None:
    async with locked(hasty):
        hasty.says(command)
        assert (await hasty.reply()).text == ("The database is unavailable right now. Please try again in a moment.")
    hasty.says(command)
    assert (await hasty.reply()).text.startswith("Started a new conversation")


async def test_button_reports_a_database_failure(hasty: BotHarness) -> None:
    hasty.says("/model")
    message = await hasty.reply()
    hasty.presses(message, "b")
    await hasty.until(lambda: "n" in message.labels)
    async with locked(hasty):
        query = hasty.presses(message, "n")
        assert (await hasty.toast(query)).startswith("The database is unavailable")
        assert hasty.telegram.callback_answers[query]["show_alert"]
    assert "n" in message.labels


async def test_provider_act_reports_a_missing_audit_entry(hasty: BotHarness) -> None:
    async with locked(hasty):
        hasty.says("/provider force b", ADMIN)
        text = (await hasty.reply(ADMIN)).text
    assert text.startswith("b is asked first until ")
    assert "audit" in text


async def test_redis_outage_during_a_conversation(empty_stage: BotHarness, redis_server: RedisServer) -> None:
    """Answers use the local state, and changes are shared later."""
    stage = empty_stage
    await stage.start(REDIS_URL=redis_server.url)
    assert (await stage.asks("Are you there?")).text == FIRST
    await redis_server.stop()
    assert (await stage.asks("And now?")).text == FIRST
    stage.first.default = status(503)
    assert (await stage.asks("Still?")).text == SECOND
    asked = len(stage.first.requests)
    assert (await stage.asks("Still there?")).text == SECOND
    assert len(stage.first.requests) == asked, "the cooldown is known without Redis"
    await stage.until(lambda: len(stage.chat(ADMIN).texts()) == 1)
    stage.says("/provider", ADMIN)
    assert "Redis does not answer" in (await stage.reply(ADMIN)).text
    await redis_server.start()
    await stage.until(lambda: len(stage.events("routing.synchronised")) == 2)
    assert (await stage.asks("And again?")).text == SECOND
    client = open_redis(redis_server.url)
    fields = await client.hgetall("understudy:{llm}:routing")
    await client.aclose()
    assert any("a" in name for name in fields if "cool" in name)


async def test_start_without_redis(empty_stage: BotHarness, redis_server: RedisServer) -> None:
    await redis_server.stop()
    await empty_stage.start(REDIS_URL=redis_server.url)
    assert (await empty_stage.asks("Are you there?")).text == FIRST
    assert empty_stage.events("routing.redis_lost")


async def test_cooldown_outlives_the_process(empty_stage: BotHarness, redis_server: RedisServer) -> None:
    stage = empty_stage
    await stage.start(REDIS_URL=redis_server.url)
    stage.first.default = status(503)
    assert (await stage.asks("Are you there?")).text == SECOND
    asked = len(stage.first.requests)
    await stage.stop()
    await stage.start()
    assert (await stage.asks("And now?")).text == SECOND
    assert len(stage.first.requests) == asked
