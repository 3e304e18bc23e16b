"""Chats as the loopback Bot API server keeps them, and Telegram's own rules about what may be said in them."""

import contextlib
import json
import math
import re
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
    """What the Bot API answers instead of a result."""

    def __init__(self, status: int, description: str, **parameters: int) -> None:
        self.status = status
        self.description = description
        self.parameters = parameters
        super().__init__(description)


def bad(description: str) -> Refusal:
    """The commonest answer that is none."""
    return Refusal(400, f"Bad Request: {description}")


@dataclass(frozen=True)
class Edit:
    """What a message became, and when."""

    at: float
    text: str
    entities: list[JsonObject]
    markup: JsonObject | None


@dataclass
class Message:
    """A message as it stands now; `edits` tells how it came to that, the first entry being the message as sent."""

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
    fields: JsonObject = field(default_factory=dict)

    @property
    def buttons(self) -> list[JsonObject]:
        """The buttons of its inline keyboard, in reading order."""
        rows = (self.markup or {}).get("inline_keyboard", [])
        return [button for row in rows for button in row]

    @property
    def labels(self) -> list[str]:
        """What is written on the buttons."""
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
    """A chat, and what is wrong with it. `refusal` answers every call that addresses it."""

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
    """Who may not write, and until when (seconds since the epoch, 0: for good)."""
    banned: set[int] = field(default_factory=set)
    """Users, and chats that may not speak in their own name."""
    refusal: Refusal | None = None
    closed_topics: set[int] = field(default_factory=set)
    gone_topics: set[int] = field(default_factory=set)
    flooded_until: float = -math.inf

    def visible(self) -> list[Message]:
        """Every message that was not deleted, people's and the bot's."""
        return [message for message in self.messages if not message.deleted]

    def answers(self) -> list[Message]:
        """The bot's messages that were not deleted."""
        return [message for message in self.visible() if message.by_bot]

    def texts(self) -> list[str]:
        """What the bot says in this chat, as a person reads it now."""
        return [message.text for message in self.answers()]

    def message(self, message_id: int) -> Message | None:
        return next((message for message in self.visible() if message.id == message_id), None)


@dataclass(frozen=True)
class Upload:
    """A file that came with a call."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return f"<{len(self.data)} bytes>"


def not_modified() -> Refusal:
    """What an edit that changes nothing gets."""
    return bad(
        "message is not modified: specified new message content and reply markup are exactly the same "
        "as a current content and reply markup of the message"
    )


def addressee(params: JsonObject) -> int | None:
    """The chat that a call is about, where it names one by number."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return int(params["chat_id"])
    return None


def json_of(params: JsonObject, key: str) -> Any:  # noqa: ANN401 - whatever JSON the caller asked for
    """A parameter that holds JSON, whichever way it came."""
    value = params.get(key)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise bad(f"can't parse {key.replace('_', ' ')} JSON object") from None


def flag_of(params: JsonObject, key: str) -> bool:
    """A parameter that is yes or no."""
    return params.get(key) in (True, "true", "True", "1")


def units(text: str) -> int:
    """Length in UTF-16 code units, which is what offsets and limits count."""
    return len(text.encode("utf-16-le")) // 2


def check_text(text: str) -> None:
    """Refuse what Telegram would not show."""
    if not text.strip():
        raise bad("message text is empty")
    if units(text) > TEXT_LIMIT:
        raise bad("message is too long")


def checked_entities(params: JsonObject) -> list[JsonObject]:
    """The entities of a call, refused where they do not fit their text."""
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
    """The keyboard of a call, refused where a button is out of bounds."""
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
    """The entities that Telegram's clients find by themselves: commands, mentions, addresses."""
    found: list[JsonObject] = []
    for match in re.finditer(r"(?<!\S)(/[A-Za-z0-9_]{1,32}(?:@\w+)?|@\w{4,}|https?://\S+|t\.me/\S+)", text):
        kinds = {"/": "bot_command", "@": "mention"}
        kind = kinds.get(match[0][0], "url")
        found.append({"type": kind, "offset": units(text[: match.start()]), "length": units(match[0])})
    return found
