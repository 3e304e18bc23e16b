"""The command table: every handler is in it, each command is recognised, and the menus list the right ones."""

import ast
from pathlib import Path
from typing import Any

import pytest
from aiogram import Bot
from aiogram.filters import CommandObject
from aiogram.types import CallbackQuery, User

import bot.telegram
from bot.command_table import COMMANDS, CommandLane, CommandMenu, CommandScope, listed_in
from bot.telegram.api.client import KnownBot
from bot.telegram.api.filters import Command, FromOperator
from bot.telegram.api.updates import find_command, parse_update
from core.i18n import Texts
from tests.support.fake_telegram.messages import ANN, BOB, BOT, GROUP, message, raw


@pytest.fixture
def known_bot() -> Bot:
    """A bot with a known identity, so that `me()` sends no request."""
    known = KnownBot("42:token")
    known.identity = User.model_validate(BOT)
    return known


def handled_commands() -> list[str]:
    """The names in every `Command("name")` filter of the handlers."""
    names: list[str] = []
    for path in Path(bot.telegram.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="Command"), args=[ast.Constant(value=str(name))]):
                    names.append(name)
                case ast.ImportFrom(module="aiogram.filters", names=imported):
                    # It takes a forwarded command for a typed one.
                    assert not {"Command", "CommandStart"} & {each.name for each in imported}, path
                case ast.Call(func=ast.Name(id="Command")):
                    pytest.fail(f"{path}:{node.lineno}: a command filter without a literal name")
                case _:
                    pass
    return names


def test_command_table_and_handlers_agree() -> None:
    # The gate of a group takes the `/start` of its own link, before the chat's handler does.
    assert sorted(handled_commands()) == sorted([*COMMANDS, "start"])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/stop", "stop"),
        ("/STOP now", "stop"),
        ("/stop@understudy_bot", "stop"),
        ("/Stop@Understudy_Bot now", "stop"),
        # Another bot's command, an unknown command, and text.
        ("/stop@other_bot", None),
        ("/halt", None),
        ("/", None),
        ("stop", None),
        ("please /stop", None),
        ("", None),
    ],
)
async def test_find_command_reads_the_first_word(known_bot: Bot, text: str, name: str | None) -> None:
    found = await find_command(message(text, chat=GROUP), known_bot)
    assert (found.name if found is not None else None) == name


@pytest.mark.parametrize(
    "fields",
    [
        {"forward_origin": {"type": "user", "date": 1, "sender_user": BOB}},
        {"forward_origin": {"type": "hidden_user", "date": 1, "sender_user_name": "Bob"}},
        {"forward_date": 1},  # of an older Bot API server
        {"via_bot": BOT},
        {"from": {"id": 9, "is_bot": True, "first_name": "Other bot"}},
        {"entities": [{"type": "blockquote", "offset": 0, "length": 5}]},
        {"entities": [{"type": "code", "offset": 0, "length": 5}]},
    ],
    ids=["forward", "hidden", "old", "inline bot", "bot", "quote", "code"],
)
async def test_find_command_takes_typed_commands_only(known_bot: Bot, fields: dict[str, Any]) -> None:
    photo = [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}]
    caption_fields = {"caption_entities" if name == "entities" else name: value for name, value in fields.items()}
    for sent in (message("/stop", **fields), message(None, photo=photo, caption="/stop", **caption_fields)):
        assert await find_command(sent, known_bot) is None
        assert not await Command("stop")(sent, known_bot)
        # Content aiogram rejects keeps its origin, so that it is not taken for typed.
        raw = sent.model_dump(mode="json", by_alias=True, exclude_none=True) | {"venue": "novel"}
        parsed = parse_update({"update_id": 1, "message": raw}, known_bot)
        assert parsed is not None
        assert parsed.message is not None
        assert await find_command(parsed.message, known_bot) is None


