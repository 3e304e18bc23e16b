"""A Telegram message becomes one without Telegram."""

from typing import Any

import pytest

from bot.telegram.api.messages import (
    LARGEST_IMAGE,
    LARGEST_TEXT_FILE,
    Unreadable,
    conversation_key,
    message_speaker,
    to_incoming,
)
from core.messages import Attachment, ChatKind, Incoming, Speaker, Surface
from tests.support.fake_telegram.messages import ANN, BOB, BOT, GROUP, message
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic

SMALL = {"file_id": "small", "file_unique_id": "s", "width": 90, "height": 90}


@pytest.mark.parametrize(
    ("fields", "topic_id"),
    [
        # A private chat, and a group without topics.
        ({}, 0),
        ({"chat": GROUP}, 0),
        # A topic; the general one has no number.
        ({"chat": {**GROUP, "is_forum": True}, "message_thread_id": 11, "is_topic_message": True}, 11),
        ({"chat": {**GROUP, "is_forum": True}}, 0),
        # A thread of replies in a group without topics has a number and is no topic.
        ({"chat": GROUP, "message_thread_id": 11}, 0),
        # A topic of a private chat.
        ({"message_thread_id": 12, "is_topic_message": True}, 12),
    ],
)
def test_which_conversation_a_message_belongs_to(fields: dict[str, Any], topic_id: int) -> None:
    said = message("hello", **fields)
    key = conversation_key(said)
    assert (key.surface, key.chat_id, key.topic_id) == (Surface.TELEGRAM, said.chat.id, topic_id)


@pytest.mark.parametrize(
    ("fields", "speaker"),
    [
        ({}, Speaker(7, "Ann Lee", "en")),
        ({"from": BOB}, Speaker(8, "Bob", None)),
        # A channel, and an admin who hides behind the group.
        ({"sender_chat": {"id": -5, "type": "channel", "title": "The News"}}, Speaker(-5, "The News")),
        ({"chat": GROUP, "sender_chat": GROUP}, Speaker(-100, "The Group")),
        ({"chat": GROUP, "from": None}, Speaker(-100, "The Group")),
    ],
)
def test_who_speaks(fields: dict[str, Any], speaker: Speaker) -> None:
    assert message_speaker(message("hello", **fields)) == speaker


async def read(traffic: Traffic, text: str | None = None, heard: str = "", **fields: object) -> Incoming | Unreadable:
    return await to_incoming(message(text, traffic.bot, **fields), traffic.bot, heard or text or "")


async def test_a_text(traffic: Traffic) -> None:
    incoming = await read(traffic, "hello")
    assert isinstance(incoming, Incoming)
    assert (incoming.text, incoming.chat_kind, incoming.attachments) == ("hello", ChatKind.PRIVATE, ())
    assert (incoming.chat_title, incoming.quoted, incoming.sent_at.timestamp()) == (None, None, 1_800_000_000)


async def test_a_group_has_a_title(traffic: Traffic) -> None:
    incoming = await read(traffic, "hello", chat=GROUP)
    assert isinstance(incoming, Incoming)
    assert (incoming.chat_kind, incoming.chat_title) == (ChatKind.GROUP, "The Group")


async def test_the_largest_size_of_a_photo_is_fetched(traffic: Traffic, server: TelegramServer) -> None:
    large = {"file_id": server.add_file(b"large", "photos/a.jpg"), "file_unique_id": "l", "width": 800, "height": 600}
    incoming = await read(traffic, None, photo=[SMALL, large, SMALL])
    assert isinstance(incoming, Incoming)
    assert incoming.attachments == (Attachment(b"large", "image/jpeg"),)


