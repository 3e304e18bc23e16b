"""`/usage`, and the usage of today in `/provider`."""

from functools import partial
from typing import Any

import pytest

from bot.composition import infrastructure as app
from core.db.database import FILE_NAME, Database
from tests.support.bot_harness import ADMIN, FIRST, GROUP, PERSON, STOP, BotHarness
from tests.support.fake_llm.server import answer, status
from tests.support.sqlite_file import locked_file

PRICES = {"A_PRICES": '{"m": [1000, 2000]}', "A_REMOTE": "true"}
"""1,000 USD per million tokens: 11 in and 7 out cost 2.5 cents."""


async def told(stage: BotHarness, command: str, chat_id: int = PERSON, **more: Any) -> str:
    question = stage.says(command, chat_id, **more)
    return (await stage.reply(chat_id, after=question.id)).text


async def test_usage_of_one_user(empty_stage: BotHarness) -> None:
    """Their own answers in all chats, and no others."""
    stage = empty_stage
    await stage.start(**PRICES)
    assert (await told(stage, "/usage")).splitlines() == [
        "You today: 0 answers, 0 tokens, $0",
        "You this month: 0 answers, 0 tokens, $0",
        "Days start at midnight UTC.",
    ]
    await stage.asks("Are you there?")
    await stage.asks("And I?", 8)
    assert (await told(stage, "/usage")).splitlines()[0] == "You today: one answer, 18 tokens, $0.0250"
    await stage.asks("/ask And here?", GROUP, user_id=PERSON)
    await stage.named(3)
    in_group = (await told(stage, "/usage", GROUP, user_id=PERSON)).splitlines()
    assert in_group[1] == "You this month: 2 answers, 36 tokens, $0.0500"
    assert in_group[2] == "This chat today: one answer, 36 tokens, $0.0500", "its name was not for nothing"


async def test_days_start_at_midnight_in_the_time_zone(empty_stage: BotHarness) -> None:
    """TIMEZONE applies to the texts of users and operators."""
    stage = empty_stage
    await stage.start(TIMEZONE="Asia/Tokyo")
    assert (await told(stage, "/usage")).splitlines()[-1] == "Days start at midnight JST."
    assert (await told(stage, "/usage", 8, language="ru")).splitlines()[-1] == "День начинается в полночь (JST)."
    assert "today (JST) covers all replicas" in await told(stage, "/provider", ADMIN)
    assert " JST (10m left)" in await told(stage, "/provider force b 10m", ADMIN)


async def test_usage_of_everyone_for_operators(empty_stage: BotHarness) -> None:
    """By provider with failures; in private only."""
    stage = empty_stage
    await stage.start(**PRICES, B_REMOTE="true")
    stage.first.script(answer(FIRST), status(401))
    await stage.asks("Are you there?")
    await stage.named(1)
    await stage.asks("And now?", 8)
    await stage.named(2)
    text = await told(stage, "/usage", ADMIN)
    assert text.split("\n\n")[1].splitlines() == [
        "All users today, by provider:",
        "a: 3 requests, 1 failed, 22 tokens in, 14 out, $0.0500",
        "b: 2 requests, 0 failed, 22 tokens in, 14 out, no price known",
    ]
    assert "All users" not in await told(stage, "/usage", 8)
    assert "All users" not in await told(stage, "/usage", GROUP, user_id=ADMIN)
    assert "price unknown" in await told(stage, "/usage", 8)


async def test_usage_of_a_stopped_answer_is_estimated(empty_stage: BotHarness) -> None:
    """The provider did not report its tokens."""
    stage = empty_stage
    await stage.start()
    stage.first.default = answer("word " * 100, pause_s=0.02)
    stage.says("Count!")
    message = await stage.growing()
    stage.presses(message, STOP)
    await stage.answer()
    line = (await told(stage, "/usage")).splitlines()[0]
    assert line.startswith("You today: one answer, ")
    assert line.endswith("(partly estimated)")


async def test_usage_in_the_language_of_the_user(stage: BotHarness) -> None:
    """With its plural forms."""
    for question in ("Раз?", "Два?"):
        await stage.asks(question, language="ru")
    text = await told(stage, "/usage", language="ru")
    assert text.splitlines()[0] == "Вы сегодня: 2 ответа, токенов: 36, $0"


async def test_provider_table_shows_today_after_a_restart(empty_stage: BotHarness) -> None:
    """Requests, failures and cost come from the database, so all replicas see them."""
    stage = empty_stage
    await stage.start(**PRICES)
    stage.first.script(answer(FIRST), status(401))
    await stage.asks("Are you there?")
    await stage.named(1)
    await stage.asks("And now?")
    await stage.stop()
    await stage.start()
    text = await told(stage, "/provider", ADMIN)
    first, second = text.split("\n\n")[1:3]
    assert "today: 3 requests, 1 failed, $0.0500" in first
    assert "today: 1 request, 0 failed, $0" in second


async def test_provider_table_without_database_shows_this_process(
    empty_stage: BotHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says so."""
    stage = empty_stage
    monkeypatch.setattr(app, "Database", partial(Database, busy_timeout_s=0.1))
    await stage.start()
    await stage.asks("Are you there?")
    await stage.named(1)
    async with locked_file(stage.directory / FILE_NAME) as other:
        other.execute("DROP TABLE usage_days")
    text = await told(stage, "/provider", ADMIN)
    assert "2 requests, 0 failed" in text
    assert text.endswith("requests are counted since this process started, and costs are unknown.")


async def test_budget_of_a_user(empty_stage: BotHarness) -> None:
    """One line at its end, then silence without requests; operators raise it, for others the words are their own."""
    stage = empty_stage
    await stage.start(A_PRICES='{"m": [0, 100]}', A_REMOTE="true", B_PRICES='{"n": [0, 100]}', BUDGET_USER_DAY="0.1")
    question = stage.says("Are you there?")
    told_once = await stage.reply(after=question.id)
    assert told_once.text == "Your budget for today is used up. It renews at 00:00 UTC."
    for number in range(3):
        stage.says(f"Surplus {number}")
    await stage.until(lambda: len(stage.events("turn.surplus_dropped")) == 3)
    assert (await told(stage, "/budget")).splitlines() == [
        "Your budget today: $0 used, limit: $0.1000.",
        "Budgets renew at 00:00 UTC.",
    ]
    assert stage.first.requests == stage.second.requests == []
    assert len(stage.chat().answers()) == 2
    assert "limit: $0.1000" in await told(stage, f"/budget user {PERSON} 2", PERSON), "only operators set budgets"
    assert await told(stage, f"/budget user {PERSON} x", ADMIN) == await told(stage, "/budget user", ADMIN)
    assert await told(stage, f"/budget user {PERSON} 2", ADMIN) == f"Budget of user {PERSON}: $2.00 a day."
    assert f"user:{PERSON}: $2.00" in await told(stage, "/budget", ADMIN)
    assert (await stage.asks("/ask And here?", GROUP, user_id=PERSON)).text.startswith(FIRST[:10])
