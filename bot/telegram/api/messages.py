"""Converts Telegram messages to core messages: conversation, speaker, text, attachments."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import structlog
from aiogram import Bot
from aiogram.enums import ChatType
from aiogram.exceptions import ClientDecodeError, TelegramAPIError
from aiogram.types import Message, PhotoSize, User
from aiohttp import ClientError

from bot.telegram.api.errors import describe_api_error
from core.messages import Attachment, ChatKind, ConversationKey, Incoming, Speaker, Surface

log = structlog.get_logger()

MAX_IMAGE_BYTES = 10 * 1024 * 1024
MAX_ALBUM_BYTES = 20 * 1024 * 1024
"""All images of a message together: the providers' request limit, less the overhead of base64."""
MAX_TEXT_FILE_BYTES = 200 * 1024
"""A text file is inlined into the prompt; 200 KB are about 50,000 tokens."""
DOWNLOAD_TIMEOUT_S = 30
IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
TEXT_TYPES = re.compile(r"text/|application/(json|xml|yaml|x-yaml|toml|javascript|x-sh|sql|x-python|x-ndjson)")
TEXT_NAMES = re.compile(
    r"\.(txt|md|rst|csv|tsv|log|json|ya?ml|toml|ini|cfg|xml|html?|css|[jt]sx?|py|rs|go|java|kt|c|h|cc|cpp|rb|php|sh|sql"
    r"|tex|srt)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that cannot be answered; `key` is the text key of the reason."""

    key: str


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
        return Speaker(message.sender_chat.id, message.sender_chat.full_name)
    if message.from_user is not None:
        return to_speaker(message.from_user)
    return Speaker(message.chat.id, message.chat.full_name)


async def to_incoming(message: Message, bot: Bot, text: str, album: Sequence[Message] = ()) -> Incoming | Unreadable:
    """Converts a message, downloading its images and text files.

    Args:
        message: the message; of an album, the part that addresses the bot.
        bot: downloads the files.
        text: the part of its text that addresses the bot.
        album: every part of the album, including `message`; empty for a single message.
    """
    files = await _read_files(message, album or (message,), bot)
    if isinstance(files, Unreadable):
        return files
    attachments, inlined = files
    captions = [text if part.message_id == message.message_id else part.caption for part in album or (message,)]
    text = "\n\n".join(part for part in (*captions, *inlined) if part)
    quoted = _quoted_text(message, bot)
    if not text and not attachments and not quoted:
        return Unreadable("unsupported-media" if message.text is None else "nothing-asked")
    return Incoming(
        key=conversation_key(message),
        chat_kind=ChatKind.GROUP if is_group(message) else ChatKind.PRIVATE,
        speaker=message_speaker(message),
        text=text,
        sent_at=message.date,
        attachments=attachments,
        chat_title=message.chat.title,
        quoted=quoted,
    )


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a message, not downloaded yet."""

    file_id: str
    media_type: str
    size: int
    """In bytes; 0 if Telegram does not report it."""
    name: str | None = None

    @property
    def is_text(self) -> bool:
        return self.media_type not in IMAGE_TYPES


async def _read_files(
    message: Message, parts: Sequence[Message], bot: Bot
) -> tuple[tuple[Attachment, ...], tuple[str, ...]] | Unreadable:
    """Returns the images of a message, and its text files inlined as text."""
    found = [_find_file(part) for part in parts]
    for file in found:
        if isinstance(file, Unreadable):
            return file
    files = [file for file in found if isinstance(file, _File)]
    if not files and (replied := _replied_photo(message)) is not None:
        files = [replied]
    for are_text, largest in ((True, MAX_TEXT_FILE_BYTES), (False, MAX_ALBUM_BYTES)):
        if sum(file.size for file in files if file.is_text is are_text) > largest:
            return Unreadable("file-too-large")
    attachments: list[Attachment] = []
    texts: list[str] = []
    for file, data in zip(files, await asyncio.gather(*(_download(bot, file.file_id) for file in files)), strict=True):
        if data is None:
            return Unreadable("file-not-fetched")
        if file.is_text:
            texts.append(f"[The file {file.name}:]\n{data.decode(errors='replace')}\n[End of the file]")
        else:
            attachments.append(Attachment(data, file.media_type, file.name))
    return tuple(attachments), tuple(texts)


def _find_file(message: Message) -> _File | Unreadable | None:
    if message.photo:
        return _largest_photo(message.photo)
    if message.voice or message.audio or message.video_note:
        return Unreadable("cannot-hear-audio")
    if message.video or message.paid_media:
        # Answering the caption without the video would miss its subject.
        return Unreadable("unsupported-media")
    document = message.document
    if document is None:
        return None
    name, media_type = document.file_name or "file", document.mime_type or ""
    readable = media_type in IMAGE_TYPES or TEXT_TYPES.match(media_type) or TEXT_NAMES.search(name)
    if not readable:
        return Unreadable("unsupported-media")
    largest = MAX_IMAGE_BYTES if media_type in IMAGE_TYPES else MAX_TEXT_FILE_BYTES
    size = document.file_size or 0
    return Unreadable("file-too-large") if size > largest else _File(document.file_id, media_type, size, name)


def _replied_photo(message: Message) -> _File | None:
    """Returns the photo that a message in a group replies to."""
    original = message.reply_to_message
    if original is None or not original.photo or not is_group(message):
        return None
    return _largest_photo(original.photo)


def _largest_photo(sizes: Sequence[PhotoSize]) -> _File:
    best = max(sizes, key=lambda size: size.width * size.height)
    return _File(best.file_id, "image/jpeg", best.file_size or 0)


async def _download(bot: Bot, file_id: str) -> bytes | None:
    target = BytesIO()
    try:
        await bot.download(file_id, destination=target, timeout=DOWNLOAD_TIMEOUT_S)
    except (TelegramAPIError, ClientDecodeError, ClientError, OSError, TimeoutError) as error:
        log.warning("attachment.download_failed", reason=describe_api_error(error))
        return None
    return target.getvalue()


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
    if text and original is not None and is_group(message):
        return f"{message_speaker(original).name}: {text}"
    return text
