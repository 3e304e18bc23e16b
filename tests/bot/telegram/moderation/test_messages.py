"""A Telegram message as moderation sees it: whose words are whose, where it leads, what it carries."""

from typing import Any

import pytest

from bot.telegram.moderation.messages import to_group_message
from services.moderation.domain.message import AuthorKind, GroupMessage, MediaKind
from tests.support.fake_telegram.messages import BOB, GROUP, message, raw

SIZE = {"file_id": "f", "file_unique_id": "u", "width": 90, "height": 90}
FILE = {"file_id": "f", "file_unique_id": "u"}
CHANNEL = {"id": -900, "type": "channel", "title": "The News"}
FORWARD = {"type": "channel", "chat": CHANNEL, "message_id": 1, "date": 1_800_000_000}


def seen(text: str | None = None, **fields: object) -> GroupMessage:
    return to_group_message(message(text, chat=GROUP, **fields))


def entity(kind: str, offset: int, length: int, **more: object) -> dict[str, Any]:
    return {"type": kind, "offset": offset, "length": length, **more}


def test_who_and_when() -> None:
    one = seen("Hello", edit_date=1_800_000_060, message_thread_id=9, is_topic_message=True)
    assert (one.group_id, one.message_ids, one.topic_id, one.text) == (-100, (5,), 9, "Hello")
    assert (one.author.id, one.author.kind, one.author.name, one.author.language) == (
        7,
        AuthorKind.USER,
        "Ann Lee",
        "en",
    )
    assert one.edited_at is not None
    assert (one.edited_at - one.sent_at).total_seconds() == 60


def test_who_speaks_in_the_name_of_a_chat() -> None:
    assert seen("Hi", sender_chat=CHANNEL).author.kind is AuthorKind.CHANNEL
    anonymous = seen("Hi", sender_chat=GROUP)
    assert (anonymous.author.id, anonymous.author.kind) == (-100, AuthorKind.CHANNEL)
    assert seen("Hi", **{"from": {**BOB, "is_bot": True}}).author.kind is AuthorKind.BOT


@pytest.mark.parametrize(
    ("fields", "text", "quoted", "forwarded"),
    [
        # The author's own words.
        ({"text": "mine"}, "mine", "", ""),
        ({"caption": "mine", "photo": [SIZE]}, "mine", "", ""),
        # What is replied to, or the piece of it that was marked.
        ({"text": "mine", "reply_to_message": raw("theirs", chat=GROUP)}, "mine", "theirs", ""),
        ({"text": "mine", "reply_to_message": raw("theirs", chat=GROUP), "quote": {"text": "the", "position": 0}},
         "mine", "the", ""),
        # In a topic every message formally replies to what opened it.
        ({"text": "mine", "reply_to_message": raw(
            chat=GROUP, forum_topic_created={"name": "Jobs", "icon_color": 7322096})}, "mine", "", ""),
        # Forwarded words are not the author's.
        ({"text": "theirs", "forward_origin": FORWARD}, "", "", "theirs"),
        # A poll says something too.
        ({"poll": {"id": "1", "question": "Who earns $500?", "options": [
            {"text": "Me", "voter_count": 0, "persistent_id": "a"}], "total_voter_count": 0, "is_closed": False,
            "is_anonymous": True, "type": "regular", "allows_multiple_answers": False, "allows_revoting": False,
            "members_only": False, "members_can_add_options": False, "correct_option_ids": []}},
         "Who earns $500?\nMe", "", ""),
    ],
)  # fmt: skip
def test_whose_words_are_whose(fields: dict[str, Any], text: str, quoted: str, forwarded: str) -> None:
    one = to_group_message(message(**{"chat": GROUP, **fields}))
    assert (one.text, one.quoted, one.forwarded) == (text, quoted, forwarded)
    assert one.is_forward is bool(forwarded)


def test_where_it_leads() -> None:
    """Also where a link hides behind other words, or is nowhere to be read at all."""
    text = "see x.example and @some_channel, here 👋 or there"
    one = seen(
        text,
        entities=[
            entity("url", 4, 9), entity("mention", 18, 13), entity("text_link", 33, 4, url="https://hidden.example"),
            entity("bold", 0, 3), entity("phone_number", 0, 3),
        ],
        link_preview_options={"url": "https://preview.example"},
        reply_markup={"inline_keyboard": [[{"text": "Go", "url": "https://button.example"}],
                                          [{"text": "No", "callback_data": "x"}]]},
    )  # fmt: skip
    assert one.links == ("x.example", "@some_channel", "https://hidden.example", "https://preview.example")
    assert one.buttons == ("https://button.example",)


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
def test_what_it_carries(fields: dict[str, Any], kinds: tuple[MediaKind, ...]) -> None:
    assert to_group_message(message(**{"chat": GROUP, **fields})).media == kinds


def test_an_album_is_one() -> None:
    """Its parts in order, whatever the order they came in."""
    parts = [
        message(chat=GROUP, message_id=number, photo=[SIZE], media_group_id="a", **fields)
        for number, fields in ((7, {"caption": "two"}), (6, {"caption": "one"}), (8, {}))
    ]
    one = to_group_message(parts[0], parts)
    assert (one.message_ids, one.text, one.media) == ((6, 7, 8), "one\n\ntwo", (MediaKind.PHOTO,) * 3)
