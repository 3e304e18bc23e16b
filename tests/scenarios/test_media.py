"""Photos, documents and other media."""

import base64
from typing import Any

import pytest

from tests.support.bot_harness import FIRST, SECOND, BotHarness, images, told
from tests.support.documents import pdf

PICTURE = b"\xff\xd8\xff\xe0 not much of a picture, but one all the same"
CANNOT_READ = "This kind of message is not supported yet. Send text, pictures, recordings or documents."
CANNOT_HEAR = "Voice messages and audio are not set up on this bot. Please send text instead."
TOO_LARGE = "This file is too large. Please send a smaller one."
FILE = {"file_id": "f", "file_unique_id": "u", "file_size": 1000}
LOCATION = {"latitude": 52.5, "longitude": 13.4}
POLL = {
    "id": "1", "question": "Tea?", "options": [], "total_voter_count": 0, "is_closed": False, "is_anonymous": True,
    "type": "regular", "allows_multiple_answers": False, "allows_revoting": False, "members_only": False,
}  # fmt: skip


@pytest.fixture
async def seeing(empty_stage: BotHarness) -> BotHarness:
    """A bot whose first model has vision and whose second has not."""
    await empty_stage.start(A_FAMILIES='{"m": "gpt-4o"}')
    return empty_stage


async def test_photo_reaches_a_vision_model(seeing: BotHarness) -> None:
    message = await seeing.asks("What is this?", photo=PICTURE)
    assert message.text == FIRST
    assert images(seeing.first) == [PICTURE]
    assert told(seeing.first.requests[0])[-1][1].startswith("What is this?")


async def test_photo_without_caption_is_answered(seeing: BotHarness) -> None:
    seeing.says("", photo=PICTURE)
    assert (await seeing.answer()).text == FIRST
    assert images(seeing.first) == [PICTURE]


async def test_picture_sent_as_document_is_answered(seeing: BotHarness) -> None:
    await seeing.asks("What is this?", document=PICTURE, file_name="a.png", media_type="image/png")
    assert images(seeing.first) == [PICTURE]


async def test_picture_stays_in_the_history(seeing: BotHarness) -> None:
    await seeing.asks("What is this?", photo=PICTURE)
    await seeing.asks("Are you sure?")
    assert base64.b64encode(PICTURE).decode() in str(seeing.first.requests[1].json["messages"][1])


async def test_photo_prefers_a_vision_model(empty_stage: BotHarness) -> None:
    """Although the other provider is first in the order."""
    await empty_stage.start(B_FAMILIES='{"n": "gpt-4o"}', A_FAMILIES='{"m": "gpt-3.5-turbo"}')
    assert (await empty_stage.asks("What is this?", photo=PICTURE)).text == SECOND
    assert images(empty_stage.second) == [PICTURE]
    empty_stage.says("/new")
    await empty_stage.reply()
    assert (await empty_stage.asks("Hello")).text == FIRST


async def test_photo_without_vision_model_is_reported(empty_stage: BotHarness) -> None:
    blind = '{"m": "gpt-3.5-turbo"}'
    await empty_stage.start(AVAILABLE_PROVIDERS='{"a": ["m"]}', A_FAMILIES=blind)
    message = await empty_stage.asks("What is this?", photo=PICTURE)
    assert (
        message.text
        == f"{FIRST}\n\nThe model that answered cannot see pictures; the answer is based on the text alone."
    )


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        pytest.param({"sticker": {**FILE, "type": "regular", "width": 1, "height": 1, "is_animated": False,
                                  "is_video": False}}, CANNOT_READ, id="sticker"),
        pytest.param({"location": LOCATION}, CANNOT_READ, id="location"),
        pytest.param({"poll": POLL}, CANNOT_READ, id="poll"),
        # As a server of another version sends it, which the library cannot parse.
        pytest.param({"poll": {"id": "1", "question": "Tea?"}}, CANNOT_READ, id="unreadable poll"),
        pytest.param({"dice": {"emoji": "🎲", "value": 6}}, CANNOT_READ, id="dice"),
        pytest.param({"contact": {"phone_number": "1", "first_name": "Bob"}}, CANNOT_READ, id="contact"),
        pytest.param({"video": {**FILE, "width": 1, "height": 1, "duration": 1}}, CANNOT_READ, id="video"),
        # A kind that does not exist yet.
        pytest.param({"hologram": {**FILE, "depth": 3}}, CANNOT_READ, id="unknown kind"),
        pytest.param({"voice": {**FILE, "duration": 1}}, CANNOT_HEAR, id="voice"),
        pytest.param({"audio": {**FILE, "duration": 1}}, CANNOT_HEAR, id="audio"),
        pytest.param({"video_note": {**FILE, "length": 1, "duration": 1}}, CANNOT_HEAR, id="video note"),
        pytest.param({"document": {**FILE, "file_name": "a.zip", "mime_type": "application/zip"}}, CANNOT_READ,
                     id="archive"),
        pytest.param({"document": {**FILE, "file_name": "a.txt", "mime_type": "text/plain", "file_size": 10**8}},
                     TOO_LARGE, id="large text"),
        pytest.param({"document": {**FILE, "file_name": "a.png", "mime_type": "image/png", "file_size": 10**8}},
                     TOO_LARGE, id="large picture"),
    ],
)  # fmt: skip
async def test_unsupported_media_is_declined(stage: BotHarness, extra: dict[str, Any], said: str) -> None:
    """The conversation goes on."""
    stage.says("", extra=extra)
    assert (await stage.reply()).text == said
    assert not stage.first.requests
    assert (await stage.asks("Never mind.")).text == FIRST


