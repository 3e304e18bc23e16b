"""Group messages as moderation reads them: free of Telegram types, the author's words apart from quoted ones."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class MediaKind(StrEnum):
    """An attachment of a message."""

    PHOTO = "photo"
    VIDEO = "video"
    VOICE = "voice"
    AUDIO = "audio"
    DOCUMENT = "document"
    STICKER = "sticker"
    ANIMATION = "animation"
    VIDEO_NOTE = "video_note"
    CONTACT = "contact"
    LOCATION = "location"
    POLL = "poll"
    GAME = "game"
    STORY = "story"
    CHECKLIST = "checklist"
    OTHER = "other"


class AuthorKind(StrEnum):
    """The kind of a sender. A CHANNEL is any chat that posts in its own name."""

    USER = "user"
    BOT = "bot"
    CHANNEL = "channel"


@dataclass(frozen=True, slots=True)
class Author:
    """The sender of a message; `id` is a user's, or for a CHANNEL the chat's."""

    id: int
    kind: AuthorKind
    name: str
    username: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class PictureRef:
    """A picture of a message: an id to fetch it by, one that equal pictures share, and its MIME type."""

    file_id: str
    unique_id: str
    media_type: str = "image/jpeg"

    @property
    def known_as(self) -> str:
        """The name by which an admin's decision about this picture is remembered."""
        return f"{PICTURE_PREFIX}{self.unique_id}"


PICTURE_PREFIX = "picture:"


@dataclass(frozen=True, slots=True)
class GroupMessage:
    """One message or one version of an edited message. An album is a single one.

    Args:
        message_ids: ids of all parts of an album, oldest first; otherwise one.
        edited_at: time of this version; None for the first.
        text: the author's own text or caption, and the words of attachments: a contact's name, a file's, a poll.
        quoted: text that the author quotes from another message.
        quotes_outside: the quotation is from another chat, and may be its advert.
        forwarded: text of a forwarded message, which is not the author's own.
        links: link targets in the text, as written: URLs and mentions of other chats, no phone numbers.
        buttons: targets of the link buttons below the message.
        via_bot: user name of the inline bot that produced the message.
        album: id of the album that the message is, or is a part of.
        topic_id: forum topic, 0 for the group itself.
        reply_to: id of the message that this one replies to.
    """

    group_id: int
    message_ids: tuple[int, ...]
    author: Author
    sent_at: datetime
    edited_at: datetime | None = None
    text: str = ""
    quoted: str = ""
    quotes_outside: bool = False
    forwarded: str = ""
    is_forward: bool = False
    links: tuple[str, ...] = ()
    buttons: tuple[str, ...] = ()
    media: tuple[MediaKind, ...] = ()
    via_bot: str | None = None
    album: str | None = None
    topic_id: int = 0
    reply_to: int | None = None
    pictures: tuple[PictureRef, ...] = ()

    @property
    def message_id(self) -> int:
        """The first of its message ids, which identifies an album."""
        return self.message_ids[0]
