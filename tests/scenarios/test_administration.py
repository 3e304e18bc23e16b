"""Commands of operators that concern the whole bot: audit log, figures, bans, broadcasts."""

from tests.support.bot_harness import ADMIN, FIRST, PERSON, BotHarness

OTHER = 8


async def test_help_and_menu_show_operators_their_commands(stage: BotHarness) -> None:
    stage.says("/help", chat_id=ADMIN, language="ru")
    text = (await stage.reply(ADMIN)).text
    assert "Для операторов" in text
    assert all(command in text for command in ("/provider", "/stats", "/audit", "/broadcast", "/ban_user", "/dead"))


async def test_audit_is_filtered_and_paged(stage: BotHarness) -> None:
    audit = stage.services.operators.audit
    for number in range(12):
        await audit.record(ADMIN, "provider.force", f"p{number:02}")
    await audit.record(ADMIN, "moderation.mode", "-100", "enforce")
    stage.says("/audit", chat_id=ADMIN)
    page = await stage.reply(ADMIN)
    assert page.labels == ["Older", "providers", "moderation", "settings", "operation"]
    assert "set the mode of moderation in: -100 (enforce)" in page.text
    stage.presses(page, "providers")
    await stage.until(lambda: "Audit log: providers" in page.text)
    assert "p11" in page.text
    assert "p01" not in page.text
    stage.presses(page, "Older")
    await stage.until(lambda: "forced: p00" in page.text)
    assert "p02" not in page.text
    assert page.labels == ["Newer", "all actions", "moderation", "settings", "operation"]
    assert await stage.toast(stage.presses(page, "Newer", PERSON)) == "Unknown command. /help lists the commands."


async def test_stats_count_people_and_answers(stage: BotHarness) -> None:
    await stage.asks("Hello?")
    await stage.asks("Hello?", chat_id=OTHER, user_id=OTHER)
    stage.says("/stats", chat_id=ADMIN)
    text = (await stage.reply(ADMIN)).text
    assert text.startswith("Today\npeople: 2, chats: 2\nanswers: 2,")
    assert "private chats: 2, groups: 0, conversations: 2" in text


async def test_a_banned_person_gets_no_answer(stage: BotHarness) -> None:
    stage.says(f"/ban_user {PERSON} insults", chat_id=ADMIN)
    assert (await stage.reply(ADMIN)).text.startswith("7 is banned")
    stage.says("Hello?")
    assert (await stage.reply()).text.startswith("The operator of this bot has blocked you")
    assert not stage.first.requests
    stage.says(f"/ban_user {ADMIN}", chat_id=ADMIN)
    assert (await stage.reply(ADMIN)).text == "Operators cannot be banned."
    stage.says("/ban_user", chat_id=ADMIN)
    assert "7: insults" in (await stage.reply(ADMIN)).text
    stage.says(f"/unban_user {PERSON}", chat_id=ADMIN)
    assert "lifted" in (await stage.reply(ADMIN)).text
    assert (await stage.asks("Hello again?")).text == FIRST


async def test_broadcast_is_counted_confirmed_and_reported(stage: BotHarness) -> None:
    """Its formatting arrives; who has blocked the bot is told."""
    stage.says("/broadcast Too early", chat_id=ADMIN)
    early = await stage.reply(ADMIN)
    assert early.text.endswith("0 people who have a private chat with the bot. There is no one to send it to.")
    assert early.labels == []
    await stage.asks("Hello?")
    await stage.asks("Hello?", chat_id=OTHER, user_id=OTHER)
    stage.telegram.block(OTHER)
    said = "/broadcast We 🎭 move to a new server tonight."
    stage.says(said, chat_id=ADMIN, entities=[{"type": "bold", "offset": said.index("move") + 1, "length": 4}])
    card = await stage.reply(ADMIN)
    assert card.text.startswith("This message would go to 2 people")
    assert len(stage.chat().answers()) == 1, "nothing is sent before the confirmation"
    stage.presses(card, "Send")
    news = await stage.seen(lambda message: message.text.startswith("We 🎭 move"))
    assert [(each["type"], each["offset"], each["length"]) for each in news.entities] == [("bold", 6, 4)]
    await stage.until(lambda: card.text == "Sent. Delivered: 1, bot blocked: 1, failed: 0.")
    assert card.labels == []
    stage.says("/broadcast", chat_id=ADMIN)
    assert "We 🎭 move" in (await stage.reply(ADMIN)).text


async def test_commands_of_operators_do_not_exist_for_others(stage: BotHarness) -> None:
    for command in ("/stats", "/audit", "/broadcast hi", "/ban_user 8", "/unban_user 8"):
        stage.says(command)
        assert (await stage.reply()).text == "Unknown command. /help lists the commands."
    assert not await stage.services.operators.audit.recent()
