"""Converts Telegram messages to core messages: conversation, speaker, text, attachments."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import structlog
from aiogram import Bot
from aiogram.enums import ChatType
from aiogram.exceptions import ClientDecodeError, TelegramAPIError
from aiogram.types import Message, PhotoSize, User
from aiohttp import ClientError

from bot.telegram.api.errors import describe_api_error
from core.messages import Attachment, ChatKind, ConversationKey, Incoming, Speaker, Surface, TextFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

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
    attachments, texts = files
    captions = [text if part.message_id == message.message_id else part.caption for part in album or (message,)]
    text = "\n\n".join(caption for caption in captions if caption)
    quoted = _quoted_text(message, bot)
    if not (text or attachments or texts or quoted):
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
        quoted_from=_quoted_author(message) if quoted else None,
        files=texts,
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
) -> tuple[tuple[Attachment, ...], tuple[TextFile, ...]] | Unreadable:
    """Returns the images and the text files of a message."""
    found = [_find_file(part) for part in parts]
    for file in found:
        if isinstance(file, Unreadable):
            return file
    files = [file for file in found if isinstance(file, _File)]
    if not files and (replied := _replied_photo(message)) is not None:
        files = [replied]
    allowances = {True: _Allowance(MAX_TEXT_FILE_BYTES), False: _Allowance(MAX_ALBUM_BYTES)}
    for are_text, allowance in allowances.items():
        if sum(file.size for file in files if file.is_text is are_text) > allowance.left:
            return Unreadable("file-too-large")
    attachments: list[Attachment] = []
    texts: list[TextFile] = []
    downloads = (_download(bot, file, allowances[file.is_text]) for file in files)
    for file, data in zip(files, await asyncio.gather(*downloads), strict=True):
        if isinstance(data, Unreadable):
            return data
        if file.is_text:
            texts.append(TextFile(file.name or "file", data.decode(errors="replace")))
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


@dataclass(slots=True)
class _Allowance:
    """Bytes that the files of a message may still have together."""

    left: int


class _TooLarge(Exception):
    """The file is larger than the limit, whether or not Telegram reported its size."""


class _BoundedBuffer(BytesIO):
    """Takes a download up to a number of bytes, its own and those of the whole message."""

    def __init__(self, limit: int, allowance: _Allowance) -> None:
        super().__init__()
        self._left = limit
        self._allowance = allowance

    def write(self, data: "ReadableBuffer", /) -> int:
        size = memoryview(data).nbytes
        self._left -= size
        self._allowance.left -= size
        if self._left < 0 or self._allowance.left < 0:
            raise _TooLarge
        return super().write(data)


async def _download(bot: Bot, file: _File, allowance: _Allowance) -> bytes | Unreadable:
    target = _BoundedBuffer(MAX_TEXT_FILE_BYTES if file.is_text else MAX_IMAGE_BYTES, allowance)
    try:
        async with asyncio.timeout(DOWNLOAD_TIMEOUT_S):
            await bot.download(file.file_id, destination=target, timeout=DOWNLOAD_TIMEOUT_S)
    except _TooLarge:
        return Unreadable("file-too-large")
    except (TelegramAPIError, ClientDecodeError, ClientError, OSError, TimeoutError) as error:
        log.warning("attachment.download_failed", reason=describe_api_error(error))
        return Unreadable("file-not-fetched")
    return target.getvalue()


async def download_picture(bot: Bot, file_id: str, media_type: str) -> Attachment | None:
    """Downloads a picture; None where that fails, or it is too large."""
    data = await _download(bot, _File(file_id, media_type, 0), _Allowance(MAX_IMAGE_BYTES))
    return None if isinstance(data, Unreadable) else Attachment(data, media_type)


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