async def test_video_with_caption_is_declined(stage: BotHarness) -> None:
    """An answer to the caption alone would suggest that the bot saw the video."""
    video = {**FILE, "width": 1, "height": 1, "duration": 1}
    stage.says("", extra={"video": video, "caption": "What happens here?"})
    assert (await stage.reply()).text == CANNOT_READ


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("notes.txt", "text/plain"),
        # Recognised by the type alone, and by the name alone.
        ("notes", "application/json"),
        ("notes.py", "application/octet-stream"),
    ],
)
async def test_text_file_reaches_the_model(stage: BotHarness, name: str, media_type: str) -> None:
    await stage.asks("Sum it up.", document="Grüße aus der Datei".encode(), file_name=name, media_type=media_type)
    assert told(stage.first.requests[0]) == [
        ("user", f"Sum it up.\n\n[The file {name}:]\n Grüße aus der Datei\n[End of the file]")
    ]


async def test_damaged_text_file_is_decoded_leniently(stage: BotHarness) -> None:
    """A byte that is not UTF-8 is replaced where the rest tells the encoding."""
    text = "Grüße aus der Datei. ".encode() * 20
    await stage.asks("Sum it up.", document=text + b"\xff " + text, file_name="a.txt")
    assert "Datei. \N{REPLACEMENT CHARACTER} Grüße" in told(stage.first.requests[0])[0][1]


async def test_binary_text_file_is_refused(stage: BotHarness) -> None:
    stage.says("Sum it up.", document=b"caf\xe9 \x00\xff", file_name="a.txt")
    assert (await stage.reply()).text.startswith("I cannot tell how the text of this file is encoded.")
    assert not stage.first.requests


@pytest.mark.parametrize("method", ["getFile", "download"])
async def test_failed_download_is_reported(seeing: BotHarness, method: str) -> None:
    if method == "getFile":
        seeing.telegram.fail("getFile", status=400, description="Bad Request: file is too big")
        seeing.says("What is this?", photo=PICTURE)
    else:
        seeing.says("What is this?", photo=PICTURE)
        seeing.telegram._files = {key: ("nowhere/else", data) for key, (_, data) in seeing.telegram._files.items()}
        seeing.telegram._methods["getfile"] = lambda params: {
            "file_id": params["file_id"], "file_unique_id": "u", "file_path": "photos/gone.jpg",
        }  # fmt: skip
    assert (await seeing.reply()).text == "The file could not be downloaded from Telegram. Please send it again."
    assert not seeing.first.requests


async def test_a_document_is_read_in_its_child_and_answered(stage: BotHarness) -> None:
    """And one that cannot be read gets one line; the next message is answered as ever."""
    stage.says("Sum it up.", document=pdf("Costs rise"), file_name="report.pdf", media_type="application/pdf")
    assert (await stage.answer()).text == FIRST
    assert told(stage.first.requests[0]) == [
        ("user", "Sum it up.\n\n[The file report.pdf:]\n Costs rise\n[End of the file]")
    ]
    stage.says("", document=pdf("x", password="secret"), file_name="report.pdf", media_type="application/pdf")
    assert (await stage.reply()).text.startswith("This document is protected by a password.")
    assert (await stage.asks("Never mind.")).text == FIRST
