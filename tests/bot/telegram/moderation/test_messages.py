"""Conversion of Telegram messages to moderation's: author, own and foreign text, links, media."""

from typing import Any

import pytest

from bot.telegram.moderation.messages import to_group_message
from services.moderation.domain.message import AuthorKind, GroupMessage, MediaKind
from tests.support.fake_telegram.messages import BOB, GROUP, message, raw

SIZE = {"file_id": "f", "file_unique_id": "u", "width": 90, "height": 90}
FILE = {"file_id": "f", "file_unique_id": "u"}
CHANNEL = {"id": -900, "type": "channel", "title": "The News"}
FORWARD = {"type": "channel", "chat": CHANNEL, "message_id": 1, "date": 1_800_000_000}


def convert(text: str | None = None, **fields: object) -> GroupMessage:
    return to_group_message(message(text, chat=GROUP, **fields))


def entity(kind: str, offset: int, length: int, **more: object) -> dict[str, Any]:
    return {"type": kind, "offset": offset, "length": length, **more}


def test_author_time_and_topic() -> None:
    converted = convert("Hello", edit_date=1_800_000_060, message_thread_id=9, is_topic_message=True)
    assert (converted.group_id, converted.message_ids, converted.topic_id, converted.text) == (-100, (5,), 9, "Hello")
    assert (converted.author.id, converted.author.kind, converted.author.name, converted.author.language) == (
        7,
        AuthorKind.USER,
        "Ann Lee",
        "en",
    )
    assert converted.edited_at is not None
    assert (converted.edited_at - converted.sent_at).total_seconds() == 60


def test_author_kinds() -> None:
    assert convert("Hi", sender_chat=CHANNEL).author.kind is AuthorKind.CHANNEL
    anonymous = convert("Hi", sender_chat=GROUP)
    assert (anonymous.author.id, anonymous.author.kind) == (-100, AuthorKind.CHANNEL)
    assert convert("Hi", **{"from": {**BOB, "is_bot": True}}).author.kind is AuthorKind.BOT


@pytest.mark.parametrize(
    ("fields", "text", "quoted", "forwarded"),
    [
        # The author's own text.
        ({"text": "mine"}, "mine", "", ""),
        ({"caption": "mine", "photo": [SIZE]}, "mine", "", ""),
        # The replied-to text, or the selected quote.
        ({"text": "mine", "reply_to_message": raw("theirs", chat=GROUP)}, "mine", "theirs", ""),
        ({"text": "mine", "reply_to_message": raw("theirs", chat=GROUP), "quote": {"text": "the", "position": 0}},
         "mine", "the", ""),
        # In a topic every message formally replies to the service message that created it.
        ({"text": "mine", "reply_to_message": raw(
            chat=GROUP, forum_topic_created={"name": "Jobs", "icon_color": 7322096})}, "mine", "", ""),
        # Forwarded text is not the author's.
        ({"text": "theirs", "forward_origin": FORWARD}, "", "", "theirs"),
        # A poll has text too.
        ({"poll": {"id": "1", "question": "Who earns $500?", "options": [
            {"text": "Me", "voter_count": 0, "persistent_id": "a"}], "total_voter_count": 0, "is_closed": False,
            "is_anonymous": True, "type": "regular", "allows_multiple_answers": False, "allows_revoting": False,
            "members_only": False, "members_can_add_options": False, "correct_option_ids": []}},
         "Who earns $500?\nMe", "", ""),
    ],
)  # fmt: skip
def test_own_quoted_and_forwarded_text_are_separate(
    fields: dict[str, Any], text: str, quoted: str, forwarded: str
) -> None:
    converted = to_group_message(message(**{"chat": GROUP, **fields}))
    assert (converted.text, converted.quoted, converted.forwarded) == (text, quoted, forwarded)
    assert converted.is_forward is bool(forwarded)


def test_links_include_hidden_ones_previews_and_buttons() -> None:
    text = "see x.example and @some_channel, here 👋 or there"
    converted = convert(
        text,
        entities=[
            entity("url", 4, 9), entity("mention", 18, 13), entity("text_link", 33, 4, url="https://hidden.example"),
            entity("bold", 0, 3), entity("phone_number", 0, 3),
        ],
        link_preview_options={"url": "https://preview.example"},
        reply_markup={"inline_keyboard": [[{"text": "Go", "url": "https://button.example"}],
                                          [{"text": "No", "callback_data": "x"}]]},
    )  # fmt: skip
    assert converted.links == ("x.example", "@some_channel", "https://hidden.example", "https://preview.example")
    assert converted.buttons == ("https://button.example",)


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"photo": [SIZE]}, (MediaKind.PHOTO,)),
        # An animation is a document too.
        ({"animation": {**FILE, "width": 1, "height": 1, "duration": 1}, "document": FILE}, (MediaKind.ANIMATION,)),
        ({"voice": {**FILE, "duration": 1}}, (MediaKind.VOICE,)),
        ({"contact": {"phone_number": "1", "first_name": "A"}}, (MediaKind.CONTACT,)),
        ({"dice": {"emoji": "🎲", "value": 1}}, (MediaKind.OTHER,)),
        ({"text": "nothing"}, ()),
    ],
)
def test_media_kinds(fields: dict[str, Any], kinds: tuple[MediaKind, ...]) -> None:
    assert to_group_message(message(**{"chat": GROUP, **fields})).media == kinds


def test_album_is_converted_to_one_message() -> None:
    """The parts are sorted by message id."""
    parts = [
        message(chat=GROUP, message_id=number, photo=[SIZE], media_group_id="a", **fields)
        for number, fields in ((7, {"caption": "two"}), (6, {"caption": "one"}), (8, {}))
    ]
    converted = to_group_message(parts[0], parts)
    assert (converted.message_ids, converted.text, converted.media) == ((6, 7, 8), "one\n\ntwo", (MediaKind.PHOTO,) * 3)
