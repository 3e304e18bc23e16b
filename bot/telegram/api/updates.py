"""Parses updates, malformed ones too; finds commands and addressed texts; converts messages to core messages."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeGuard, cast

import structlog
from aiogram import Bot
from aiogram.enums import ChatType, MessageEntityType
from aiogram.types import Message, MessageEntity, Update, User
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from bot.command_table import COMMANDS, CommandSpec
from bot.telegram.api.files import FileReader, ReadFiles, Unreadable
from core.messages import Attachment, ChatKind, ChatRef, ConversationKey, Incoming, Speaker, Surface, chat_ref, user_ref
from core.observability.metrics import OTHER
from services.preferences import Languages

log = structlog.get_logger()

UpdateSink = Callable[[Sequence[dict[str, Any]]], Awaitable[None]]
"""Stores a batch of raw updates. Raises StorageError if it cannot; the batch then comes again."""
UPDATE_TYPES = (
    "message", "edited_message", "callback_query", "my_chat_member", "chat_member", "chat_join_request",
    "stopped_message_generation", "message_reaction", "guest_message",
)  # fmt: skip
LARGEST_UPDATE_ID = 2**53
"""Telegram's ids have 31 bits, those of other servers may be timestamps. The id plus one must be a valid offset."""
LARGEST_NUMBER = 2**63 - 1
LARGEST_TIME = 253_402_300_799
"""The end of the year 9999, the last one that Python knows."""
MAX_DIGITS = 18
ESSENTIAL_FIELDS = (
    "message_id", "date", "chat", "from", "sender_chat", "message_thread_id", "is_topic_message",
    "edit_date", "text", "entities", "caption", "caption_entities",
)  # fmt: skip
"""Message fields that are kept when aiogram rejects the rest as unknown or malformed."""
FORWARD_FIELDS = frozenset({"forward_origin", "forward_date", "forward_from", "forward_sender_name"})
_QUOTING = frozenset(
    {
        MessageEntityType.BLOCKQUOTE,
        MessageEntityType.EXPANDABLE_BLOCKQUOTE,
        MessageEntityType.CODE,
        MessageEntityType.PRE,
    }
)
"""Entities that show their text as a quotation or as code."""
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


def update_kind(fields: Iterable[str]) -> str:
    """Returns the kind of an update that has these fields: `message`, `callback_query`, ..."""
    return next((kind for kind in fields if kind in UPDATE_TYPES), OTHER)


