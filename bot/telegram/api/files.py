"""Reads the files of a message: downloads them within bounds, and converts sounds for transcription."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import Enum, auto

import structlog
from aiogram import Bot
from aiogram.enums import ChatType
from aiogram.exceptions import ClientDecodeError, TelegramAPIError
from aiogram.types import Audio, Document, Message, PhotoSize, VideoNote, Voice
from aiohttp import ClientError

from bot.telegram.api.client import Allowance, FileTooLarge, download_bounded
from bot.telegram.api.errors import describe_api_error
from core.messages import Attachment, TextFile
from core.ogg import is_ogg_opus, ogg_seconds
from services.files.encodings import decode
from services.files.sandbox import DOCUMENT_LIMITS, SOUND_LIMITS, FileRefused, Refusal, Sandbox, Task

log = structlog.get_logger()

MAX_IMAGE_BYTES = 10 * 1024 * 1024
MAX_ALBUM_BYTES = 20 * 1024 * 1024
"""All images of a message together: the providers' request limit, less the overhead of base64."""
MAX_TEXT_FILE_BYTES = 200 * 1024
"""A text file is inlined into the prompt; 200 KB are about 50,000 tokens."""
MAX_SOUND_BYTES = 20 * 1024 * 1024
"""The largest file that the Bot API hands out."""
LONGEST_SOUND_S = 20 * 60
LARGE_BYTES = 1024 * 1024
LARGE_AT_ONCE = 4
"""Files over `LARGE_BYTES` that are in memory at once, over all chats; others wait, and smaller ones do not."""
IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
TEXT_TYPES = re.compile(r"text/|application/(json|xml|yaml|x-yaml|toml|javascript|x-sh|sql|x-python|x-ndjson)")
TEXT_NAMES = re.compile(
    r"\.(txt|md|rst|csv|tsv|log|json|ya?ml|toml|ini|cfg|xml|html?|css|[jt]sx?|py|rs|go|java|kt|c|h|cc|cpp|rb|php|sh|sql"
    r"|tex|srt)$",
    re.IGNORECASE,
)
OGG_OPUS = "audio/ogg"
MAX_DOCUMENT_BYTES = MAX_SOUND_BYTES
MAX_DOCUMENT_CHARACTERS = 1_000_000
"""The longest text that is read of a document."""
DOCUMENT_KINDS: Sequence[tuple[re.Pattern[str], re.Pattern[str], str]] = tuple(
    (re.compile(rf"\.({names})$", re.IGNORECASE), re.compile(types, re.IGNORECASE), kind)
    for names, types, kind in (
        ("pdf", r"application/(x-)?pdf$", "pdf"),
        ("doc[xm]", r"application/vnd\.openxmlformats-officedocument\.wordprocessingml\.", "docx"),
        (
            "xls[xmb]?|ods",
            r"application/vnd\.(ms-excel|openxmlformats-officedocument\.spreadsheetml\.|oasis\.opendocument\.spreadsheet)",
            "sheet",
        ),
        ("ppt[xm]", r"application/vnd\.openxmlformats-officedocument\.presentationml\.", "pptx"),
        ("x?html?", r"(text/html|application/xhtml\+xml)$", "html"),
    )
)
"""Kinds of documents with their names and media types; the content decides in the end."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that cannot be answered; `key` is the text key of the reason, with its arguments."""

    key: str
    arguments: Mapping[str, str | int] = field(default_factory=dict[str, str | int])


@dataclass(frozen=True, slots=True)
class ReadFiles:
    """The files of a message: images and sounds, and those that are text."""

    attachments: tuple[Attachment, ...] = ()
    texts: tuple[TextFile, ...] = ()


class _Kind(Enum):
    """The way in which a file is read."""

    IMAGE = auto()
    TEXT = auto()
    SOUND = auto()
    DOCUMENT = auto()


@dataclass(frozen=True, slots=True)
class _KindLimits:
    """Bytes of one file, and of all files of its kind in a message."""

    file: int
    message: int


