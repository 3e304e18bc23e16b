"""Conversion of Telegram messages to core messages."""

import asyncio
from io import BytesIO
from typing import Any, cast

import pytest
from aiogram.types import Message

from bot.telegram.api.files import (
    LARGE_AT_ONCE,
    LONGEST_SOUND_S,
    MAX_DOCUMENT_BYTES,
    MAX_DOCUMENT_CHARACTERS,
    MAX_IMAGE_BYTES,
    MAX_SOUND_BYTES,
    MAX_TEXT_FILE_BYTES,
    FileReader,
    ReadFiles,
    Unreadable,
)
from bot.telegram.api.updates import conversation_key, message_speaker, to_incoming
from core.messages import Attachment, ChatKind, Incoming, Speaker, Surface, TextFile
from services.files.sandbox import Sandbox
from tests.support.clock import until
from tests.support.fake_telegram.messages import ANN, BOB, BOT, GROUP, message
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.sounds import ogg, wav

SMALL = {"file_id": "small", "file_unique_id": "s", "width": 90, "height": 90}


@pytest.mark.parametrize(
    ("fields", "topic_id"),
    [
        # A private chat, and a group without topics.
        ({}, 0),
        ({"chat": GROUP}, 0),
        # A topic; the general topic has no id.
        ({"chat": {**GROUP, "is_forum": True}, "message_thread_id": 11, "is_topic_message": True}, 11),
        ({"chat": {**GROUP, "is_forum": True}}, 0),
        # A reply thread in a group without topics has an id but is no topic.
        ({"chat": GROUP, "message_thread_id": 11}, 0),
        # A topic of a private chat.
        ({"message_thread_id": 12, "is_topic_message": True}, 12),
    ],
)
def test_conversation_key_distinguishes_chats_and_topics(fields: dict[str, Any], topic_id: int) -> None:
    sent = message("hello", **fields)
    key = conversation_key(sent)
    assert (key.surface, key.chat_id, key.topic_id) == (Surface.TELEGRAM, sent.chat.id, topic_id)


@pytest.mark.parametrize(
    ("fields", "speaker"),
    [
        ({}, Speaker(7, "Ann Lee", "en")),
        ({"from": BOB}, Speaker(8, "Bob", None)),
        # A channel, and an anonymous admin.
        ({"sender_chat": {"id": -5, "type": "channel", "title": "The News"}}, Speaker(-5, "The News")),
        ({"chat": GROUP, "sender_chat": GROUP}, Speaker(-100, "The Group")),
        ({"chat": GROUP, "from": None}, Speaker(-100, "The Group")),
    ],
)
def test_message_speaker_is_the_user_or_the_chat(fields: dict[str, Any], speaker: Speaker) -> None:
    assert message_speaker(message("hello", **fields)) == speaker


async def read(
    traffic: Traffic, text: str | None = None, addressed: str = "", **fields: object
) -> Incoming | Unreadable:
    return await to_incoming(message(text, traffic.bot, **fields), traffic.bot, addressed or text or "")


async def test_text_message(traffic: Traffic) -> None:
    incoming = await read(traffic, "hello")
    assert isinstance(incoming, Incoming)
    assert (incoming.text, incoming.chat_kind, incoming.attachments) == ("hello", ChatKind.PRIVATE, ())
    assert (incoming.chat_title, incoming.quoted, incoming.sent_at.timestamp()) == (None, None, 1_800_000_000)


async def test_group_message_has_the_title_of_its_chat(traffic: Traffic) -> None:
    incoming = await read(traffic, "hello", chat=GROUP)
    assert isinstance(incoming, Incoming)
    assert (incoming.chat_kind, incoming.chat_title) == (ChatKind.GROUP, "The Group")


async def test_largest_size_of_a_photo_is_downloaded(traffic: Traffic, server: TelegramServer) -> None:
    large = {"file_id": server.add_file(b"large", "photos/a.jpg"), "file_unique_id": "l", "width": 800, "height": 600}
    incoming = await read(traffic, None, photo=[SMALL, large, SMALL])
    assert isinstance(incoming, Incoming)
    assert incoming.attachments == (Attachment(b"large", "image/jpeg"),)


