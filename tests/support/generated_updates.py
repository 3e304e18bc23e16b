"""Generates updates as Telegram sends them, and mutations of them: wrong types, nulls, missing fields, huge numbers."""

import copy
import random
from collections.abc import Iterator
from typing import Any

JsonObject = dict[str, Any]

USER = {"id": 901, "is_bot": False, "first_name": "Mallory", "username": "mallory", "language_code": "en"}
BOT = {"id": 42, "is_bot": True, "first_name": "The Bot", "username": "the_bot"}
PRIVATE = {"id": 901, "type": "private", "first_name": "Mallory"}
CHANNEL = {"id": -1009, "type": "channel", "title": "A channel", "username": "a_channel"}
DATE = 1_800_000_000
FILE = {"file_id": "f", "file_unique_id": "u", "file_size": 1000}
PHOTO = {"photo": [{**FILE, "width": 90, "height": 90}, {**FILE, "width": 800, "height": 800}]}
POLL = {
    "id": "1", "question": "Tea?", "options": [{"text": "Yes", "voter_count": 0, "persistent_id": "1"}],
    "total_voter_count": 0, "is_closed": False, "is_anonymous": True, "type": "regular",
    "allows_multiple_answers": False, "allows_revoting": False, "members_only": False,
}  # fmt: skip
CONTENTS: tuple[JsonObject, ...] = (
    {"text": "Hello there, how are you?"},
    {"text": "/ask what time is it?", "entities": [{"type": "bot_command", "offset": 0, "length": 4}]},
    {"text": "/start gate_-100", "entities": [{"type": "bot_command", "offset": 0, "length": 6}]},
    {"text": "/newcomers raid 5", "entities": [{"type": "bot_command", "offset": 0, "length": 10}]},
    {"text": "see https://t.me/x", "entities": [{"type": "url", "offset": 4, "length": 14}]},
    {"caption": "a picture", **PHOTO},
    {"document": {**FILE, "file_name": "a.pdf", "mime_type": "application/pdf"}},
    {"poll": POLL},
    {"contact": {"phone_number": "+1", "first_name": "Easy", "last_name": "Money", "vcard": "NOTE:write me"}},
    {"venue": {"location": {"latitude": 1.0, "longitude": 2.0}, "title": "Bar", "address": "Here"}},
    {"sticker": {**FILE, "type": "regular", "width": 1, "height": 1, "is_animated": False, "is_video": False}},
    {"voice": {**FILE, "duration": 3}},
    {"story": {"chat": CHANNEL, "id": 5}},
    {"checklist": {"title": "List", "tasks": [{"id": 1, "text": "Buy milk"}]}},
    {"dice": {"emoji": "🎲", "value": 3}},
    {"new_chat_members": [USER]},
    {"text": "quoted", "external_reply": {"origin": {"type": "user", "date": DATE, "sender_user": USER}}},
    {"text": "forwarded", "forward_origin": {"type": "channel", "date": DATE, "message_id": 1, "chat": CHANNEL}},
    {"caption": "part", **PHOTO, "media_group_id": "album"},
    {"text": "answer", "via_bot": {**BOT, "id": 43}},
    {"text": "rich", "reply_markup": {"inline_keyboard": [[{"text": "Win", "url": "https://win.example"}]]}},
)
BUTTONS = (
    "stop:1", "retry:1", "inc:undo:1", "gate:pass:100:0", "gate:answer:100:12", "mod:mode:dry", "thrs:1", "with:1:a",
)  # fmt: skip
WRONG: tuple[object, ...] = (
    None, "", "text", "9" * 400, 0, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 1e308, True, [], {}, [None],
    {"x": None}, [[[[]]]], {"id": None}, {"id": 2**70}, "\x00", "\ud83d\ude00" * 30, 0.5,
)  # fmt: skip
HUGE = tuple(value for value in WRONG if isinstance(value, int | float) and not isinstance(value, bool))