_LIMITS: Mapping[_Kind, _KindLimits] = {
    _Kind.IMAGE: _KindLimits(MAX_IMAGE_BYTES, MAX_ALBUM_BYTES),
    _Kind.TEXT: _KindLimits(MAX_TEXT_FILE_BYTES, MAX_TEXT_FILE_BYTES),
    _Kind.DOCUMENT: _KindLimits(MAX_DOCUMENT_BYTES, MAX_DOCUMENT_BYTES),
    _Kind.SOUND: _KindLimits(MAX_SOUND_BYTES, MAX_SOUND_BYTES),
}


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a message, not downloaded yet."""

    file_id: str
    kind: _Kind
    media_type: str
    size: int
    """In bytes; 0 if Telegram does not report it."""
    name: str | None = None


class FileReader:
    """Reads the files of messages.

    Args:
        sandbox: reads documents and converts sounds; None where the bot reads pictures and text files only.
        hears: whether recordings are transcribed.
    """

    def __init__(self, sandbox: Sandbox | None = None, *, hears: bool = False) -> None:
        self._sandbox = sandbox
        self._hears = hears
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def read(self, message: Message, parts: Sequence[Message], bot: Bot) -> ReadFiles | Unreadable:
        """Returns the files of a message; of an album, those of all its parts."""
        found = [self._find(part) for part in parts]
        for file in found:
            if isinstance(file, Unreadable):
                return file
        files = [file for file in found if isinstance(file, _File)]
        if not files and (replied := self._find_replied(message, bot)) is not None:
            if isinstance(replied, Unreadable):
                return replied
            files = [replied]
        allowances = {kind: Allowance(limits.message) for kind, limits in _LIMITS.items()}
        for kind, allowance in allowances.items():
            if sum(file.size for file in files if file.kind is kind) > allowance.left:
                return Unreadable("file-too-large")
        read = await asyncio.gather(*(self._read(bot, file, allowances[file.kind]) for file in files))
        for each in read:
            if isinstance(each, Unreadable):
                return each
        return ReadFiles(
            tuple(each for each in read if isinstance(each, Attachment)),
            tuple(each for each in read if isinstance(each, TextFile)),
        )

    def _find(self, message: Message) -> _File | Unreadable | None:
        if message.photo:
            return _largest_photo(message.photo)
        if (sound := message.voice or message.audio or message.video_note) is not None:
            return self._find_sound(sound, sound.duration)
        if message.video or message.paid_media:
            # Answering the caption without the video would miss its subject.
            return Unreadable("unsupported-media")
        document = message.document
        if document is None:
            return None
        return self._find_document(document)

    def _find_document(self, document: Document) -> _File | Unreadable:
        name, media_type, size = document.file_name or "file", document.mime_type or "", document.file_size or 0
        if media_type.startswith("audio/"):
            # Sent as a file; the sound itself tells how long it is.
            return self._find_sound(document, 0)
        if media_type in IMAGE_TYPES:
            kind = _Kind.IMAGE
        elif self._sandbox is not None and _document_kind(name, media_type) is not None:
            kind = _Kind.DOCUMENT
        elif TEXT_TYPES.match(media_type) or TEXT_NAMES.search(name):
            kind = _Kind.DOCUMENT if self._sandbox is not None and size > MAX_TEXT_FILE_BYTES else _Kind.TEXT
        else:
            return Unreadable("unsupported-media")
        return _checked(_File(document.file_id, kind, media_type, size, name))

    def _find_sound(self, sound: Voice | Audio | VideoNote | Document, seconds: int) -> _File | Unreadable:
        if not self._hears or self._sandbox is None:
            return Unreadable("cannot-hear-audio")
        if seconds > LONGEST_SOUND_S:
            return _TOO_LONG
        return _checked(_File(sound.file_id, _Kind.SOUND, OGG_OPUS, sound.file_size or 0))

    def _find_replied(self, message: Message, bot: Bot) -> _File | Unreadable | None:
        """Returns the photo, the recording or the document that a message in a group replies to.

        Texts and files of the bot itself are in the conversation already; its pictures are not.
        """
        original = message.reply_to_message
        if original is None or message.chat.type == ChatType.PRIVATE:
            return None
        if original.photo:
            return _largest_photo(original.photo)
        if original.from_user is not None and original.from_user.id == bot.id:
            return None
        sound = original.voice or original.audio or original.video_note
        if sound is not None and self._hears:
            return self._find_sound(sound, sound.duration)
        if original.document is not None and self._sandbox is not None:
            found = self._find_document(original.document)
            is_left_out = isinstance(found, Unreadable) and found.key in {"unsupported-media", "cannot-hear-audio"}
            return None if is_left_out else found
        return None

    async def _read(self, bot: Bot, file: _File, allowance: Allowance) -> Attachment | TextFile | Unreadable:
        is_large = file.size > LARGE_BYTES or (not file.size and _LIMITS[file.kind].file > LARGE_BYTES)
        async with self._large if is_large else nullcontext():
            return await self._read_now(bot, file, allowance)

    async def _read_now(self, bot: Bot, file: _File, allowance: Allowance) -> Attachment | TextFile | Unreadable:
        data = await _download(bot, file, allowance)
        if isinstance(data, Unreadable):
            return data
        match file.kind:
            case _Kind.TEXT | _Kind.DOCUMENT if self._sandbox is not None and data.startswith(_BINARY):
                return await self._read_in_child(self._sandbox, data, file.name or "file", "text")
            case _Kind.TEXT:
                return await _read_text(data, file.name or "file", by_part=False)
            case _Kind.DOCUMENT:
                return await self._read_document(data, file.name or "file", file.media_type)
            case _Kind.SOUND:
                return await self._convert_sound(data)
            case _Kind.IMAGE:
                return Attachment(data, file.media_type, file.name)

    async def _read_document(self, data: bytes, name: str, media_type: str) -> TextFile | Unreadable:
        """Returns the text of a document; that of a long text file without a child."""
        kind = _document_kind(name, media_type)
        if kind is None or self._sandbox is None:
            return await _read_text(data, name, by_part=True)
        return await self._read_in_child(self._sandbox, data, name, kind)

    async def _read_in_child(self, sandbox: Sandbox, data: bytes, name: str, kind: str) -> TextFile | Unreadable:
        options = {"kind": kind, "most": MAX_DOCUMENT_CHARACTERS}
        try:
            result = await sandbox.run(Task.DOCUMENT, data, DOCUMENT_LIMITS, options)
        except FileRefused as refused:
            return Unreadable(f"document-{refused.why}")
        return TextFile(name, result.body.decode(), by_part=True, is_cut=bool(result.facts["is_cut"]))

    async def _convert_sound(self, data: bytes) -> Attachment | Unreadable:
        """Returns a recording as OGG/Opus, which voice messages are already."""
        if not is_ogg_opus(data) and self._sandbox is not None:
            try:
                result = await self._sandbox.run(Task.SOUND, data, SOUND_LIMITS, {"longest_s": LONGEST_SOUND_S})
            except FileRefused as refused:
                return _SOUND_REFUSALS.get(refused.why, Unreadable("audio-broken"))
            data = result.body
        return _TOO_LONG if ogg_seconds(data) > LONGEST_SOUND_S + 1 else Attachment(data, OGG_OPUS, "voice.ogg")


_BINARY = (
    b"%PDF-",
    b"PK\x03\x04",
    b"\xd0\xcf\x11\xe0",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"\x7fELF",
    b"\x1f\x8b",
    b"MZ\x90",
)
"""First bytes of binary formats; the name of a file is not trusted."""
_EMPTY = Unreadable(f"document-{Refusal.EMPTY}")
_TOO_LONG = Unreadable("audio-too-long", {"minutes": LONGEST_SOUND_S // 60})
_SOUND_REFUSALS: Mapping[Refusal, Unreadable] = {
    Refusal.TOO_LONG: _TOO_LONG,
    Refusal.NO_SOUND: Unreadable("audio-silent"),
    Refusal.EMPTY: Unreadable("audio-silent"),
}


async def _read_text(data: bytes, name: str, *, by_part: bool) -> TextFile | Unreadable:
    """Returns a text file, with its encoding where that is a guess."""
    found = await asyncio.to_thread(decode, data)
    if found is None:
        return Unreadable("text-encoding")
    if not found.text.strip():
        return _EMPTY
    if not by_part:
        return TextFile(name, found.text, guessed_encoding=found.guessed_encoding)
    text = found.text[:MAX_DOCUMENT_CHARACTERS]
    return TextFile(
        name, text, by_part=True, is_cut=len(found.text) > len(text), guessed_encoding=found.guessed_encoding
    )


def _document_kind(name: str, media_type: str) -> str | None:
    """Returns the kind of a document that its name or its media type promises."""
    for names, types, kind in DOCUMENT_KINDS:
        if names.search(name) or types.match(media_type):
            return kind
    return None


def _checked(file: _File) -> _File | Unreadable:
    return Unreadable("file-too-large") if file.size > _LIMITS[file.kind].file else file


def _largest_photo(sizes: Sequence[PhotoSize]) -> _File:
    best = max(sizes, key=lambda size: size.width * size.height)
    return _File(best.file_id, _Kind.IMAGE, "image/jpeg", best.file_size or 0)


async def _download(bot: Bot, file: _File, allowance: Allowance) -> bytes | Unreadable:
    try:
        return await download_bounded(bot, file.file_id, _LIMITS[file.kind].file, allowance)
    except FileTooLarge:
        return Unreadable("file-too-large")
    except (TelegramAPIError, ClientDecodeError, ClientError, OSError, TimeoutError) as error:
        log.warning("attachment.download_failed", reason=describe_api_error(error))
        return Unreadable("file-not-fetched")


async def download_picture(bot: Bot, file_id: str, media_type: str) -> Attachment | None:
    """Downloads a picture; None where that fails, or it is too large."""
    data = await _download(bot, _File(file_id, _Kind.IMAGE, media_type, 0), Allowance(MAX_IMAGE_BYTES))
    return None if isinstance(data, Unreadable) else Attachment(data, media_type)