def is_update_id(value: object) -> TypeGuard[int]:
    """Returns whether a value can be the id of an update."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_UPDATE_ID


def has_stored_numbers(value: object, key: str = "") -> bool:
    """Returns whether all numbers of an update can be stored: ids of 64 bits, and times before the year 10,000.

    A text of digits counts as a number where the Bot API has one: aiogram reads it as such.
    """
    match value:
        case dict():
            fields = cast("dict[str, object]", value)
            is_named = "is_bot" in fields or "type" in fields
            return all(
                has_stored_numbers(inner, key if key != "id" or is_named else "") for key, inner in fields.items()
            )
        case list():
            return all(has_stored_numbers(inner, key) for inner in cast("list[object]", value))
        case bool() | None:
            return True
        case int() | float():
            is_time = key == "date" or key.endswith("_date")
            return 0 <= value <= LARGEST_TIME if is_time else abs(value) <= LARGEST_NUMBER
        case str():
            is_number = key.endswith(("id", "date")) and value.strip().lstrip("+-").isdecimal()
            return not is_number or len(value) <= MAX_DIGITS
        case _:
            return True


def parse_update(raw: dict[str, Any], bot: Bot) -> Update | None:
    """Validates an update; of a message that aiogram rejects, keeps the essential fields so that it gets an answer.

    Returns:
        None if even those are malformed, or if the update is of another kind.
    """
    kinds, faults = [kind for kind in raw if kind != "update_id"], 1
    try:
        to_json(raw)
    except PydanticSerializationError:
        raw = cast("dict[str, Any]", _join_surrogates(raw))  # an object stays one
    try:
        if has_stored_numbers(raw):
            return Update.model_validate(raw, context={"bot": bot})
    except ValidationError as error:
        faults = error.error_count()
    log.error("update.unreadable", update_id=raw.get("update_id"), kinds=kinds, faults=faults)
    for kind in ("message", "edited_message"):
        message: Any = raw.get(kind)  # Any: unvalidated JSON
        if isinstance(message, dict):
            fields = cast("dict[str, Any]", message)
            essentials = {name: fields[name] for name in ESSENTIAL_FIELDS if name in fields} | _origin(fields)
            with suppress(ValidationError):
                if not has_stored_numbers(essentials):
                    return None
                return Update.model_validate({"update_id": raw["update_id"], kind: essentials}, context={"bot": bot})
    return None


def _join_surrogates(value: object) -> object:
    """Returns JSON in which halves of surrogate pairs are joined, or replaced: no provider can be sent a lone one.

    Telegram may cut a text within a pair. The offsets of entities stay right, as each half counts as one unit.
    """
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            fields = cast("dict[str, object]", value)
            return {name: _join_surrogates(inner) for name, inner in fields.items()}
        case list():
            return [_join_surrogates(inner) for inner in cast("list[object]", value)]
        case _:
            return value


def set_language(raw: dict[str, Any], languages: Languages) -> dict[str, Any]:
    """Returns an update in which the language that its sender, or the group, chose stands for that of the client.

    Set once here, it applies to every reader of the sender's language.
    """
    if not languages.chosen:
        return raw
    changed = dict(raw)
    for kind, value in raw.items():
        content = cast("dict[str, Any]", value) if isinstance(value, dict) else {}  # Any: JSON
        sender = content.get("from")
        if not isinstance(sender, dict):
            continue
        person = cast("dict[str, Any]", sender)  # as above
        owner = user_ref(Surface.TELEGRAM, person.get("id", 0))
        chosen = languages.chosen.get(_group(content) or "") or languages.chosen.get(owner)
        if chosen is not None:
            parties = {name: content[name] for name in ("from", "sender_chat") if isinstance(content.get(name), dict)}
            changed[kind] = content | {name: {**party, "language_code": chosen} for name, party in parties.items()}
    return changed


def _group(content: dict[str, Any]) -> ChatRef | None:
    """Returns the group of a message, or of the message with a pressed button."""
    message = content.get("message", content)
    chat = cast("dict[str, Any]", message).get("chat") if isinstance(message, dict) else None
    number = cast("dict[str, Any]", chat).get("id") if isinstance(chat, dict) else None
    return chat_ref(Surface.TELEGRAM, number) if isinstance(number, int) and number < 0 else None


def _origin(message: dict[str, Any]) -> dict[str, Any]:
    """Returns fields in place of a message's origin, which may be the part that aiogram rejects.

    Without them it would count as typed by its sender.
    """
    origin: dict[str, Any] = {}
    if not FORWARD_FIELDS.isdisjoint(message):
        origin["forward_origin"] = {"type": "hidden_user", "date": 1, "sender_user_name": ""}
    if "via_bot" in message:
        origin["via_bot"] = {"id": 1, "is_bot": True, "first_name": ""}
    return origin


def conversation_key(message: Message) -> ConversationKey:
    """Returns the conversation of a message: its chat, or its topic."""
    topic = message.message_thread_id if message.is_topic_message else None
    return ConversationKey(Surface.TELEGRAM, message.chat.id, topic or 0)


def to_speaker(user: User) -> Speaker:
    """Converts a Telegram user to a speaker."""
    return Speaker(user.id, user.full_name, user.language_code)


def is_group(message: Message) -> bool:
    """Returns whether the chat of a message is not private."""
    return message.chat.type != ChatType.PRIVATE


def message_speaker(message: Message) -> Speaker:
    """Returns the author of a message; for a channel or an anonymous admin that is the chat."""
    if message.sender_chat is not None:
        # The language that its group chose; see `set_language`.
        language = (message.sender_chat.model_extra or {}).get("language_code")
        return Speaker(message.sender_chat.id, message.sender_chat.full_name, language)
    if message.from_user is not None:
        return to_speaker(message.from_user)
    return Speaker(message.chat.id, message.chat.full_name)


def is_typed(message: Message) -> bool:
    """Returns whether the author of a message typed it: it is not forwarded, sent through a bot, or by a bot."""
    is_forwarded = message.forward_origin is not None or message.forward_date is not None
    return not is_forwarded and not _is_from_bot(message)


def is_written(message: Message) -> bool:
    """Returns whether a user wrote a message: it is no service message, no inline result, and not by another bot."""
    return message.content_type not in SERVICE_CONTENT and not _is_from_bot(message)


def _is_from_bot(message: Message) -> bool:
    """Returns whether a bot sent a message, or a user through one. Two bots that answered each other would never stop.

    An anonymous admin only looks like a bot.
    """
    user = message.from_user
    is_by_bot = user is not None and user.is_bot and message.sender_chat is None
    return is_by_bot or message.via_bot is not None


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


async def find_addressed_text(message: Message, bot: Bot) -> str | None:
    """Returns the part of a message's text that addresses the bot; None if it does not.

    In a private chat every message does; in a group a message that mentions the bot or replies to it.
    """
    text = message.text or message.caption or ""
    if not is_group(message):
        return text
    me = await bot.me()
    mention = _find_mention(message, text, me)
    if mention is not None:
        return _strip_mention(text, mention)
    original = message.reply_to_message
    is_reply = original is not None and original.from_user is not None and original.from_user.id == me.id
    return text if original is not None and is_reply and original.forum_topic_created is None else None


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


async def to_incoming(
    message: Message, bot: Bot, text: str, album: Sequence[Message] = (), reader: FileReader | None = None
) -> Incoming | Unreadable:
    """Converts a message, downloading its files.

    Args:
        message: the message; of an album, the part that addresses the bot.
        bot: downloads the files.
        text: the part of its text that addresses the bot.
        album: every part of the album, including `message`; empty for a single message.
        reader: reads its files; by default pictures and text files only.
    """
    parts = album or (message,)
    files: ReadFiles | Unreadable = ReadFiles()
    if message.text is None or message.reply_to_message is not None:
        # A text has no file; the message that it replies to may have one.
        files = await (reader or FileReader()).read(message, parts, bot)
    if isinstance(files, Unreadable):
        return files
    captions = [text if part.message_id == message.message_id else part.caption for part in parts]
    text = "\n\n".join(caption for caption in captions if caption)
    quoted = _quoted_text(message, bot)
    if not (text or files.attachments or files.texts or quoted):
        return Unreadable("unsupported-media" if message.text is None else "nothing-asked")
    return Incoming(
        key=conversation_key(message),
        chat_kind=ChatKind.GROUP if is_group(message) else ChatKind.PRIVATE,
        speaker=message_speaker(message),
        text=text,
        sent_at=message.date,
        attachments=_with_authors(files.attachments, message, parts),
        chat_title=message.chat.title,
        quoted=quoted,
        quoted_from=_quoted_author(message) if quoted else None,
        files=files.texts,
        message_id=message.message_id,
    )


def to_text_only(message: Message, text: str, *, draws: bool = False) -> Incoming:
    """Converts a message to a text of it, without files and quotations.

    Args:
        message: gives the conversation and the speaker.
        text: the prompt for the model.
        draws: whether the text describes a picture that is drawn.
    """
    return Incoming(
        key=conversation_key(message),
        chat_kind=ChatKind.GROUP if is_group(message) else ChatKind.PRIVATE,
        speaker=message_speaker(message),
        text=text,
        sent_at=message.date,
        chat_title=message.chat.title,
        draws=draws,
    )


def _with_authors(
    attachments: tuple[Attachment, ...], message: Message, parts: Sequence[Message]
) -> tuple[Attachment, ...]:
    """Returns the attachments, a recording that a message in a group replies to with the name of who speaks in it."""
    author = _quoted_author(message)
    is_own = any(part.voice or part.audio or part.video_note or part.document for part in parts)
    if author is None or is_own:
        return attachments
    return tuple(replace(each, said_by=author) if each.is_audio else each for each in attachments)


def _quoted_text(message: Message, bot: Bot) -> str | None:
    """Returns the quoted or replied-to text, except for the bot's own messages: the conversation contains them."""
    original = message.reply_to_message
    if original is not None and original.forum_topic_created is not None:
        # In a topic every message formally replies to the service message that created the topic.
        return None
    if message.quote is not None:
        text = message.quote.text
    elif original is None or (original.from_user is not None and original.from_user.id == bot.id):
        return None
    else:
        text = original.text or original.caption
    return text


def _quoted_author(message: Message) -> str | None:
    original = message.reply_to_message
    return message_speaker(original).name if original is not None and is_group(message) else None