@pytest.mark.parametrize(
    ("document", "key"),
    [
        # By what the sender's program says it is, or by its name.
        ({"file_name": "a.bin", "mime_type": "text/x-rust"}, None),
        ({"file_name": "a.bin", "mime_type": "application/json"}, None),
        ({"file_name": "A.YML", "mime_type": "application/octet-stream"}, None),
        ({"file_name": "a.csv"}, None),
        ({"file_name": "a.exe", "mime_type": "application/octet-stream"}, "unsupported-media"),
        ({"file_name": "a.pdf", "mime_type": "application/pdf"}, "unsupported-media"),
        # A name that only ends like one of text.
        ({"file_name": "txt", "mime_type": "application/zip"}, "unsupported-media"),
        ({}, "unsupported-media"),
        # Too large, each kind by its own measure.
        ({"file_name": "a.txt", "file_size": LARGEST_TEXT_FILE}, None),
        ({"file_name": "a.txt", "file_size": LARGEST_TEXT_FILE + 1}, "file-too-large"),
        ({"file_name": "a.png", "mime_type": "image/png", "file_size": LARGEST_TEXT_FILE + 1}, None),
        ({"file_name": "a.png", "mime_type": "image/png", "file_size": LARGEST_IMAGE + 1}, "file-too-large"),
    ],
)
async def test_a_file(traffic: Traffic, server: TelegramServer, document: dict[str, Any], key: str | None) -> None:
    file_id = server.add_file("Grüße".encode(), "documents/a")
    read_ = await read(traffic, None, document={"file_id": file_id, "file_unique_id": "u", **document})
    if key is not None:
        assert read_ == Unreadable(key)
        return
    assert isinstance(read_, Incoming)
    if read_.attachments:
        assert read_.attachments[0].media_type == "image/png"
    else:
        assert read_.text == f"[The file {document['file_name']}:]\nGrüße\n[End of the file]"


@pytest.mark.parametrize(
    ("fields", "quoted"),
    [
        # What somebody else said, in private without and in a group with a name.
        ({"from": ANN, "text": "Cheese."}, "Cheese."),
        ({"from": BOB, "text": "Cheese.", "chat": GROUP}, "Bob: Cheese."),
        ({"from": BOB, "caption": "Cheese.", "chat": GROUP}, "Bob: Cheese."),
        # What the bot said stands in the conversation.
        ({"from": BOT, "text": "Cheese."}, None),
        # The message that opened the topic.
        ({"from": BOB, "text": "x", "forum_topic_created": {"name": "Talk", "icon_color": 0}}, None),
        # Without a word.
        ({"from": BOB}, None),
    ],
)
async def test_what_is_replied_to(traffic: Traffic, fields: dict[str, Any], quoted: str | None) -> None:
    chat = fields.get("chat", {"id": 7, "type": "private"})
    original = {"message_id": 1, "date": 1, "chat": chat, **fields}
    incoming = await read(traffic, "Is that so?", chat=chat, reply_to_message=original)
    assert isinstance(incoming, Incoming)
    assert incoming.quoted == quoted


async def test_a_part_that_was_picked_is_quoted_and_not_the_whole(traffic: Traffic) -> None:
    """Also of what the bot said: which part is meant the conversation does not tell."""
    original = {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "private"}, "from": BOT, "text": "One. Two."}
    incoming = await read(traffic, "Why?", reply_to_message=original, quote={"text": "Two.", "position": 5})
    assert isinstance(incoming, Incoming)
    assert incoming.quoted == "Two."


@pytest.mark.parametrize(
    ("text", "fields", "key"),
    [
        # The bot was called, and nothing was said.
        ("@understudy_bot", {"chat": GROUP}, "nothing-asked"),
        (None, {"dice": {"emoji": "x", "value": 1}}, "unsupported-media"),
        (None, {"voice": {"file_id": "f", "file_unique_id": "u", "duration": 1}}, "cannot-hear-audio"),
    ],
)
async def test_why_a_message_cannot_be_read(
    traffic: Traffic, text: str | None, fields: dict[str, Any], key: str
) -> None:
    said = message(text, traffic.bot, **fields)
    assert await to_incoming(said, traffic.bot, "") == Unreadable(key)


async def test_a_file_that_cannot_be_fetched(traffic: Traffic, server: TelegramServer) -> None:
    """Unknown to Telegram, or gone when it is asked for: the second error has the token in its words."""
    assert await read(traffic, None, photo=[SMALL]) == Unreadable("file-not-fetched")
    server._methods["getfile"] = lambda _: {"file_id": "f", "file_unique_id": "u", "file_path": "photos/gone.jpg"}
    assert await read(traffic, None, photo=[SMALL]) == Unreadable("file-not-fetched")
