"""A Telegram message becomes one without Telegram: its text, its files, who says it and where."""

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

LARGEST_IMAGE = 10 * 1024 * 1024
LARGEST_ALBUM = 20 * 1024 * 1024
"""All pictures of a message together: what providers take in one request, with room for base64."""
LARGEST_TEXT_FILE = 200 * 1024
"""A text file goes into the prompt as it is; 200 KB are some 50,000 tokens."""
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
    """A message that no answer can be made of; `key` is the text that says why."""

    key: str


def conversation_key(message: Message) -> ConversationKey:
    """The conversation that a message belongs to: a chat, or a topic of it."""
    topic = message.message_thread_id if message.is_topic_message else None
    return ConversationKey(Surface.TELEGRAM, message.chat.id, topic or 0)


def to_speaker(user: User) -> Speaker:
    """Who a Telegram user is."""
    return Speaker(user.id, user.full_name, user.language_code)


def is_group(message: Message) -> bool:
    """Whether several people may be in the chat."""
    return message.chat.type != ChatType.PRIVATE


def message_speaker(message: Message) -> Speaker:
    """Who wrote a message; a channel or an anonymous admin speaks under the name of the chat."""
    if message.sender_chat is not None:
        return Speaker(message.sender_chat.id, message.sender_chat.full_name)
    if message.from_user is not None:
        return to_speaker(message.from_user)
    return Speaker(message.chat.id, message.chat.full_name)


async def to_incoming(message: Message, bot: Bot, text: str, album: Sequence[Message] = ()) -> Incoming | Unreadable:
    """Read a message, files and all.

    Args:
        message: the message; of an album, the part that is for the bot.
        bot: fetches its files.
        text: what of its text is meant for the bot.
        album: every part of the album, `message` among them; empty where it is none.
    """
    read = await _files(message, album or (message,), bot)
    if isinstance(read, Unreadable):
        return read
    attachments, inlined = read
    captions = [text if part.message_id == message.message_id else part.caption for part in album or (message,)]
    text = "\n\n".join(part for part in (*captions, *inlined) if part)
    quoted = _quoted(message, bot)
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
    """A file of a message that is worth fetching."""

    file_id: str
    media_type: str
    size: int
    """As Telegram tells; 0 where it does not."""
    name: str | None = None

    @property
    def is_text(self) -> bool:
        return self.media_type not in IMAGE_TYPES


async def _files(
    message: Message, parts: Sequence[Message], bot: Bot
) -> tuple[tuple[Attachment, ...], tuple[str, ...]] | Unreadable:
    """The images of a message, and the texts of its text files."""
    found = [_file_of(part) for part in parts]
    for file in found:
        if isinstance(file, Unreadable):
            return file
    files = [file for file in found if isinstance(file, _File)]
    if not files and (shown := _shown_to_us(message)) is not None:
        files = [shown]
    for are_text, largest in ((True, LARGEST_TEXT_FILE), (False, LARGEST_ALBUM)):
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


def _file_of(message: Message) -> _File | Unreadable | None:
    if message.photo:
        return _photo(message.photo)
    if message.voice or message.audio or message.video_note:
        return Unreadable("cannot-hear-audio")
    if message.video or message.paid_media:
        # Without it a caption would be answered as if it spoke of nothing.
        return Unreadable("unsupported-media")
    document = message.document
    if document is None:
        return None
    name, media_type = document.file_name or "file", document.mime_type or ""
    readable = media_type in IMAGE_TYPES or TEXT_TYPES.match(media_type) or TEXT_NAMES.search(name)
    if not readable:
        return Unreadable("unsupported-media")
    largest = LARGEST_IMAGE if media_type in IMAGE_TYPES else LARGEST_TEXT_FILE
    size = document.file_size or 0
    return Unreadable("file-too-large") if size > largest else _File(document.file_id, media_type, size, name)


def _shown_to_us(message: Message) -> _File | None:
    """The picture that somebody in a group points the bot to by replying to it."""
    original = message.reply_to_message
    if original is None or not original.photo or not is_group(message):
        return None
    return _photo(original.photo)


def _photo(sizes: Sequence[PhotoSize]) -> _File:
    best = max(sizes, key=lambda size: size.width * size.height)
    return _File(best.file_id, "image/jpeg", best.file_size or 0)


async def _download(bot: Bot, file_id: str) -> bytes | None:
    target = BytesIO()
    try:
        await bot.download(file_id, destination=target, timeout=DOWNLOAD_TIMEOUT_S)
    except (TelegramAPIError, ClientDecodeError, ClientError, OSError, TimeoutError) as error:
        log.warning("incoming.file_not_fetched", reason=describe_api_error(error))
        return None
    return target.getvalue()


def _quoted(message: Message, bot: Bot) -> str | None:
    """What a message replies to, unless the bot said it itself: then it stands in the conversation."""
    original = message.reply_to_message
    if original is not None and original.forum_topic_created is not None:
        # In a topic every message formally replies to the one that opened it.
        return None
    if message.quote is not None:
        words = message.quote.text
    elif original is None or (original.from_user is not None and original.from_user.id == bot.id):
        return None
    else:
        words = original.text or original.caption
    if words and original is not None and is_group(message):
        return f"{message_speaker(original).name}: {words}"
    return words
