"""Reminders and scheduled prompts of the whole bot, by commands and in words."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from core.db.database import Database
from core.db.job_tables import ScheduleRow
from tests.support.bot_harness import FIRST, BotHarness, told
from tests.support.fake_llm.server import answer, tool_call


async def make_due(database: Database) -> None:
    """Moves every entry into the past; the dispatcher looks when the bot starts."""
    async with database.session() as session:
        await session.execute(update(ScheduleRow).values(next_at=datetime.now(UTC) - timedelta(minutes=10)))


async def test_schedule_survives_a_restart_and_is_answerable(empty_stage: BotHarness) -> None:
    """A reminder that the model makes in words, and a prompt by command, both due while the bot was down."""
    stage = empty_stage
    await stage.start()
    wish = {"when": "in 2 hours", "text": "Take the cake out of the oven."}
    stage.first.script(tool_call("schedule_message", wish), answer("I will remind you."))
    await stage.asks("Remind me of the cake in two hours.")
    stage.says("/schedule in 3 hours Name a river that flows north.")
    assert "Name a river that flows north." in (await stage.reply()).text
    stage.says("/schedule")
    listed = await stage.reply()
    assert [label.split()[0] for label in listed.labels] == ["Pause", "Cancel"] * 2
    await make_due(stage.services.infra.database)
    await stage.stop()
    await stage.start()
    reminder = await stage.seen(lambda shown: shown.text.startswith("⏰ Take the cake out"), after=listed.id)
    assert "This was due at" in reminder.text
    prompt = await stage.seen(lambda shown: shown.text.startswith("⏰ Name a river"), after=listed.id)
    assert (await stage.answer(after=prompt.id)).text.startswith(FIRST)
    assert told(stage.first.requests[-1])[-1][1].endswith("Name a river that flows north.")
    # Once, and in the conversation, so that people can answer it.
    await stage.asks("Thank you, done.")
    history = told(stage.first.requests[-1])
    assert sum("⏰ Take the cake out" in text for role, text in history if role == "assistant") == 1
    assert sum(shown.text.startswith("⏰") for shown in stage.chat().answers()) == 2
    stage.says("/schedule")
    assert (await stage.reply()).text.startswith("Nothing is scheduled here.")


async def test_a_time_that_is_half_read_goes_to_the_model(stage: BotHarness) -> None:
    """The zone would be lost: nothing is scheduled until the model has understood it."""
    wish = {"when": "tomorrow 09:00", "text": "Call Ann.", "time_zone": "Europe/Moscow"}
    stage.first.script(tool_call("schedule_message", wish), answer("You will hear from me."))
    stage.says("/schedule tomorrow 9:00 Moscow time call Ann")
    line = await stage.reply()
    assert line.text.startswith("I cannot read this time. Nothing is scheduled yet")
    assert "You will hear from me." in (await stage.answer(after=line.id)).text
    asked = told(stage.first.requests[-2])[-1]
    assert asked == (
        "user",
        "Schedule this. Ask me if the time or its time zone is not clear: tomorrow 9:00 Moscow time call Ann",
    )
    stage.says("/schedule")
    assert "09:00 MSK: Call Ann." in (await stage.reply()).text


async def test_schedule_buttons_pause_and_cancel(stage: BotHarness) -> None:
    stage.says("/schedule every day 09:00 call")
    made = await stage.reply()
    stage.says("/schedule zone Europe/Berlin")
    assert "Europe/Berlin" in (await stage.reply(after=made.id)).text
    stage.says("/schedule someday call")
    refused = await stage.reply()
    assert refused.text.startswith("I cannot read this time.")
    await stage.answer(after=refused.id)
    stage.says("/schedule")
    listed = await stage.reply()
    assert await stage.toast(stage.presses(listed, "Pause 1")) == "Paused."
    assert "(paused)" in (await stage.seen(lambda shown: shown.id == listed.id and "(paused)" in shown.text)).text
    assert (
        await stage.toast(stage.presses(listed, "Cancel 1", user_id=8))
        == "This entry is not yours, or no longer exists."
    )
    assert await stage.toast(stage.presses(listed, "Cancel 1")) == "Cancelled."
