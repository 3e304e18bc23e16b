"""Conversion of Telegram messages to moderation's: author, own and foreign text, links, media."""

from typing import Any

import pytest

from bot.telegram.moderation.messages import to_group_message
from services.moderation.domain.message import AuthorKind, GroupMessage, MediaKind
from services.moderation.text.excerpt import LONGEST
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


def test_album_with_a_forwarded_part_is_a_forward() -> None:
    parts = [
        message(chat=GROUP, message_id=6, photo=[SIZE], caption="one"),
        message(chat=GROUP, message_id=7, photo=[SIZE], caption="two", forward_origin=FORWARD),
    ]
    converted = to_group_message(parts[0], parts)
    assert (converted.is_forward, converted.text, converted.forwarded) == (True, "", "one\n\ntwo")


def test_links_buttons_and_pictures_of_every_part_of_an_album_are_read() -> None:
    link = {"caption_entities": [entity("text_link", 0, 3, url="https://hidden.example")]}
    button = {"reply_markup": {"inline_keyboard": [[{"text": "Go", "url": "https://button.example"}]]}}
    parts = [
        message(chat=GROUP, message_id=6, photo=[SIZE], caption="one"),
        message(chat=GROUP, message_id=7, photo=[{**SIZE, "file_unique_id": "v"}], caption="two", **link, **button),
    ]
    converted = to_group_message(parts[0], parts)
    assert (converted.links, converted.buttons) == (("https://hidden.example",), ("https://button.example",))
    assert [picture.unique_id for picture in converted.pictures] == ["u", "v"]


def test_each_of_many_parts_is_read_up_to_a_thousand_characters() -> None:
    parts = [
        message(chat=GROUP, message_id=number, photo=[SIZE], caption=f"{number} " + "x" * 990)
        for number in range(10, 20)
    ]
    converted = to_group_message(parts[0], parts)
    assert converted.text == "\n\n".join(part.caption or "" for part in parts)


def test_place_of_a_message_in_its_group() -> None:
    converted = convert(
        "Hi",
        via_bot={"id": 9, "is_bot": True, "first_name": "Gif", "username": "gif"},
        media_group_id="a",
        reply_to_message=raw("theirs", chat=GROUP, message_id=4),
        # A thread of replies that is no topic.
        message_thread_id=9,
    )
    assert (converted.via_bot, converted.album, converted.reply_to, converted.topic_id) == ("gif", "a", 4, 0)


def test_message_without_an_author_is_of_its_chat() -> None:
    converted = to_group_message(message("Hi", chat=GROUP, **{"from": None}))
    assert (converted.author.id, converted.author.kind, converted.author.name) == (
        -100,
        AuthorKind.CHANNEL,
        "The Group",
    )


def test_quoted_caption_is_read_and_a_long_quotation_cut() -> None:
    pictured = raw(chat=GROUP, photo=[SIZE], caption="theirs")
    assert convert("mine", reply_to_message=pictured).quoted == "theirs"
    assert len(convert("mine", reply_to_message=raw("x" * 20_000, chat=GROUP)).quoted) < LONGEST * 1.2


def test_links_of_a_caption_are_read() -> None:
    converted = convert(photo=[SIZE], caption="x.example", caption_entities=[entity("url", 0, 9)])
    assert converted.links == ("x.example",)


def test_buttons_of_web_apps_and_sign_ins_lead_somewhere() -> None:
    rows = [
        [{"text": "App", "web_app": {"url": "https://app.example"}}],
        [{"text": "Sign in", "login_url": {"url": "https://login.example"}}],
    ]
    converted = convert("Look", reply_markup={"inline_keyboard": rows})
    assert converted.buttons == ("https://app.example", "https://login.example")
    assert converted.text == "Look\nApp\nSign in"


def test_rich_message_is_read_block_by_block() -> None:
    """Formatting within a word does not part it; links at any depth count."""
    bold = {"type": "bold", "text": ["si", {"type": "italic", "text": "no"}]}
    link = {"type": "url", "text": "here", "url": "https://rich.example"}
    signal = {"type": "custom_emoji", "custom_emoji_id": "1", "alternative_text": "🎰"}
    press = {"type": "button", "button": {"text": "Press", "copy_text": {"text": "t.me/x"}}}
    blocks = [
        {"type": "paragraph", "text": ["The ca", bold, " is ", link, signal]},
        {"type": "pullquote", "text": ["Try ", press], "credit": "the boss"},
        {"type": "details", "summary": "Bonus", "blocks": [{"type": "list", "items": [
            {"label": "1", "blocks": [{"type": "paragraph", "text": "100 spins"}]}]}]},
    ]  # fmt: skip
    converted = convert(rich_message={"blocks": blocks})
    assert converted.text == "The casino is here🎰\nTry Press t.me/x\nthe boss\nBonus\n100 spins"
    assert converted.links == ("https://rich.example",)


def sized(width: int, height: int) -> dict[str, Any]:
    return {"file_id": f"f{width}", "file_unique_id": f"u{width}", "width": width, "height": height}


@pytest.mark.parametrize(
    ("fields", "pictures"),
    [
        # The largest size whose longer edge has at most 1,600 pixels; the smallest if none has.
        ({"photo": [sized(90, 60), sized(1600, 900), sized(2560, 1440)]}, ["u1600"]),
        ({"photo": [sized(900, 1601), sized(800, 1600), sized(90, 160)]}, ["u800"]),
        ({"photo": [sized(1700, 900), sized(2560, 1440)]}, ["u1700"]),
        # A picture sent as a file, of a type and a size that models accept.
        ({"document": {**FILE, "mime_type": "image/png", "file_size": 10 * 1024 * 1024}}, ["u"]),
        ({"document": {**FILE, "mime_type": "image/png", "file_size": 10 * 1024 * 1024 + 1}}, []),
        ({"document": {**FILE, "mime_type": "application/pdf", "file_size": 9}}, []),
    ],
)
def test_pictures_are_read_in_the_size_for_models(fields: dict[str, Any], pictures: list[str]) -> None:
    assert [picture.unique_id for picture in convert(**fields).pictures] == pictures
