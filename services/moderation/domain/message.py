"""A message of a group as moderation sees it: without Telegram, the author's words apart from what they quote."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class MediaKind(StrEnum):
    """What a message carries beside its text."""

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
    OTHER = "other"


class AuthorKind(StrEnum):
    """Who speaks: a person or bot by themselves, or a chat in its own name."""

    USER = "user"
    BOT = "bot"
    CHANNEL = "channel"


@dataclass(frozen=True, slots=True)
class Author:
    """Who wrote a message; `id` is a user's, or for a CHANNEL the chat's."""

    id: int
    kind: AuthorKind
    name: str
    username: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class GroupMessage:
    """One message, or one version of an edited one; an album is a single one of these.

    Args:
        group_id: the chat.
        message_ids: its message, or all parts of an album, oldest first.
        author: who wrote it.
        sent_at: when it was sent.
        edited_at: when this version was made; None for the first.
        text: the author's own text or caption.
        quoted: what the author quotes of somebody else's message.
        forwarded: the text of a forwarded message, which is not the author's own.
        links: targets of links in the text, as written: URLs, mentions of other chats, phone numbers are none.
        buttons: the targets of link buttons under it.
        media: what it carries.
        via_bot: the user name of the inline bot that made it.
        topic_id: the forum topic, 0 for the group itself.
        reply_to: the message that it replies to.
    """

    group_id: int
    message_ids: tuple[int, ...]
    author: Author
    sent_at: datetime
    edited_at: datetime | None = None
    text: str = ""
    quoted: str = ""
    forwarded: str = ""
    is_forward: bool = False
    links: tuple[str, ...] = ()
    buttons: tuple[str, ...] = ()
    media: tuple[MediaKind, ...] = ()
    via_bot: str | None = None
    topic_id: int = 0
    reply_to: int | None = None

    @property
    def message_id(self) -> int:
        """The first of its messages, by which it is known."""
        return self.message_ids[0]
