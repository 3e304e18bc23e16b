"""Chats of the fake Bot API server, and Telegram's rules for their messages."""

import contextlib
import json
import math
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

TEXT_LIMIT = 4096
CALLBACK_DATA_LIMIT = 64
ENTITY_TYPES = frozenset(
    {"mention", "hashtag", "cashtag", "bot_command", "url", "email", "phone_number", "bold", "italic", "underline",
     "strikethrough", "spoiler", "blockquote", "expandable_blockquote", "code", "pre", "text_link", "text_mention",
     "custom_emoji", "date_time"}
)  # fmt: skip
JsonObject = dict[str, Any]


class Refusal(Exception):
    """An error answer of the Bot API."""

    def __init__(self, status: int, description: str, **parameters: int) -> None:
        self.status = status
        self.description = description
        self.parameters = parameters
        super().__init__(description)


def bad(description: str) -> Refusal:
    """Returns a 400."""
    return Refusal(400, f"Bad Request: {description}")


@dataclass(frozen=True)
class Edit:
    """A version of a message."""

    at: float
    text: str
    entities: list[JsonObject]
    markup: JsonObject | None


@dataclass
class Message:
    """The current state of a message; `edits` has all its versions, the sent one first."""

    id: int
    chat_id: int
    sender_id: int
    by_bot: bool
    text: str
    at: float
    entities: list[JsonObject] = field(default_factory=list)
    markup: JsonObject | None = None
    reply_to: int | None = None
    topic_id: int | None = None
    link_preview: JsonObject | None = None
    document: bytes | None = None
    deleted: bool = False
    edits: list[Edit] = field(default_factory=list)
    reactions: list[list[str]] = field(default_factory=list)
    """The bot's reactions after each change."""
    fields: JsonObject = field(default_factory=dict)

    @property
    def buttons(self) -> list[JsonObject]:
        """The buttons of its inline keyboard, in reading order."""
        rows = (self.markup or {}).get("inline_keyboard", [])
        return [button for row in rows for button in row]

    @property
    def labels(self) -> list[str]:
        """The labels of its buttons."""
        return [button["text"] for button in self.buttons]

    def become(self, at: float, text: str, entities: list[JsonObject], markup: JsonObject | None) -> None:
        self.text, self.entities, self.markup = text, entities, markup
        self.edits.append(Edit(at, text, entities, markup))


@dataclass(frozen=True)
class Draft:
    """One state of a message draft."""

    at: float
    draft_id: int
    text: str
    topic_id: int | None
    can_stop: bool


@dataclass
class Chat:
    """A chat. `refusal`, if set, answers every call in it."""

    id: int
    type: str
    title: str | None = None
    messages: list[Message] = field(default_factory=list)
    actions: list[tuple[float, str]] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    admin_ids: set[int] = field(default_factory=set)
    linked_channel: int | None = None
    bot_rights: set[str] = field(default_factory=lambda: {"can_delete_messages", "can_restrict_members"})
    muted: dict[int, int] = field(default_factory=dict)
    """User id to the end of the mute (seconds since the epoch, 0: for good)."""
    restricted: dict[int, JsonObject] = field(default_factory=dict)
    """User id to the permissions and the end of a restriction that lets them write."""
    banned: set[int] = field(default_factory=set)
    """Ids of banned users and channels."""
    join_requests: set[int] = field(default_factory=set)
    """Ids of users who asked to join."""
    refusal: Refusal | None = None
    closed_topics: set[int] = field(default_factory=set)
    gone_topics: set[int] = field(default_factory=set)
    flooded_until: float = -math.inf
    allowed_a_minute: int | None = None
    """Messages and edits that are accepted within a minute; None: any number."""
    accepted: deque[float] = field(default_factory=deque)
    """Times of those of the last minute."""

    def visible(self) -> list[Message]:
        """Every message that was not deleted, people's and the bot's."""
        return [message for message in self.messages if not message.deleted]

    def answers(self) -> list[Message]:
        """The bot's messages that were not deleted."""
        return [message for message in self.visible() if message.by_bot]

    def texts(self) -> list[str]:
        """The texts of the bot's messages that were not deleted."""
        return [message.text for message in self.answers()]

    def message(self, message_id: int) -> Message | None:
        return next((message for message in self.visible() if message.id == message_id), None)


