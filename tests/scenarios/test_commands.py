"""Commands for everyone."""

import pytest

from bot.command_table import CommandMenu, listed_in
from tests.support.bot_harness import FIRST, BotHarness, instructions, told

START = """\
Hello, Ann! Send me a message to start.
If one AI provider stops responding, another one answers, so you can simply keep talking.

/new starts a new conversation, /model picks a model, /help lists everything else."""


async def test_start_greets_by_name(stage: BotHarness) -> None:
    stage.says("/start")
    assert (await stage.reply()).text == START


async def test_start_with_a_payload_greets(stage: BotHarness) -> None:
    """Links to a bot append a payload to the command."""
    stage.says("/start from-the-website")
    assert (await stage.reply()).text == START


async def test_help_lists_the_commands(stage: BotHarness) -> None:
    stage.says("/help")
    text = (await stage.reply()).text
    assert all(command in text for command in ("/new", "/model", "/stop", "/ask", "/usage", "Retry"))
    assert "/provider" not in text, "what admins can do is none of everybody's business"


async def test_new_starts_without_history(stage: BotHarness) -> None:
    await stage.asks("My name is Ann.")
    stage.says("/new")
    assert (await stage.reply()).text.startswith("Started a new conversation")
    await stage.asks("What is my name?")
    assert told(stage.first.requests[-1]) == [("user", "What is my name?")]


async def test_new_runs_in_order(stage: BotHarness) -> None:
    """Earlier messages are answered in the old conversation, later ones in the new."""
    stage.says("One.")
    stage.says("/new")
    stage.says("Two.")
    await stage.until(lambda: len(stage.chat().texts()) == 3)
    texts = stage.chat().texts()
    assert texts[1].startswith("Started a new conversation")
    assert (texts[0], texts[2]) == (FIRST, FIRST)
    assert told(stage.first.requests[-1]) == [("user", "Two.")]


@pytest.mark.parametrize("command", ["/dance", "/provider", "/provider force b"])
async def test_unknown_command_is_reported(stage: BotHarness, command: str) -> None:
    """For non-operators `/provider` is one."""
    stage.says(command)
    assert (await stage.reply()).text == "Unknown command. /help lists the commands."
    assert not stage.first.requests


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("ru", "Здравствуйте, Ann!"),
        ("ru-RU", "Здравствуйте, Ann!"),
        # A language without texts.
        ("fi", "Hello, Ann!"),
    ],
)
async def test_texts_use_the_language_of_the_user(stage: BotHarness, language: str, expected: str) -> None:
    stage.says("/start", language=language)
    assert (await stage.reply()).text.startswith(expected)


async def test_instructions_name_the_user(stage: BotHarness) -> None:
    await stage.asks("Привет!", language="ru")
    said = instructions(stage.first.requests[0])
    assert "This is a private chat with Ann." in said
    assert "The user's language setting is ru." in said
    assert "Today is" in said


async def test_buttons_use_the_language_of_the_user(stage: BotHarness) -> None:
    assert (await stage.asks("Привет!", language="ru")).labels == ["Повторить", "Повторить у другого"]


async def test_command_menus_are_published(stage: BotHarness) -> None:
    """Groups have more commands, and their admins others; operators have more in private; in each language."""
    calls = await stage.until(lambda: len(found := stage.telegram.calls_of("setMyCommands")) == 8 and found)
    assert calls
    assert [call.params.get("language_code") for call in calls] == [None, "ru"] * 4
    menus = {scope: [command["command"] for command in commands] for scope, commands in stage.telegram.menus.items()}
    # tests/bot/test_command_table.py has the lists.
    assert menus == {
        scope: [spec.name for spec in listed_in(menu)]
        for scope, menu in (
            ("default", CommandMenu.DEFAULT),
            ("chat", CommandMenu.OPERATORS),
            ("all_group_chats", CommandMenu.GROUPS),
            ("all_chat_administrators", CommandMenu.GROUP_ADMINS),
        )
    }


async def test_start_succeeds_without_command_menus(empty_stage: BotHarness) -> None:
    """Bot API servers differ."""
    empty_stage.telegram.unknown_methods |= {"setMyCommands", "sendChatAction", "deleteWebhook"}
    await empty_stage.start()
    assert (await empty_stage.asks("Are you there?")).text == FIRST
