"""The bot's commands: who may use each, the queue lane it runs in, and the menus that list it."""

from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from aiogram import Bot
from aiogram.enums import MessageEntityType
from aiogram.filters import CommandObject, Filter
from aiogram.types import Message


class CommandScope(Enum):
    """The users who may use a command."""

    EVERYONE = auto()
    GROUP_ADMINS = auto()
    OPERATORS = auto()
    """ADMIN_IDS; for other users the command does not exist."""


class CommandLane(Enum):
    """The queue lane of a command."""

    IMMEDIATE = auto()
    """Its own lane: about the answer in progress, the bot or the group, so it does not wait behind that answer."""
    CONVERSATION = auto()
    """The conversation's lane, in order with its messages."""


class CommandMenu(Enum):
    """A command menu; Telegram shows the narrowest one that applies to the chat and the user."""

    DEFAULT = auto()
    GROUPS = auto()
    GROUP_ADMINS = auto()


_ALL_MENUS = frozenset(CommandMenu)
_GROUPS = frozenset({CommandMenu.GROUPS})
_GROUP_ADMINS = frozenset({CommandMenu.GROUP_ADMINS})


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command."""

    name: str
    lane: CommandLane
    scope: CommandScope = CommandScope.EVERYONE
    menus: frozenset[CommandMenu] = frozenset()

    @property
    def description_key(self) -> str:
        """The text key of its description in the menus."""
        return f"command-{self.name}"


COMMANDS = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            # In the order in which the menus list them.
            CommandSpec("new", CommandLane.CONVERSATION, menus=_ALL_MENUS),
            CommandSpec("threads", CommandLane.CONVERSATION, menus=_ALL_MENUS),
            CommandSpec("model", CommandLane.CONVERSATION, menus=_ALL_MENUS),
            CommandSpec("stop", CommandLane.IMMEDIATE, menus=_ALL_MENUS),
            CommandSpec("usage", CommandLane.IMMEDIATE, menus=_ALL_MENUS),
            CommandSpec("help", CommandLane.CONVERSATION, menus=_ALL_MENUS),
            CommandSpec("start", CommandLane.CONVERSATION),
            CommandSpec("ask", CommandLane.CONVERSATION),
            CommandSpec("privacy", CommandLane.IMMEDIATE),
            CommandSpec("moderation", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            # Members read the rules, admins change them.
            CommandSpec("rules", CommandLane.IMMEDIATE, menus=_GROUPS | _GROUP_ADMINS),
            CommandSpec("spam", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("ham", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("warn", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("unwarn", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("report", CommandLane.IMMEDIATE, menus=_GROUPS),
            CommandSpec("provider", CommandLane.IMMEDIATE, CommandScope.OPERATORS),
            CommandSpec("dead", CommandLane.IMMEDIATE, CommandScope.OPERATORS),
        )
    }
)
"""Every command by its name; in a group a command needs no mention of the bot."""


_QUOTING = frozenset(
    {
        MessageEntityType.BLOCKQUOTE,
        MessageEntityType.EXPANDABLE_BLOCKQUOTE,
        MessageEntityType.CODE,
        MessageEntityType.PRE,
    }
)
"""Entities whose text is shown, not said."""


def is_typed(message: Message) -> bool:
    """Returns whether the author of a message typed it: it is not forwarded, sent through a bot, or by a bot.

    An anonymous admin, who looks like a bot, typed it too.
    """
    user = message.from_user
    is_by_bot = user is not None and user.is_bot and message.sender_chat is None
    is_forwarded = message.forward_origin is not None or message.forward_date is not None
    return not is_forwarded and message.via_bot is None and not is_by_bot


async def find_command(message: Message, bot: Bot) -> CommandSpec | None:
    """Returns the command that a typed text or caption begins with, in any case.

    None for other text, another bot's command, and one that is quoted or shown as code.
    """
    words = (message.text or message.caption or "").split(maxsplit=1)
    if not words or not words[0].startswith("/") or not is_typed(message):
        return None
    entities = message.entities or message.caption_entities or ()
    if any(entity.type in _QUOTING and entity.offset == 0 for entity in entities):
        return None
    name, _, username = words[0][1:].lower().partition("@")
    spec = COMMANDS.get(name)
    if spec is None or (username and username != ((await bot.me()).username or "").lower()):
        return None
    return spec


class Command(Filter):
    """Passes messages that `find_command` recognises as a command, with its arguments as `command`.

    aiogram's own filter would take a forwarded command for a typed one.
    """

    def __init__(self, name: str) -> None:
        self._spec = COMMANDS[name]

    async def __call__(self, message: Message, bot: Bot) -> bool | dict[str, CommandObject]:
        """Returns the command, or False."""
        if await find_command(message, bot) is not self._spec:
            return False
        _, *arguments = (message.text or message.caption or "").split(maxsplit=1)
        return {"command": CommandObject(command=self._spec.name, args=arguments[0] if arguments else None)}
