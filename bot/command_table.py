"""The table of the bot's commands: who may use each, the queue lane it runs in, and the menus that list it."""

from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType


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
    OPERATORS = auto()
    """The private chat of a user in ADMIN_IDS; it lists the default menu too."""


_ALL_MENUS = frozenset({CommandMenu.DEFAULT, CommandMenu.GROUPS, CommandMenu.GROUP_ADMINS})
_DEFAULT = frozenset({CommandMenu.DEFAULT})
_GROUPS = frozenset({CommandMenu.GROUPS})
_GROUP_ADMINS = frozenset({CommandMenu.GROUP_ADMINS})
_OPERATORS = frozenset({CommandMenu.OPERATORS})


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
            CommandSpec("compact", CommandLane.CONVERSATION, menus=_DEFAULT),
            CommandSpec("model", CommandLane.CONVERSATION, menus=_ALL_MENUS),
            CommandSpec("schedule", CommandLane.CONVERSATION, menus=_DEFAULT),
            CommandSpec("compare", CommandLane.CONVERSATION, menus=_DEFAULT),
            CommandSpec("stop", CommandLane.IMMEDIATE, menus=_ALL_MENUS),
            CommandSpec("usage", CommandLane.IMMEDIATE, menus=_ALL_MENUS),
            CommandSpec("budget", CommandLane.IMMEDIATE, menus=_DEFAULT),
            CommandSpec("settings", CommandLane.IMMEDIATE, menus=_DEFAULT),
            CommandSpec("persona", CommandLane.CONVERSATION, menus=_DEFAULT),
            CommandSpec("language", CommandLane.IMMEDIATE, menus=_DEFAULT),
            CommandSpec("help", CommandLane.CONVERSATION, menus=_ALL_MENUS),
            CommandSpec("start", CommandLane.CONVERSATION),
            CommandSpec("ask", CommandLane.CONVERSATION),
            CommandSpec("image", CommandLane.CONVERSATION),
            CommandSpec("privacy", CommandLane.IMMEDIATE),
            CommandSpec("forget", CommandLane.IMMEDIATE),
            CommandSpec("moderation", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            # Members read the rules, admins change them.
            CommandSpec("rules", CommandLane.IMMEDIATE, menus=_GROUPS | _GROUP_ADMINS),
            CommandSpec("spam", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("ham", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("warn", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("unwarn", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("trust", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("untrust", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("newcomers", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("raid", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("lock", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("unlock", CommandLane.IMMEDIATE, CommandScope.GROUP_ADMINS, _GROUP_ADMINS),
            CommandSpec("report", CommandLane.IMMEDIATE, menus=_GROUPS),
            CommandSpec("provider", CommandLane.IMMEDIATE, CommandScope.OPERATORS, _OPERATORS),
            CommandSpec("stats", CommandLane.IMMEDIATE, CommandScope.OPERATORS, _OPERATORS),
            CommandSpec("audit", CommandLane.IMMEDIATE, CommandScope.OPERATORS, _OPERATORS),
            CommandSpec("broadcast", CommandLane.IMMEDIATE, CommandScope.OPERATORS, _OPERATORS),
            CommandSpec("ban_user", CommandLane.IMMEDIATE, CommandScope.OPERATORS, _OPERATORS),
            CommandSpec("unban_user", CommandLane.IMMEDIATE, CommandScope.OPERATORS, _OPERATORS),
            CommandSpec("dead", CommandLane.IMMEDIATE, CommandScope.OPERATORS, _OPERATORS),
            CommandSpec("console", CommandLane.IMMEDIATE, CommandScope.OPERATORS, _OPERATORS),
        )
    }
)
"""Every command by its name; in a group a command needs no mention of the bot."""


def listed_in(menu: CommandMenu) -> list[CommandSpec]:
    """Returns the commands of a menu, in order."""
    menus = {menu, CommandMenu.DEFAULT} if menu is CommandMenu.OPERATORS else {menu}
    return [spec for spec in COMMANDS.values() if not menus.isdisjoint(spec.menus)]