@pytest.mark.parametrize(
    ("document", "key"),
    [
        # By the MIME type that the sender's app reports, or by the file name.
        ({"file_name": "a.bin", "mime_type": "text/x-rust"}, None),
        ({"file_name": "a.bin", "mime_type": "application/json"}, None),
        ({"file_name": "A.YML", "mime_type": "application/octet-stream"}, None),
        ({"file_name": "a.csv"}, None),
        ({"file_name": "a.exe", "mime_type": "application/octet-stream"}, "unsupported-media"),
        ({"file_name": "a.pdf", "mime_type": "application/pdf"}, "unsupported-media"),
        # A file name without a dot.
        ({"file_name": "txt", "mime_type": "application/zip"}, "unsupported-media"),
        ({}, "unsupported-media"),
        # Size limits of each kind.
        ({"file_name": "a.txt", "file_size": MAX_TEXT_FILE_BYTES}, None),
        ({"file_name": "a.txt", "file_size": MAX_TEXT_FILE_BYTES + 1}, "file-too-large"),
        ({"file_name": "a.png", "mime_type": "image/png", "file_size": MAX_TEXT_FILE_BYTES + 1}, None),
        ({"file_name": "a.png", "mime_type": "image/png", "file_size": MAX_IMAGE_BYTES + 1}, "file-too-large"),
    ],
)
async def test_document_is_inlined_attached_or_rejected(
    traffic: Traffic, server: TelegramServer, document: dict[str, Any], key: str | None
) -> None:
    file_id = server.add_file("Grüße".encode(), "documents/a")
    result = await read(traffic, None, document={"file_id": file_id, "file_unique_id": "u", **document})
    if key is not None:
        assert result == Unreadable(key)
        return
    assert isinstance(result, Incoming)
    if result.attachments:
        assert result.attachments[0].media_type == "image/png"
    else:
        assert result.files == (TextFile(document["file_name"], "Grüße"),)


@pytest.mark.parametrize(
    ("fields", "quoted"),
    [
        # Another user's message; in a group with the name.
        ({"from": ANN, "text": "Cheese."}, "Cheese."),
        ({"from": BOB, "text": "Cheese.", "chat": GROUP}, "Cheese."),
        ({"from": BOB, "caption": "Cheese.", "chat": GROUP}, "Cheese."),
        # The bot's own message is part of the conversation.
        ({"from": BOT, "text": "Cheese."}, None),
        # The service message that created the topic.
        ({"from": BOB, "text": "x", "forum_topic_created": {"name": "Talk", "icon_color": 0}}, None),
        # No text.
        ({"from": BOB}, None),
    ],
)
async def test_replied_to_message_is_quoted(traffic: Traffic, fields: dict[str, Any], quoted: str | None) -> None:
    chat = fields.get("chat", {"id": 7, "type": "private"})
    original = {"message_id": 1, "date": 1, "chat": chat, **fields}
    incoming = await read(traffic, "Is that so?", chat=chat, reply_to_message=original)
    assert isinstance(incoming, Incoming)
    assert incoming.quoted == quoted
    assert incoming.quoted_from == ("Bob" if quoted and "chat" in fields else None)


async def test_selected_quote_wins_over_the_whole_message(traffic: Traffic) -> None:
    """Also for the bot's own message: the conversation does not contain the selection."""
    original = {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "private"}, "from": BOT, "text": "One. Two."}
    incoming = await read(traffic, "Why?", reply_to_message=original, quote={"text": "Two.", "position": 5})
    assert isinstance(incoming, Incoming)
    assert incoming.quoted == "Two."


@pytest.mark.parametrize(
    ("text", "fields", "key"),
    [
        # A mention without text.
        ("@understudy_bot", {"chat": GROUP}, "nothing-asked"),
        (None, {"dice": {"emoji": "x", "value": 1}}, "unsupported-media"),
        (None, {"voice": {"file_id": "f", "file_unique_id": "u", "duration": 1}}, "cannot-hear-audio"),
    ],
)
async def test_unreadable_message_has_a_reason(
    traffic: Traffic, text: str | None, fields: dict[str, Any], key: str
) -> None:
    sent = message(text, traffic.bot, **fields)
    assert await to_incoming(sent, traffic.bot, "") == Unreadable(key)


async def test_failed_download_makes_a_message_unreadable(traffic: Traffic, server: TelegramServer) -> None:
    """`getFile` fails, or the download does: the second error contains the URL with the token."""
    assert await read(traffic, None, photo=[SMALL]) == Unreadable("file-not-fetched")
    server._methods["getfile"] = lambda _: {"file_id": "f", "file_unique_id": "u", "file_path": "photos/gone.jpg"}
    assert await read(traffic, None, photo=[SMALL]) == Unreadable("file-not-fetched")