async def test_an_anonymous_admin_types_commands(known_bot: Bot) -> None:
    anonymous = {"id": 1087968824, "is_bot": True, "first_name": "Group"}
    sent = message("/stop", chat=GROUP, sender_chat=GROUP, **{"from": anonymous})
    assert await find_command(sent, known_bot) is COMMANDS["stop"]


async def test_command_passes_its_arguments(known_bot: Bot) -> None:
    assert await Command("ask")(message("/Ask@understudy_bot  what\nis it"), known_bot) == {
        "command": CommandObject(command="ask", args="what\nis it")
    }
    assert await Command("ask")(message("/ask"), known_bot) == {"command": CommandObject(command="ask")}
    assert not await Command("ask")(message("/asked"), known_bot)


async def test_find_command_reads_a_caption(known_bot: Bot) -> None:
    photo = [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}]
    found = await find_command(message(None, photo=photo, caption="/ask what is this?"), known_bot)
    assert found is COMMANDS["ask"]


def test_commands_in_the_conversation_lane() -> None:
    """A command that starts an answer or changes the conversation must not overtake the messages before it."""
    in_order = {spec.name for spec in COMMANDS.values() if spec.lane is CommandLane.CONVERSATION}
    assert in_order == {
        "start",
        "help",
        "new",
        "threads",
        "compact",
        "model",
        "compare",
        "ask",
        "persona",
        "image",
        "schedule",
    }


@pytest.mark.parametrize(
    ("menu", "names"),
    [
        (
            CommandMenu.DEFAULT,
            [
                "new", "threads", "compact", "model", "schedule", "compare", "stop", "usage", "budget",
                "settings", "persona", "language", "help",
            ],
        ),
        (CommandMenu.GROUPS, ["new", "threads", "model", "stop", "usage", "help", "rules", "report"]),
        (
            CommandMenu.GROUP_ADMINS,
            [
                "new", "threads", "model", "stop", "usage", "help",
                "moderation", "rules", "spam", "ham", "warn", "unwarn",
                "trust", "untrust", "newcomers", "raid", "lock", "unlock",
            ],
        ),
    ],
)  # fmt: skip
def test_menu_lists_its_commands_in_order(menu: CommandMenu, names: list[str]) -> None:
    assert [spec.name for spec in listed_in(menu)] == names


@pytest.mark.parametrize("language", Texts().languages)
def test_each_command_of_a_menu_is_described(language: str) -> None:
    """Telegram takes 1 to 256 characters."""
    texts = Texts(strict=True)
    for spec in {spec for menu in CommandMenu for spec in listed_in(menu)}:
        assert 3 <= len(texts.get(spec.description_key, language)) <= 256, spec.name


def test_operator_commands_are_in_their_menu_only() -> None:
    operators = [spec for spec in COMMANDS.values() if spec.scope is CommandScope.OPERATORS]
    assert [spec.name for spec in operators] == [
        "provider", "stats", "audit", "broadcast", "ban_user", "unban_user", "dead", "console",
    ]  # fmt: skip
    assert {spec.menus for spec in operators} == {frozenset({CommandMenu.OPERATORS})}
    assert listed_in(CommandMenu.OPERATORS) == [*listed_in(CommandMenu.DEFAULT), *operators]


def press(user: dict[str, Any], shown: dict[str, Any] | None) -> CallbackQuery:
    """Returns a button press under a message."""
    fields = {"id": "1", "chat_instance": "1", "from": user, "data": "x", "message": shown}
    return CallbackQuery.model_validate(fields)


async def test_from_operator_passes_only_admin_ids() -> None:
    from_operator = FromOperator(frozenset({ANN["id"]}))
    assert await from_operator(message("/provider"))
    assert await from_operator(press(ANN, raw("table")))
    assert not await from_operator(message("/provider", **{"from": BOB}))
    assert not await from_operator(press(BOB, raw("table")))
    # A message in the name of a chat has no user.
    assert not await from_operator(message("/provider", chat=GROUP, **{"from": None}))
