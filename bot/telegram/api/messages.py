"""Converts Telegram messages to core messages: conversation, speaker, text, attachments."""

from collections.abc import Sequence
from dataclasses import replace

from aiogram import Bot
from aiogram.enums import ChatType
from aiogram.types import Message, User

from bot.telegram.api.files import FileReader, Unreadable
from core.messages import Attachment, ChatKind, ConversationKey, Incoming, Speaker, Surface


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
    files = await (reader or FileReader()).read(message, album or (message,), bot)
    if isinstance(files, Unreadable):
        return files
    captions = [text if part.message_id == message.message_id else part.caption for part in album or (message,)]
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
        attachments=_with_authors(files.attachments, message, album or (message,)),
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
        text: what a model is asked.
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
