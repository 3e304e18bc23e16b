"""Words and links outside the text of a message: an advert in any of them is read."""

from typing import Any

import pytest

from bot.telegram.moderation.messages import to_group_message
from services.moderation.domain.message import GroupMessage, MediaKind
from services.moderation.text.excerpt import LONGEST
from tests.support.fake_telegram.messages import GROUP, message

FILE = {"file_id": "f", "file_unique_id": "u"}
CASINO = {"id": -900, "type": "channel", "title": "Casino Bonus", "username": "casino_bonus"}
POINT = {"latitude": 1.0, "longitude": 2.0}
POLL = {
    "id": "1", "question": "Ready to earn?",
    "options": [{"text": "Write @boss", "voter_count": 0, "persistent_id": "a"}],
    "total_voter_count": 0, "is_closed": False, "is_anonymous": True, "type": "quiz", "allows_multiple_answers": False,
    "allows_revoting": False, "members_only": False, "members_can_add_options": False, "correct_option_ids": [],
    "explanation": "500 a day", "description": "No experience",
}  # fmt: skip


def convert(**fields: object) -> GroupMessage:
    return to_group_message(message(**{"chat": GROUP, **fields}))


def video(name: str) -> dict[str, Any]:
    return {"video": {**FILE, "width": 1, "height": 1, "duration": 1, "file_name": name}}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"contact": {"phone_number": "1", "first_name": "Easy money,", "last_name": "write me"}},
         "Easy money, write me"),
        ({"contact": {"phone_number": "1", "first_name": "Ann",
                      "vcard": "BEGIN:VCARD\nFN:Ann\nNOTE:500 a day\nURL;type=x:https://win.example\nEND:VCARD"}},
         "Ann\n500 a day\nhttps://win.example"),
        # As phones write them: a group before the property, lines broken at 75 octets, other fields.
        ({"contact": {"phone_number": "1", "first_name": "Ann",
                      "vcard": "BEGIN:VCARD\r\nitem1.URL:https://win\r\n .example\r\nNICKNAME:500 a day\r\nEND:VCARD"}},
         "Ann\nhttps://win.example\n500 a day"),
        ({"contact": {"phone_number": "1", "first_name": "Ann", "vcard": "ORG: ;Casino Bonus;"}}, "Ann\nCasino Bonus"),
        ({"document": {**FILE, "file_name": "earn_500_a_day.apk"}}, "earn 500 a day.apk"),
        ({"audio": {**FILE, "duration": 1, "file_name": "free_spins.mp3"}}, "free spins.mp3"),
        # An animation is a document, too; its name is a program's.
        ({"animation": {**FILE, "width": 1, "height": 1, "duration": 1}, "document": {**FILE, "file_name": "spin it"}},
         ""),
        ({"caption": "Look", **video("free-casino-spins.mp4")}, "Look\nfree-casino-spins.mp4"),
        ({"audio": {**FILE, "duration": 1, "performer": "Casino", "title": "Free spins"}}, "Casino Free spins"),
        # Names that a camera or a program gave.
        ({"document": {**FILE, "file_name": "IMG_20260101_120000.jpg"}}, ""),
        (video("Screenshot 2026-01-01 at 12.00.00.mov"), ""),
        (video("f3a9c01e77b2.mp4"), ""),
        ({"venue": {"location": POINT, "title": "Massage 24/7", "address": "t.me/girls"}}, "Massage 24/7\nt.me/girls"),
        ({"poll": POLL}, "Ready to earn?\nWrite @boss\nNo experience\n500 a day"),
        ({"checklist": {"title": "Earn", "tasks": [{"id": 1, "text": "Write @boss"}]}}, "Earn\nWrite @boss"),
        ({"story": {"chat": CASINO, "id": 1}}, "Casino Bonus"),
        ({"story": {"chat": {"id": 9, "type": "private", "first_name": "500 a day"}, "id": 1}}, "500 a day"),
        ({"forum_topic_created": {"name": "500 a day", "icon_color": 1}}, "500 a day"),
        ({"forum_topic_created": {"name": "Ann", "icon_color": 1, "is_name_implicit": True}}, ""),
        ({"forum_topic_edited": {"name": "500 a day"}}, "500 a day"),
        ({"checklist_tasks_added": {"tasks": [{"id": 1, "text": "Write @boss"}]}}, "Write @boss"),
        ({"poll_option_added": {"option_persistent_id": "a", "option_text": "Write @boss"}}, "Write @boss"),
        ({"text": "Look", "reply_markup": {"inline_keyboard": [[{"text": "Copy", "copy_text": {"text": "t.me/x"}}]]}},
         "Look\nCopy\nt.me/x"),
        ({"game": {"title": "Slots", "description": "Free spins", "photo": [], "text": "Write @boss"}},
         "Slots\nFree spins\nWrite @boss"),
        ({"invoice": {"title": "Course", "description": "Earn 500 a day", "start_parameter": "x", "currency": "USD",
                      "total_amount": 100}}, "Course\nEarn 500 a day"),
        ({"text": "Look", "reply_markup": {"inline_keyboard": [[{"text": "Claim $500", "url": "https://x.example"}],
                                                               [{"text": "Like", "callback_data": "x"}]]}},
         "Look\nClaim $500"),
        ({"giveaway": {"chats": [CASINO], "winners_selection_date": 1_800_000_000, "winner_count": 1,
                       "prize_description": "A car"}}, "A car\nCasino Bonus"),
    ],
)  # fmt: skip
def test_attachments_are_read_as_the_authors_words(fields: dict[str, Any], text: str) -> None:
    assert convert(**fields).text == text


