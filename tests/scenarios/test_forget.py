"""`/forget` in a private chat: asked, confirmed, and nothing is left in the files."""

from sqlalchemy import func, select

from core.db.tables import ThreadRow, TurnRow
from tests.support.bot_harness import GROUP, BotHarness, told

SECRET = "My favourite colour is viridian."


async def test_forget_erases_after_a_confirmation(stage: BotHarness) -> None:
    await stage.asks(SECRET)
    stage.says("/forget")
    card = await stage.seen(lambda message: "No, keep it" in message.labels)
    stage.presses(card, "No, keep it")
    await stage.seen(lambda message: message.text == "Nothing was erased.")
    await stage.asks("Which colour?")
    assert ("user", SECRET) in told(stage.first.requests[-1])
    stage.says("/forget")
    card = await stage.seen(lambda message: "Yes, erase everything" in message.labels)
    stage.presses(card, "Yes, erase everything")
    await stage.seen(lambda message: message.text.endswith("is erased."))
    async with stage.services.infra.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(TurnRow)) == 0
        assert await session.scalar(select(func.count()).select_from(ThreadRow)) == 0
    assert await stage.stop() == 0
    files = list(stage.directory.iterdir())
    for path in files:
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path.name
    await stage.start()
    await stage.asks("Which colour?")
    assert told(stage.first.requests[-1]) == [("user", "Which colour?")]


async def test_forget_is_not_asked_in_a_group(stage: BotHarness) -> None:
    stage.says("/forget", GROUP)
    assert (await stage.reply(GROUP)).text.startswith("Please send /forget in a private chat")
