"""Converts Telegram messages of a group to the moderation domain: author, own and forwarded text, links, media."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import cast

from aiogram.types import InlineKeyboardMarkup, Message

from bot.telegram.api.client import KnownBot
from bot.telegram.api.files import IMAGE_TYPES, MAX_IMAGE_BYTES, download_picture
from bot.telegram.moderation.attachments import (
    entity_links,
    read_attached_links,
    read_attached_words,
    read_button_texts,
    read_event_words,
    read_origin,
    read_outside_quotation,
)
from core.messages import Attachment
from services.moderation.domain.message import Author, AuthorKind, GroupMessage, MediaKind, PictureRef
from services.moderation.text.excerpt import LONGEST, cut_long

LARGEST_EDGE = 1600
"""Pixels of a photo's longer edge: models scale larger ones down."""
SHORTEST_PART = 1000
"""Characters that are read of each part of an album, however many there are."""
RICH_TEXTS = frozenset({"text", "summary", "credit"})
"""Fields of rich blocks that hold a text: a string, a formatted run, or a list of both."""
MEDIA = (
    # The first match wins: an animation is a document too, and a venue has a location.
    ("photo", MediaKind.PHOTO), ("animation", MediaKind.ANIMATION), ("video", MediaKind.VIDEO),
    ("video_note", MediaKind.VIDEO_NOTE), ("voice", MediaKind.VOICE), ("audio", MediaKind.AUDIO),
    ("document", MediaKind.DOCUMENT), ("sticker", MediaKind.STICKER), ("contact", MediaKind.CONTACT),
    ("venue", MediaKind.LOCATION), ("location", MediaKind.LOCATION), ("poll", MediaKind.POLL),
    ("game", MediaKind.GAME), ("story", MediaKind.STORY), ("paid_media", MediaKind.OTHER),
    ("live_photo", MediaKind.PHOTO), ("dice", MediaKind.OTHER), ("checklist", MediaKind.CHECKLIST),
    ("giveaway", MediaKind.OTHER), ("invoice", MediaKind.OTHER),
)  # fmt: skip