def test_attachment_of_a_forward_is_not_the_authors() -> None:
    origin = {"type": "channel", "chat": CASINO, "message_id": 1, "date": 1_800_000_000}
    found = convert(contact={"phone_number": "1", "first_name": "Easy money"}, forward_origin=origin)
    assert (found.text, found.forwarded) == ("", "Easy money")


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ({"type": "channel", "chat": CASINO, "message_id": 1}, "Casino Bonus"),
        ({"type": "chat", "sender_chat": CASINO}, "Casino Bonus"),
        ({"type": "hidden_user", "sender_user_name": "500 a day @boss"}, "500 a day @boss"),
        ({"type": "user", "sender_user": {"id": 9, "is_bot": False, "first_name": "500$ a day"}}, "500$ a day"),
        # The name of a person says nothing.
        ({"type": "hidden_user", "sender_user_name": "Ann Lee"}, ""),
        ({"type": "user", "sender_user": {"id": 9, "is_bot": False, "first_name": "Ann", "last_name": "Lee"}}, ""),
    ],
)
def test_name_over_a_forward_without_words_is_read(origin: dict[str, Any], name: str) -> None:
    found = convert(sticker={**FILE, "type": "regular", "width": 1, "height": 1, "is_animated": False,
                             "is_video": False}, forward_origin={**origin, "date": 1_800_000_000})  # fmt: skip
    assert found.forwarded == name


LINKED = [{"type": "text_link", "offset": 0, "length": 4, "url": "https://a.b"}]
LINK = {"text": "here", "text_entities": LINKED}


@pytest.mark.parametrize(
    ("fields", "links"),
    [
        ({"checklist": {"title": "Earn", "title_entities": [{**LINKED[0], "url": "https://c.d"}],
                        "tasks": [{"id": 1, **LINK}]}}, ("https://c.d", "https://a.b")),
        ({"checklist_tasks_added": {"tasks": [{"id": 1, **LINK}]}}, ("https://a.b",)),
        ({"game": {"title": "Slots", "description": "Spins", "photo": [], **LINK}}, ("https://a.b",)),
        ({"poll": {**POLL, "description": "here", "description_entities": LINKED}}, ("https://a.b",)),
        ({"poll": {**POLL, "explanation": "here", "explanation_entities": LINKED}}, ("https://a.b",)),
        ({"story": {"chat": CASINO, "id": 1}}, ("https://t.me/casino_bonus",)),
        # A person's story, and a channel without a name, lead nowhere.
        ({"story": {"chat": {"id": 9, "type": "private", "first_name": "Ann", "username": "ann"}, "id": 1}}, ()),
        ({"story": {"chat": {"id": -901, "type": "channel", "title": "Elsewhere"}, "id": 1}}, ()),
        ({"giveaway": {"chats": [CASINO], "winners_selection_date": 1_800_000_000, "winner_count": 1}},
         ("https://t.me/casino_bonus",)),
    ],
)  # fmt: skip
def test_links_of_attachments(fields: dict[str, Any], links: tuple[str, ...]) -> None:
    assert convert(**fields).links == links


def test_checklist_without_tasks_is_one() -> None:
    assert convert(checklist={"title": "Earn", "tasks": []}).media == (MediaKind.CHECKLIST,)


@pytest.mark.parametrize(
    ("chat", "quoted"),
    [
        (CASINO, "Casino Bonus"),
        # The group's own story, and one of a person, whose name says nothing.
        (GROUP, None),
        ({"id": 9, "type": "private", "first_name": "500 a day"}, None),
    ],
)
def test_reply_to_a_story_of_another_channel_quotes_its_title(chat: dict[str, Any], quoted: str | None) -> None:
    found = convert(text="cool", reply_to_story={"chat": chat, "id": 1})
    assert (found.quotes_outside, found.quoted) == (quoted is not None, quoted or "")


@pytest.mark.parametrize(
    "origin", [{"type": "channel", "chat": CASINO, "message_id": 1}, {"type": "chat", "sender_chat": CASINO}]
)
def test_quotation_is_named_by_its_origin_where_its_chat_is_hidden(origin: dict[str, Any]) -> None:
    found = convert(text="cool", external_reply={"origin": {**origin, "date": 1_800_000_000}})
    assert (found.quotes_outside, found.quoted) == (True, "Casino Bonus")


def test_quotation_from_another_chat_is_read_whole_and_marked() -> None:
    outside = {
        "origin": {"type": "channel", "chat": CASINO, "message_id": 1, "date": 1_800_000_000}, "chat": CASINO,
        "document": {**FILE, "file_name": "free spins.apk"}, "link_preview_options": {"url": "https://spin.example"},
    }  # fmt: skip
    found = convert(text="cool", external_reply=outside, quote={"text": "Free spins!", "position": 0})
    assert found.quotes_outside
    assert found.text == "cool"
    assert found.quoted == "Free spins!\nfree spins.apk\nCasino Bonus\nhttps://spin.example"


def test_quotation_from_another_topic_of_the_group_is_not_from_outside() -> None:
    origin = {"type": "user", "sender_user": {"id": 9, "is_bot": False, "first_name": "Bob"}, "date": 1_800_000_000}
    found = convert(text="cool", external_reply={"origin": origin, "chat": GROUP}, quote={"text": "Hi", "position": 0})
    assert (found.quotes_outside, found.quoted) == (False, "Hi")


def test_each_part_of_a_long_album_is_read() -> None:
    photo = [{**FILE, "width": 1, "height": 1}]
    captions = ["long " * 1000] * 4 + ["long " * 500 + "write @boss" + " long" * 500]
    parts = [
        message(chat=GROUP, message_id=number, photo=photo, media_group_id="a", caption=caption)
        for number, caption in enumerate(captions, start=1)
    ]
    found = to_group_message(parts[0], parts)
    assert "@boss" in found.text
    assert len(found.text) < LONGEST * 1.2