@pytest.mark.parametrize(
    ("document", "length"),
    [
        ({"file_name": "a.txt", "file_size": 0}, MAX_TEXT_FILE_BYTES + 1),
        ({"file_name": "a.txt"}, MAX_TEXT_FILE_BYTES + 1),
        ({"file_name": "a.txt", "file_size": 10}, 8 * MAX_TEXT_FILE_BYTES),
        ({"file_name": "a.png", "mime_type": "image/png", "file_size": 5}, MAX_IMAGE_BYTES + 1),
    ],
)
async def test_file_is_measured_while_it_is_read(
    traffic: Traffic, server: TelegramServer, document: dict[str, Any], length: int
) -> None:
    """The limit holds even if Telegram reports a smaller size."""
    file_id = server.add_file(b"x" * length, "documents/a")
    result = await read(traffic, None, document={"file_id": file_id, "file_unique_id": "u", **document})
    assert result == Unreadable("file-too-large")


async def test_file_at_its_limit_is_read(traffic: Traffic, server: TelegramServer) -> None:
    file_id = server.add_file(b"x" * MAX_TEXT_FILE_BYTES, "documents/a")
    result = await read(traffic, None, document={"file_id": file_id, "file_unique_id": "u", "file_name": "a.txt"})
    assert isinstance(result, Incoming)
    assert [len(file.text) for file in result.files] == [MAX_TEXT_FILE_BYTES]


async def hear(traffic: Traffic, **fields: object) -> Incoming | Unreadable:
    reader = FileReader(Sandbox(), hears=True)
    return await to_incoming(message(None, traffic.bot, **fields), traffic.bot, "", reader=reader)


def sound(server: TelegramServer, data: bytes, **fields: object) -> dict[str, Any]:
    """Returns the fields of a recording."""
    return {"file_id": server.add_file(data, "voice/a"), "file_unique_id": "u", "duration": 1, **fields}


async def test_a_voice_message_is_taken_as_it_is(traffic: Traffic, server: TelegramServer) -> None:
    recording = ogg(3)
    incoming = await hear(traffic, voice=sound(server, recording))
    assert isinstance(incoming, Incoming)
    assert incoming.attachments == (Attachment(recording, "audio/ogg", "voice.ogg"),)


async def test_other_sounds_are_converted(traffic: Traffic, server: TelegramServer) -> None:
    incoming = await hear(traffic, audio=sound(server, wav(0.5)))
    assert isinstance(incoming, Incoming)
    assert incoming.attachments[0].data.startswith(b"OggS")


async def test_a_recording_that_a_group_message_replies_to_is_heard(traffic: Traffic, server: TelegramServer) -> None:
    original = {"message_id": 1, "date": 1, "chat": GROUP, "from": BOB, "voice": sound(server, ogg())}
    incoming = await hear(traffic, chat=GROUP, reply_to_message=original)
    assert isinstance(incoming, Incoming)
    assert [(file.media_type, file.said_by) for file in incoming.attachments] == [("audio/ogg", BOB["first_name"])]


async def test_what_the_bot_has_said_itself_is_not_heard_again(traffic: Traffic, server: TelegramServer) -> None:
    """Its answer is in the conversation; a recording of the asker stays their own."""
    me = {"id": traffic.bot.id, "is_bot": True, "first_name": "Understudy"}
    original = {"message_id": 1, "date": 1, "chat": GROUP, "from": me, "voice": sound(server, ogg())}
    assert await hear(traffic, chat=GROUP, reply_to_message=original) == Unreadable("unsupported-media")
    own = await hear(traffic, chat=GROUP, reply_to_message=original, voice=sound(server, ogg()))
    assert isinstance(own, Incoming)
    assert [file.said_by for file in own.attachments] == [None]


@pytest.mark.parametrize(
    ("data", "fields", "key"),
    [
        # Telegram says so, or the file itself does.
        (ogg(), {"duration": LONGEST_SOUND_S + 1}, "audio-too-long"),
        (ogg(LONGEST_SOUND_S + 5), {}, "audio-too-long"),
        (ogg(), {"file_size": MAX_SOUND_BYTES + 1}, "file-too-large"),
        (b"no sound at all", {}, "audio-broken"),
        (b"", {}, "audio-silent"),
    ],
)
async def test_a_recording_that_cannot_be_heard_has_a_reason(
    traffic: Traffic, server: TelegramServer, data: bytes, fields: dict[str, Any], key: str
) -> None:
    result = await hear(traffic, voice=sound(server, data, **fields))
    assert isinstance(result, Unreadable)
    assert result.key == key


