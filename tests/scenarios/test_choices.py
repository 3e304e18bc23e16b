"""`/settings`, `/language` and `/persona`: a choice holds from the next message on."""

from tests.support.bot_harness import FIRST, GROUP, PERSON, BotHarness, instructions
from tests.support.fake_llm.server import answer

RUSSIAN = "Теперь я пишу по-русски."


async def test_language_holds_for_every_text(stage: BotHarness) -> None:
    stage.says("/language")
    card = await stage.seen(lambda message: "Русский" in message.labels)
    assert card.labels == ["English", "Русский", "✓ As in Telegram", "Back"]
    stage.presses(card, "Русский")
    card = await stage.seen(lambda message: "Язык: Русский" in message.labels)
    assert (await stage.asks("Hello")).labels == ["Повторить", "Повторить у другого"]
    assert "language setting is ru" in instructions(stage.first.requests[-1])
    stage.says("/nonsense")
    assert (await stage.reply()).text == "Неизвестная команда. Список команд: /help."
    # In a group as well, but for others there.
    stage.says("/ask", GROUP, user_id=PERSON)
    assert (await stage.reply(GROUP)).text.startswith("Напишите вопрос")
    stage.says("/ask", GROUP, user_id=8)
    assert (await stage.reply(GROUP)).text.startswith("Add your question")
    stage.says("/language en")
    assert (await stage.reply()).text == "I will write in English from now on."


async def test_language_of_a_group_is_chosen_by_its_admins(stage: BotHarness) -> None:
    stage.says("/language ru", GROUP, user_id=PERSON)
    assert (await stage.reply(GROUP)).text == "In a group, only admins can change its settings."
    stage.chat(GROUP).admin_ids.add(PERSON)
    stage.says("/language ru", GROUP, user_id=PERSON)
    assert (await stage.reply(GROUP)).text == RUSSIAN
    stage.says("/ask", GROUP, user_id=8)
    assert (await stage.reply(GROUP)).text.startswith("Напишите вопрос")
    anonymous = {"sender_chat": {"id": GROUP, "type": "supergroup", "title": "Tea"}}
    stage.says("/ask", GROUP, user_id=1087968824, extra=anonymous)
    assert (await stage.reply(GROUP)).text.startswith("Напишите вопрос")


async def test_settings_change_streaming_and_footers(stage: BotHarness) -> None:
    stage.first.default = answer(pieces=[FIRST * 4, " The end."], pause_s=0.3)
    stage.says("/settings")
    card = await stage.seen(lambda message: "Who answered: hidden" in message.labels)
    assert card.labels == [
        "Answers appear: as they are written", "Who answered: hidden", "Language: As in Telegram", "Persona: Standard",
    ]  # fmt: skip
    stage.presses(card, "Who answered: hidden")
    card = await stage.seen(lambda message: "Who answered: shown" in message.labels)
    for label, following in (("as they are written", "as a draft"), ("as a draft", "when they are complete")):
        stage.presses(card, f"Answers appear: {label}")
        wanted = f"Answers appear: {following}"
        card = await stage.seen(lambda message, wanted=wanted: wanted in message.labels)
    found = await stage.asks("Hello")
    assert found.text.endswith("answered by a")
    assert len(found.edits) == 1, "it was shown before it was complete"


async def test_persona_holds_for_its_conversation(stage: BotHarness) -> None:
    await stage.asks("Hello")
    assert "chose how you answer" not in instructions(stage.first.requests[-1])
    stage.says("/persona")
    card = await stage.seen(lambda message: "Teacher" in message.labels)
    stage.presses(card, "Teacher")
    await stage.seen(lambda message: "✓ Teacher" in message.labels)
    await stage.asks("Why is the sky blue?")
    assert "You are a patient teacher." in instructions(stage.first.requests[-1])
    stage.says("/persona Answer as a pirate.\nNever mention this.")
    await stage.seen(lambda message: message.text.startswith("I will follow your instructions"))
    await stage.asks("Why is the sky blue?")
    told = instructions(stage.first.requests[-1])
    assert " Answer as a pirate.\n Never mention this." in told
    assert "patient teacher" not in told
    # A new conversation goes back to the chat's own, which is chosen in /settings.
    stage.says("/settings")
    card = await stage.seen(lambda message: "Persona: Standard" in message.labels)
    stage.presses(card, "Persona: Standard")
    card = await stage.seen(lambda message: "Brief" in message.labels and "Back" in message.labels)
    stage.presses(card, "Brief")
    await stage.seen(lambda message: "Persona: Brief" in message.labels)
    stage.says("/new")
    await stage.reply()
    await stage.asks("Why is the sky blue?")
    assert "Answer in one or two short sentences." in instructions(stage.first.requests[-1])
