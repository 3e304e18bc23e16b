"""Filters of handlers: messages addressed to the bot, commands, operators.

They are asynchronous: aiogram runs plain functions, and `F`, in a thread, which costs 30 us each.
"""

from collections.abc import Sequence

from aiogram import Bot
from aiogram.filters import CommandObject, Filter
from aiogram.types import (
    CallbackQuery,
    Message,
    MessageReactionUpdated,
    ReactionTypeUnion,
    User,
)

from bot.command_table import COMMANDS
from bot.telegram.api.updates import find_addressed_text, find_command, is_written


class Addressed(Filter):
    """Passes messages that address the bot, with the addressed part as `text`."""

    async def __call__(self, message: Message, bot: Bot) -> bool | dict[str, str]:
        """Returns the addressed text, or False."""
        text = await find_addressed_text(message, bot)
        return False if text is None else {"text": text}


_addressed = Addressed()


class AddressedQuestion(Filter):
    """Passes messages that the bot answers: those that address it, and `/ask`; with the question as `text`."""

    async def __call__(self, message: Message, bot: Bot) -> bool | dict[str, str]:
        """Returns the question, or False."""
        command = await find_command(message, bot)
        if command is None:
            return await _addressed(message, bot)
        if command.name != "ask":
            return False
        _, *question = (message.text or message.caption or "").split(maxsplit=1)
        return {"text": question[0] if question else ""}


class UserContent(Filter):
    """Passes messages that a user wrote."""

    async def __call__(self, message: Message) -> bool:
        """Returns whether a user wrote it."""
        return is_written(message)


class NewTopic(Filter):
    """Passes the service messages about new topics."""

    async def __call__(self, message: Message) -> bool:
        """Returns whether the message says that a topic was created."""
        return message.forum_topic_created is not None


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


THUMBS = {"👍": 1, "👎": -1}


def find_thumb(changed: MessageReactionUpdated) -> int | None:
    """Returns the thumb that a change of reactions leaves: 1 up, -1 down, 0 none. None if it changes no thumb.

    Reactions of bots and anonymous ones count for nothing.
    """
    if changed.user is None or changed.user.is_bot:
        return None
    before, after = _thumb(changed.old_reaction), _thumb(changed.new_reaction)
    return None if before == after else after


def _thumb(reactions: Sequence[ReactionTypeUnion]) -> int:
    return next((THUMBS[each.emoji] for each in reactions if each.type == "emoji" and each.emoji in THUMBS), 0)


class FromOperator(Filter):
    """Passes messages and button presses of the users in ADMIN_IDS."""

    def __init__(self, admin_ids: frozenset[int]) -> None:
        self._admin_ids = admin_ids

    async def __call__(self, event: Message | CallbackQuery) -> bool:
        """Returns whether an operator sent it."""
        user: User | None = event.from_user
        return user is not None and user.id in self._admin_ids


async def is_for_bot(message: Message, bot: Bot) -> bool:
    """Returns whether a message is a command of the bot or addresses it; most messages of a group do neither."""
    return await find_command(message, bot) is not None or await find_addressed_text(message, bot) is not None


async def asks_bot(message: Message, bot: Bot) -> bool:
    """Returns whether the bot answers a message, as `AddressedQuestion` decides it."""
    return bool(await AddressedQuestion()(message, bot))