def to_group_message(message: Message, parts: Sequence[Message] = ()) -> GroupMessage:
    """Converts a message of a group, or all parts of an album to one message.

    Args:
        message: a new or edited message.
        parts: every part of its album; empty for a single message.
    """
    parts = sorted(parts or (message,), key=lambda part: part.message_id)
    is_forward = any(part.forward_origin is not None for part in parts)
    texts = [found for part in parts if (found := _all_text(part))]
    longest = max(SHORTEST_PART, LONGEST // max(len(texts), 1))
    text = "\n\n".join(cut_long(found, longest) for found in texts)
    outside = read_outside_quotation(message)
    media = [kind for part in parts for kind in _media(part)]
    return GroupMessage(
        group_id=message.chat.id,
        message_ids=tuple(dict.fromkeys(part.message_id for part in parts)),
        author=to_author(message),
        sent_at=message.date,
        edited_at=_edited_at(message),
        text="" if is_forward else text,
        quoted=cut_long(_quoted(message) if outside is None else outside),
        quotes_outside=bool(outside),
        # A forwarded sticker or picture says no more than the name over it.
        forwarded=(text or read_origin(message)) if is_forward else "",
        is_forward=is_forward,
        links=tuple(dict.fromkeys(link for part in parts for link in _links(part))),
        buttons=tuple(dict.fromkeys(target for part in parts for target in _button_targets(part.reply_markup))),
        media=tuple(media),
        via_bot=message.via_bot.username if message.via_bot is not None else None,
        album=message.media_group_id,
        topic_id=(message.message_thread_id or 0) if message.is_topic_message else 0,
        reply_to=message.reply_to_message.message_id if message.reply_to_message is not None else None,
        pictures=tuple(picture for part in parts for picture in _pictures(part)),
    )


def to_author(message: Message) -> Author:
    """Returns the author of a message; for a channel or an anonymous admin that is a chat."""
    chat, user = message.sender_chat, message.from_user
    if chat is not None:
        return Author(chat.id, AuthorKind.CHANNEL, chat.full_name, chat.username)
    if user is None:
        return Author(message.chat.id, AuthorKind.CHANNEL, message.chat.full_name)
    kind = AuthorKind.BOT if user.is_bot else AuthorKind.USER
    return Author(user.id, kind, user.full_name, user.username, user.language_code)


def _edited_at(message: Message) -> datetime | None:
    return None if message.edit_date is None else datetime.fromtimestamp(message.edit_date, UTC)


def _all_text(message: Message) -> str:
    """Returns all text of a message: text or caption, rich blocks, attachments, buttons."""
    texts = [message.text or message.caption or "", *_rich_texts(message)]
    texts += [*read_attached_words(message), *read_event_words(message), *read_button_texts(message.reply_markup)]
    return "\n".join(dict.fromkeys(text for text in texts if text))


def _quoted(message: Message) -> str:
    """Returns the quoted or replied-to text; the service message that created a topic has none."""
    if message.quote is not None:
        return message.quote.text
    original = message.reply_to_message
    return "" if original is None else original.text or original.caption or ""


def _links(message: Message) -> Iterator[str]:
    text = message.text or message.caption or ""
    yield from entity_links(text, message.entities or message.caption_entities)
    yield from read_attached_links(message)
    preview = message.link_preview_options
    if preview is not None and preview.url:
        # The preview may be of a URL that is not in the text.
        yield preview.url
    if message.rich_message is not None:
        yield from _urls(message.rich_message.model_dump())


def _rich_texts(message: Message) -> Iterator[str]:
    """Yields the texts in the blocks of a rich message; formatting within a word does not part it."""
    if message.rich_message is not None:
        yield from _block_texts(message.rich_message.model_dump())


def _block_texts(value: object) -> Iterator[str]:
    match value:
        case dict():
            for key, inner in cast("dict[str, object]", value).items():
                if key in RICH_TEXTS:
                    yield _join_runs(inner)
                else:
                    yield from _block_texts(inner)
        case list():
            for inner in cast("list[object]", value):
                yield from _block_texts(inner)
        case _:
            return


def _join_runs(text: object) -> str:
    match text:
        case str():
            return text
        case list():
            return "".join(map(_join_runs, cast("list[object]", text)))
        case dict():
            run = cast("dict[str, object]", text)
            if "button" in run:
                return " ".join(_block_texts(run["button"]))
            return _join_runs(run.get("text") or run.get("alternative_text") or run.get("expression"))
        case _:
            return ""


def _urls(value: object) -> Iterator[str]:
    match value:
        case dict():
            for key, inner in cast("dict[str, object]", value).items():
                if key == "url" and isinstance(inner, str):
                    yield inner
                else:
                    yield from _urls(inner)
        case list():
            for inner in cast("list[object]", value):
                yield from _urls(inner)
        case _:
            return


def _button_targets(markup: InlineKeyboardMarkup | None) -> Iterator[str]:
    for row in markup.inline_keyboard if markup is not None else ():
        for button in row:
            if button.url:
                yield button.url
            if button.web_app is not None:
                yield button.web_app.url
            if button.login_url is not None:
                yield button.login_url.url


def _pictures(message: Message) -> Iterator[PictureRef]:
    """Yields a photo in the size that a model reads best, or a picture that was sent as a file."""
    fitting = [size for size in message.photo or () if max(size.width, size.height) <= LARGEST_EDGE]
    if message.photo:
        best = max(fitting or message.photo[:1], key=lambda size: size.width * size.height)
        yield PictureRef(best.file_id, best.file_unique_id)
    document = message.document
    if document is not None and document.mime_type in IMAGE_TYPES and (document.file_size or 0) <= MAX_IMAGE_BYTES:
        yield PictureRef(document.file_id, document.file_unique_id, document.mime_type or "image/jpeg")


class PictureFiles:
    """Fetches the pictures of messages from Telegram."""

    def __init__(self, bot: KnownBot) -> None:
        self._bot = bot

    async def fetch(self, picture: PictureRef) -> Attachment | None:
        """Returns a picture's content; None where it cannot be had, or is too large."""
        return await download_picture(self._bot, picture.file_id, picture.media_type)


def _media(message: Message) -> Iterator[MediaKind]:
    kind = next((kind for name, kind in MEDIA if getattr(message, name, None)), None)
    if kind is not None:
        yield kind
