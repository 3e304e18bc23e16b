"""The commands: which of them a message is, and whether a message is for the bot at all."""

from aiogram import Bot
from aiogram.types import Message

from bot.telegram.api.addressing import Addressed

AT_ONCE = frozenset(
    {
        "/stop", "/provider", "/privacy", "/usage", "/dead",
        "/moderation", "/rules", "/spam", "/ham", "/warn", "/unwarn", "/report",
    }
)  # fmt: skip
"""Commands about the answer that is being made, or about the bot or the group: they do not wait behind it."""
IN_TURN = frozenset({"/start", "/help", "/new", "/threads", "/model", "/ask"})
"""The other commands; in a group they need no mention."""

_addressed = Addressed()


async def parse_command(message: Message, bot: Bot) -> str:
    """The command that a message is, in lower case; empty for one that is none, or another bot's."""
    words = (message.text or message.caption or "").split(maxsplit=1)
    if not words or not words[0].startswith("/"):
        return ""
    command, _, name = words[0].lower().partition("@")
    return command if not name or name == ((await bot.me()).username or "").lower() else ""


async def is_for_bot(message: Message, bot: Bot) -> bool:
    """Whether the bot is to do something about a message: most of what people in a group say is not for it."""
    return await parse_command(message, bot) in AT_ONCE | IN_TURN or bool(await _addressed(message, bot))
