"""Who and what a message is for. All asynchronous: aiogram runs plain functions in a thread, 30 us each."""

from aiogram import Bot
from aiogram.enums import MessageEntityType
from aiogram.filters import Filter
from aiogram.types import Message, MessageEntity, User

from bot.telegram.api.messages import is_group


class Addressed(Filter):
    """The message is for the bot; gives `text`, what of it is.

    In a private chat that is everything; in a group a message that mentions the bot or replies to it.
    """

    async def __call__(self, message: Message, bot: Bot) -> bool | dict[str, str]:
        """Whether it is."""
        text = message.text or message.caption or ""
        if not is_group(message):
            return {"text": text}
        me = await bot.me()
        mention = _mention(message, text, me)
        if mention is not None:
            return {"text": _without(text, mention)}
        original = message.reply_to_message
        if original is not None and original.from_user is not None and original.from_user.id == me.id:
            return {"text": text} if original.forum_topic_created is None else False
        return False


def _mention(message: Message, text: str, me: User) -> MessageEntity | None:
    """Where a message mentions the bot."""
    for entity in message.entities or message.caption_entities or ():
        if entity.type == MessageEntityType.MENTION:
            if entity.extract_from(text).lower() == f"@{me.username}".lower():
                return entity
        elif entity.type == MessageEntityType.TEXT_MENTION and entity.user is not None and entity.user.id == me.id:
            return entity
    return None


def _without(text: str, mention: MessageEntity) -> str:
    """A text without the mention it begins or ends with; within a sentence the name is a part of what is said."""
    units = text.encode("utf-16-le")
    before = units[: 2 * mention.offset].decode("utf-16-le").strip()
    after = units[2 * (mention.offset + mention.length) :].decode("utf-16-le").strip()
    if before and after:
        return text
    return before or after.lstrip(",:").lstrip()


class UserContent(Filter):
    """The message was written by somebody, and does not merely report what happened in the chat."""

    async def __call__(self, message: Message) -> bool:
        """Whether it was."""
        # Two bots that answered each other would not stop; an anonymous admin only looks like one.
        user = message.from_user
        by_bot = user is not None and user.is_bot and message.sender_chat is None
        return message.content_type not in SERVICE and message.via_bot is None and not by_bot


SERVICE = frozenset(
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
