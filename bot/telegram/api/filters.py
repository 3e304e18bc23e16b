"""Filters of handlers: messages addressed to the bot, commands, operators.

They are asynchronous: aiogram runs plain functions, and `F`, in a thread, which costs 30 us each.
"""

from collections.abc import Sequence

from aiogram import Bot
from aiogram.enums import MessageEntityType
from aiogram.filters import CommandObject, Filter
from aiogram.types import (
    CallbackQuery,
    Message,
    MessageEntity,
    MessageReactionUpdated,
    ReactionTypeUnion,
    User,
)

from bot.command_table import COMMANDS, CommandSpec
from bot.telegram.api.updates import is_group


class Addressed(Filter):
    """Passes messages that address the bot, with the addressed part as `text`.

    In a private chat every message does; in a group a message that mentions the bot or replies to it.
    """

    async def __call__(self, message: Message, bot: Bot) -> bool | dict[str, str]:
        """Returns the addressed text, or False."""
        text = message.text or message.caption or ""
        if not is_group(message):
            return {"text": text}
        me = await bot.me()
        mention = _find_mention(message, text, me)
        if mention is not None:
            return {"text": _strip_mention(text, mention)}
        original = message.reply_to_message
        if original is not None and original.from_user is not None and original.from_user.id == me.id:
            return {"text": text} if original.forum_topic_created is None else False
        return False


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
    """Passes messages that a user wrote: no service messages, no inline results, no other bots."""

    async def __call__(self, message: Message) -> bool:
        """Returns whether a user wrote it."""
        # Two bots that answered each other would never stop; an anonymous admin only looks like a bot.
        user = message.from_user
        by_bot = user is not None and user.is_bot and message.sender_chat is None
        return message.content_type not in SERVICE_CONTENT and message.via_bot is None and not by_bot


class NewTopic(Filter):
    """Passes the service messages about new topics."""

    async def __call__(self, message: Message) -> bool:
        """Returns whether the message says that a topic was created."""
        return message.forum_topic_created is not None


_QUOTING = frozenset(
    {
        MessageEntityType.BLOCKQUOTE,
        MessageEntityType.EXPANDABLE_BLOCKQUOTE,
        MessageEntityType.CODE,
        MessageEntityType.PRE,
    }
)
"""Entities that show their text as a quotation or as code."""


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


SERVICE_CONTENT = frozenset(
    {
        "new_chat_members", "left_chat_member", "new_chat_title", "new_chat_photo", "delete_chat_photo",
        "group_chat_created", "supergroup_chat_created", "channel_chat_created", "pinned_message",
        "migrate_to_chat_id", "migrate_from_chat_id", "message_auto_delete_timer_changed", "forum_topic_created",
        "forum_topic_edited", "forum_topic_closed", "forum_topic_reopened", "general_forum_topic_hidden",
        "general_forum_topic_unhidden", "video_chat_scheduled", "video_chat_started", "video_chat_ended",
        "video_chat_participants_invited", "boost_added", "chat_background_set", "write_access_allowed",
        "users_shared", "chat_shared", "web_app_data", "proximity_alert_triggered", "successful_payment",
        "refunded_payment", "giveaway_created", "giveaway_completed", "giveaway_winners", "chat_owner_left",
        "chat_owner_changed", "gift", "unique_gift", "gift_upgrade_sent", "connected_website",
        "passport_data", "checklist_tasks_done", "checklist_tasks_added", "direct_message_price_changed",
        "managed_bot_created", "paid_message_price_changed", "poll_option_added", "poll_option_deleted",
        "suggested_post_approved", "suggested_post_approval_failed", "suggested_post_declined", "suggested_post_paid",
        "suggested_post_refunded", "community_chat_added", "community_chat_removed", "community_chat_joined",
        "user_shared",
    }
)  # fmt: skip
"""Content types that report an event in the chat instead of a user's message."""


async def is_for_bot(message: Message, bot: Bot) -> bool:
    """Returns whether a message is a command of the bot or addresses it; most messages of a group do neither."""
    return await find_command(message, bot) is not None or await addresses_bot(message, bot)


async def addresses_bot(message: Message, bot: Bot) -> bool:
    """Returns whether a message addresses the bot, as `Addressed` decides it; commands are not looked for."""
    return bool(await _addressed(message, bot))


async def asks_bot(message: Message, bot: Bot) -> bool:
    """Returns whether the bot answers a message, as `AddressedQuestion` decides it."""
    return bool(await AddressedQuestion()(message, bot))


async def strip_mention(message: Message, bot: Bot) -> str:
    """Returns the text of a message without the mention of the bot."""
    text = message.text or message.caption or ""
    mention = _find_mention(message, text, await bot.me())
    return text if mention is None else _strip_mention(text, mention)


def _find_mention(message: Message, text: str, me: User) -> MessageEntity | None:
    for entity in message.entities or message.caption_entities or ():
        if entity.type == MessageEntityType.MENTION:
            if entity.extract_from(text).lower() == f"@{me.username}".lower():
                return entity
        elif entity.type == MessageEntityType.TEXT_MENTION and entity.user is not None and entity.user.id == me.id:
            return entity
    return None


def _strip_mention(text: str, mention: MessageEntity) -> str:
    """Removes a mention at the start or the end; within a sentence it is part of the text and stays."""
    units = text.encode("utf-16-le")
    before = units[: 2 * mention.offset].decode("utf-16-le").strip()
    after = units[2 * (mention.offset + mention.length) :].decode("utf-16-le").strip()
    if before and after:
        return text
    return before or after.lstrip(",:").lstrip()