@pytest.mark.parametrize(
    ("data", "document", "key"),
    [
        (b"%PDF-1.7 and no more", {"file_name": "a.pdf"}, "document-broken"),
        (b"an image, perhaps", {"file_name": "a.bin", "mime_type": "application/pdf"}, "document-mislabelled"),
        (b"", {"file_name": "a.xlsx"}, "document-empty"),
        (b"", {"file_name": "a.txt"}, "document-empty"),
        (b" \n\t", {"file_name": "a.csv"}, "document-empty"),
        (b"no sound at all", {"file_name": "a.mp3", "mime_type": "audio/mpeg"}, "audio-broken"),
        # A text that is none.
        (b"\x89PNG\r\n\x1a\n" + bytes(50), {"file_name": "a.txt"}, "document-mislabelled"),
        (b"%PDF-1.7 and no more", {"file_name": "a.md"}, "document-broken"),
        (b"", {"file_name": "a.pptx", "file_size": MAX_DOCUMENT_BYTES + 1}, "file-too-large"),
        (b"", {"file_name": "a.doc"}, "unsupported-media"),
    ],
)
async def test_a_document_that_cannot_be_read_has_a_reason(
    traffic: Traffic, server: TelegramServer, data: bytes, document: dict[str, Any], key: str
) -> None:
    file = {"file_id": server.add_file(data, "documents/a"), "file_unique_id": "u", **document}
    assert await hear(traffic, document=file) == Unreadable(key)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1251"])
async def test_a_text_is_read_in_its_encoding(traffic: Traffic, server: TelegramServer, encoding: str) -> None:
    """A byte order mark names the encoding; without one Windows-1251 is read if that gives Russian words."""
    text = "Цена; сколько\nЧай; 3"
    file_id = server.add_file(text.encode(encoding), "documents/a")
    document = {"file_id": file_id, "file_unique_id": "u", "file_name": "prices.csv", "mime_type": "text/csv"}
    incoming = await hear(traffic, document=document)
    assert isinstance(incoming, Incoming)
    assert [file.text for file in incoming.files] == [text]


async def test_a_sound_that_is_sent_as_a_file_is_heard(traffic: Traffic, server: TelegramServer) -> None:
    """Without transcription a recording is declined, but not a group's question about another text."""
    document = {"file_id": server.add_file(wav(0.5), "documents/a"), "file_unique_id": "u", "file_name": "a.wav",
                "mime_type": "audio/x-wav"}  # fmt: skip
    incoming = await hear(traffic, document=document)
    assert isinstance(incoming, Incoming)
    assert incoming.attachments[0].media_type == "audio/ogg"
    assert await read(traffic, None, document=document) == Unreadable("cannot-hear-audio")
    original = {"message_id": 1, "date": 1, "chat": GROUP, "from": BOB, "document": document}
    asked = message("@understudy_bot what is new?", traffic.bot, chat=GROUP, reply_to_message=original)
    assert isinstance(await to_incoming(asked, traffic.bot, "What is new?", reader=FileReader(Sandbox())), Incoming)


async def test_few_large_files_are_in_memory_at_once(traffic: Traffic) -> None:
    """Forty documents of 20 MB from forty people are read four at a time; a small one does not wait for them."""
    going, most, release = 0, 0, asyncio.Event()

    class Downloads:
        async def download(self, file_id: str, destination: BytesIO, timeout: int) -> None:
            nonlocal going, most
            del timeout
            if file_id == "large":
                going += 1
                most = max(most, going)
                await release.wait()
                going -= 1
            destination.write(b"words")

    def document(name: str, size: int) -> Message:
        fields = {"file_id": name, "file_unique_id": "u", "file_name": "a.log", "file_size": size}
        return message(None, traffic.bot, document=fields)

    reader, bot = FileReader(Sandbox()), cast("Any", Downloads())
    large = document("large", 20 * 2**20)
    reading = [asyncio.create_task(reader.read(large, [large], bot)) for _ in range(40)]
    small = document("small", 100)
    assert await reader.read(small, [small], bot) == ReadFiles((), (TextFile("a.log", "words"),))
    await until(lambda: going == LARGE_AT_ONCE)
    assert going == LARGE_AT_ONCE
    release.set()
    assert all(isinstance(each, ReadFiles) for each in await asyncio.gather(*reading))
    assert most == LARGE_AT_ONCE


async def test_a_long_text_is_read_by_part(traffic: Traffic, server: TelegramServer) -> None:
    length = MAX_DOCUMENT_CHARACTERS + 5
    file_id = server.add_file(b"x" * length, "documents/a")
    document = {"file_id": file_id, "file_unique_id": "u", "file_name": "a.log", "file_size": length}
    incoming = await hear(traffic, document=document)
    assert isinstance(incoming, Incoming)
    assert incoming.files == (TextFile("a.log", "x" * MAX_DOCUMENT_CHARACTERS, by_part=True, is_cut=True),)