def valid_updates(group_id: int) -> Iterator[JsonObject]:
    """Yields one update of each kind."""
    group = {"id": group_id, "type": "supergroup", "title": "The Group"}
    for number, content in enumerate(CONTENTS, start=1):
        for chat in (group, PRIVATE):
            yield {"message": {"message_id": 5000 + number, "date": DATE, "chat": chat, "from": USER, **content}}
        yield {
            "edited_message": {
                "message_id": 5000 + number, "date": DATE, "edit_date": DATE + 5, "chat": group, "from": USER, **content
            }
        }  # fmt: skip
    shown = {"message_id": 7, "date": DATE, "chat": group, "from": BOT, "text": "a card"}
    for data in BUTTONS:
        yield {"callback_query": {"id": "q", "from": USER, "chat_instance": "1", "data": data, "message": shown}}
    yield {"callback_query": {"id": "q", "from": USER, "chat_instance": "1", "data": "x", "inline_message_id": "i"}}
    yield {"callback_query": {"id": "q", "from": USER, "chat_instance": "1", "game_short_name": "g"}}
    yield {"inline_query": {"id": "1", "from": USER, "query": "x", "offset": ""}}
    yield {"chosen_inline_result": {"result_id": "1", "from": USER, "query": "x"}}
    yield {"poll": POLL}
    yield {"poll_answer": {"poll_id": "1", "user": USER, "option_ids": [0], "option_persistent_ids": ["1"]}}
    thumbs = [{"type": "emoji", "emoji": "👍"}]
    for chat in (group, PRIVATE):
        reaction = {"chat": chat, "message_id": 7, "date": DATE, "old_reaction": [], "new_reaction": thumbs}
        yield {"message_reaction": {**reaction, "user": USER}}
        yield {"message_reaction": {**reaction, "actor_chat": CHANNEL}}
    yield {"message_reaction_count": {"chat": group, "message_id": 7, "date": DATE, "reactions": []}}
    member, left = {"status": "member", "user": USER}, {"status": "left", "user": USER}
    muted = {"status": "restricted", "user": USER, "is_member": True, "until_date": 0, "can_send_messages": False}
    for old, new in ((left, member), (member, left), (member, muted), (muted, member)):
        changed = {"chat": group, "from": USER, "date": DATE, "old_chat_member": old, "new_chat_member": new}
        yield {"chat_member": changed}
        yield {"my_chat_member": changed}
    yield {"chat_join_request": {"chat": group, "from": USER, "user_chat_id": 901, "date": DATE}}
    yield {"stopped_message_generation": {"chat": PRIVATE, "from": USER, "draft_id": 1}}
    yield {"channel_post": {"message_id": 1, "date": DATE, "chat": CHANNEL, "text": "news"}}


def floods(group_id: int) -> Iterator[JsonObject]:
    """Yields an album of 100 parts, and a person's hundred joins, reactions, votes and inline queries."""
    group = {"id": group_id, "type": "supergroup", "title": "The Group"}
    member, left = {"status": "member", "user": USER}, {"status": "left", "user": USER}
    for number in range(100):
        head = {"message_id": 7000 + number, "date": DATE, "chat": group, "from": USER}
        yield {"message": {**head, **PHOTO, "caption": f"part {number}", "media_group_id": "of-100"}}
        old, new = (left, member) if number % 2 else (member, left)
        changed = {"chat": group, "from": USER, "date": DATE, "old_chat_member": old, "new_chat_member": new}
        yield {"chat_member": changed}
        thumbs = [{"type": "emoji", "emoji": "👍"}]
        reaction = {"chat": group, "message_id": 7, "date": DATE, "old_reaction": [], "new_reaction": thumbs}
        yield {"message_reaction": {**reaction, "user": USER}}
        yield {"poll_answer": {"poll_id": "1", "user": USER, "option_ids": [0], "option_persistent_ids": ["1"]}}
        yield {"inline_query": {"id": str(number), "from": USER, "query": "x" * 250, "offset": ""}}


def mutate(update: JsonObject, chance: random.Random) -> JsonObject:
    """Returns an update with one to three values replaced or removed; update ids are left alone."""
    changed = copy.deepcopy(update)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(changed))
        if not places:
            break
        holder, key = chance.choice(places)
        if chance.random() < 0.25:
            del holder[key]
        elif isinstance(holder[key], int) and chance.random() < 0.5:
            holder[key] = chance.choice(HUGE)
        else:
            holder[key] = copy.deepcopy(chance.choice(WRONG))
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)