@dataclass(frozen=True)
class Upload:
    """An uploaded file."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return f"<{len(self.data)} bytes>"


def not_modified() -> Refusal:
    """Returns the answer to an edit without changes."""
    return bad(
        "message is not modified: specified new message content and reply markup are exactly the same "
        "as a current content and reply markup of the message"
    )


def addressee(params: JsonObject) -> int | None:
    """Returns the numeric chat id of a call, if it has one."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return int(params["chat_id"])
    return None


def json_of(params: JsonObject, key: str) -> Any:
    """Returns a JSON parameter, encoded as a string or not."""
    value = params.get(key)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise bad(f"can't parse {key.replace('_', ' ')} JSON object") from None


def flag_of(params: JsonObject, key: str) -> bool:
    """Returns a boolean parameter."""
    return params.get(key) in (True, "true", "True", "1")


def units(text: str) -> int:
    """Returns the length in UTF-16 code units, in which Telegram counts offsets and limits."""
    return len(text.encode("utf-16-le")) // 2


def check_text(text: str) -> None:
    """Rejects empty and too long texts."""
    if not text.strip():
        raise bad("message text is empty")
    if units(text) > TEXT_LIMIT:
        raise bad("message is too long")


def checked_entities(params: JsonObject) -> list[JsonObject]:
    """Returns the entities of a call; rejects those that do not fit the text."""
    entities: list[JsonObject] = json_of(params, "entities") or []
    units = params.get("text", "").encode("utf-16-le")
    total = len(units) // 2

    def inside_pair(position: int) -> bool:
        return position < total and 0xDC <= units[position * 2 + 1] <= 0xDF

    for entity in entities:
        start, length = entity.get("offset", -1), entity.get("length", 0)
        if entity.get("type") not in ENTITY_TYPES:
            raise bad("can't parse entities: unsupported entity type")
        if start < 0 or length <= 0 or start + length > total:
            raise bad(f"can't parse entities: offset {start} and length {length} are out of range")
        if inside_pair(start) or inside_pair(start + length):
            raise bad(f"can't parse entities: offset {start} or its end is in the middle of a UTF-16 symbol")
        if entity["type"] == "text_link" and not entity.get("url"):
            raise bad("can't parse entities: text_link without url")
    return entities


def checked_markup(params: JsonObject) -> JsonObject | None:
    """Returns the keyboard of a call; rejects invalid buttons."""
    markup: JsonObject | None = json_of(params, "reply_markup") or None
    for row in (markup or {}).get("inline_keyboard", []):
        for button in row:
            data = button.get("callback_data")
            if not button.get("text"):
                raise bad("can't parse inline keyboard button: text must be non-empty")
            if data is not None and not 1 <= len(data.encode()) <= CALLBACK_DATA_LIMIT:
                raise bad("BUTTON_DATA_INVALID")
    if markup is not None and not markup.get("inline_keyboard", True):
        return None
    return markup


def natural_entities(text: str) -> list[JsonObject]:
    """Returns the entities that Telegram's clients detect: commands, mentions, URLs."""
    found: list[JsonObject] = []
    for match in re.finditer(r"(?<!\S)(/[A-Za-z0-9_]{1,32}(?:@\w+)?|@\w{4,}|https?://\S+|t\.me/\S+)", text):
        kinds = {"/": "bot_command", "@": "mention"}
        kind = kinds.get(match[0][0], "url")
        found.append({"type": kind, "offset": units(text[: match.start()]), "length": units(match[0])})
    return found
