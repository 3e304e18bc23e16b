"""UpdateClassifier: queue lanes, prompts, access and moderated groups."""

from typing import Any

import pytest
from aiogram.types import Update

from bot.telegram.jobs import UpdateArrived
from bot.telegram.worker import parse_payload
from core.errors import StorageError
from core.messages import ConversationKey, Surface
from tests.bot.telegram.ingress.ingest_harness import (
    GROUP_LANE,
    OWN_LANE,
    PRIVATE_LANE,
    IngestHarness,
    part,
    text_message,
)
from tests.support.clock import ManualClock
from tests.support.fake_telegram.chats import JsonObject
from tests.support.fake_telegram.messages import ANN, BOB, BOT, GROUP, PRIVATE, raw
from tests.support.fake_telegram.traffic import Traffic

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("content", "lane"),
    [
        # Messages wait in the lane of their conversation.
        ({"message": text_message("hello")}, PRIVATE_LANE),
        ({"message": text_message("/new")}, PRIVATE_LANE),
        # A model may answer it, so it counts as a message.
        ({"message": text_message("/schedule someday")}, PRIVATE_LANE),
        ({"message": text_message("@understudy_bot hello", chat=GROUP)}, GROUP_LANE),
        ({"message": text_message("/ask hello", chat=GROUP)}, GROUP_LANE),
        ({"message": text_message("hello", message_thread_id=3, is_topic_message=True)},
         str(ConversationKey(Surface.TELEGRAM, 7, 3))),
        ({"message": text_message(" ")}, PRIVATE_LANE),
        # Commands about the running answer or the bot, and presses, have a lane of their own.
        ({"message": text_message("/stop")}, OWN_LANE),
        ({"message": text_message("/STOP@understudy_bot")}, OWN_LANE),
        ({"message": text_message("/provider force a")}, OWN_LANE),
        ({"message": text_message("/dead")}, OWN_LANE),
        ({"callback_query": {"id": "1", "from": ANN, "chat_instance": "1", "data": "stop:1"}}, OWN_LANE),
        ({"stopped_message_generation": {"chat": PRIVATE, "draft_id": 1}}, OWN_LANE),
        # Messages of a group that are not for the bot lead to no job.
        ({"message": text_message("hello Bob", chat=GROUP)}, None),
        # Nor do the commands of other bots.
        ({"message": text_message("/roll 6", chat=GROUP)}, None),
        ({"message": text_message("/new@another_bot", chat=GROUP)}, None),
        # A blank text.
        ({"message": text_message("  ", chat=GROUP)}, None),
        # An edit: of a question, which a button may answer anew; else of a message between members.
        ({"edited_message": text_message("hello!", edit_date=2)}, "telegram:7:0"),
        ({"edited_message": text_message("hello!", chat=GROUP, edit_date=2)}, None),
    ],
)  # fmt: skip
async def test_update_is_classified_into_its_lane(
    harness: IngestHarness, content: dict[str, Any], lane: str | None
) -> None:
    await harness.take(content)
    assert [(job.lane, job.is_limited) for job in harness.jobs] == ([] if lane is None else [(lane, lane != OWN_LANE)])
    for job in harness.jobs:
        payload = parse_payload(job)
        assert isinstance(payload, UpdateArrived)
        assert payload.model_copy(update={"is_prompt": False}) == UpdateArrived(
            update={"update_id": 1, **content}, is_moderated=False
        )


@pytest.mark.parametrize(
    ("content", "is_prompt"),
    [
        ({"message": text_message("hello")}, True),
        ({"message": text_message("@understudy_bot hello", chat=GROUP)}, True),
        # A forwarded command is a text like others.
        ({"message": text_message("/new", forward_origin={"type": "hidden_user", "date": 1, "sender_user_name": "A"})},
         True),
        # Commands, unknown ones too, have handlers of their own.
        ({"message": text_message("/new")}, False),
        ({"message": text_message("/frobnicate")}, False),
        ({"message": text_message("/ask hello", chat=GROUP)}, False),
        # Another bot is not answered, nor is an event in the chat.
        ({"message": text_message("hello", via_bot=BOT)}, False),
        ({"message": raw(pinned_message=text_message("hello"))}, False),
        ({"edited_message": text_message("hello!", edit_date=2)}, False),
    ],
)  # fmt: skip
async def test_a_message_that_the_model_answers_is_a_prompt(
    harness: IngestHarness, content: dict[str, Any], *, is_prompt: bool
) -> None:
    await harness.take(content)
    payload = parse_payload(harness.jobs[0])
    assert isinstance(payload, UpdateArrived)
    assert payload.is_prompt is is_prompt


@pytest.mark.parametrize(
    ("users", "chats", "chat", "person", "is_admitted"),
    [
        # A listed user, in private and in any group.
        ({7}, set(), PRIVATE, ANN, True),
        ({7}, set(), GROUP, ANN, True),
        ({7}, set(), GROUP, BOB, False),
        # Any user in a listed group, and only there.
        (set(), {-100}, GROUP, BOB, True),
        (set(), {-101}, GROUP, BOB, False),
        (set(), {-100}, PRIVATE, ANN, False),
        # A private chat has the id of its user.
        (set(), {7}, PRIVATE, ANN, True),
    ],
)
async def test_access_list_admits_listed_users_and_chats(
    traffic: Traffic,
    clock: ManualClock,
    users: set[int],
    chats: set[int],
    chat: JsonObject,
    person: JsonObject,
    *,
    is_admitted: bool,
) -> None:
    harness = IngestHarness(traffic, clock, frozenset(users), frozenset(chats))
    pressed = {"id": "1", "from": person, "chat_instance": "1", "message": raw("Hi", chat=chat, **{"from": BOT})}
    await harness.take({"message": text_message("/help", chat=chat, **{"from": person})}, {"callback_query": pressed})
    assert harness.kinds.count("update") == (2 if is_admitted else 0)


@pytest.mark.parametrize(("users", "is_admitted"), [({7}, True), ({8}, False)])
async def test_access_list_checks_the_chat_of_a_stopped_draft(
    traffic: Traffic, clock: ManualClock, users: set[int], *, is_admitted: bool
) -> None:
    """That update carries the private chat and no user."""
    harness = IngestHarness(traffic, clock, frozenset(users))
    await harness.take({"stopped_message_generation": {"chat": PRIVATE, "draft_id": 1}})
    assert bool(harness.jobs) is is_admitted


async def test_a_denied_user_gets_a_reply_in_private_and_on_a_press(traffic: Traffic, clock: ManualClock) -> None:
    """In a lane of its own, not behind the jobs of the chat; messages in groups get none."""
    harness = IngestHarness(traffic, clock, frozenset({1}))
    pressed = {"id": "5", "from": ANN, "chat_instance": "1", "data": "x"}
    await harness.take(
        {"message": text_message("hello")}, {"message": text_message("/help", chat=GROUP)}, {"callback_query": pressed}
    )
    assert [(job.id[-1], job.lane) for job in harness.jobs] == [("1", "now:1"), ("3", "now:3")]
    assert harness.kinds == ["not-allowed", "not-allowed"]


# Moderated groups.

BY_ANN, BY_BOB = "group:-100:7", "group:-100:8"


@pytest.mark.parametrize(
    ("content", "lane", "for_bot"),
    [
        # Every message and edit, in the lane of its author.
        ({"message": text_message("hello Bob", chat=GROUP)}, BY_ANN, False),
        ({"message": text_message("hello Ann", chat=GROUP, **{"from": BOB})}, BY_BOB, False),
        ({"edited_message": text_message("hello!", chat=GROUP, edit_date=2)}, BY_ANN, False),
        # A message for the bot keeps its lane and is moderated by its job.
        ({"message": text_message("@understudy_bot hello", chat=GROUP)}, GROUP_LANE, True),
        ({"message": text_message("/report", chat=GROUP)}, OWN_LANE, True),
        # Private chats are not moderated.
        ({"message": text_message("hello")}, PRIVATE_LANE, True),
        ({"edited_message": text_message("hello!", edit_date=2)}, PRIVATE_LANE, True),
    ],
)
async def test_updates_of_a_moderated_group_have_jobs(
    harness: IngestHarness, content: dict[str, Any], lane: str | None, *, for_bot: bool | None
) -> None:
    harness.moderator.groups = {-100}
    await harness.take(content)
    assert [job.lane for job in harness.jobs] == ([] if lane is None else [lane])
    payloads = [parse_payload(job) for job in harness.jobs]
    assert [payload.is_for_bot for payload in payloads] == ([] if lane is None else [for_bot])
    assert [payload.is_moderated for payload in payloads] == ([] if lane is None else [lane != PRIVATE_LANE])


async def test_messages_of_denied_users_in_a_moderated_group_are_only_moderated(
    traffic: Traffic, clock: ManualClock
) -> None:
    harness = IngestHarness(traffic, clock, users=frozenset({8}))
    harness.moderator.groups = {-100}
    await harness.take(
        {"message": text_message("@understudy_bot hello", chat=GROUP)},
        {"message": text_message("hello", chat=GROUP, **{"from": BOB})},
    )
    assert [parse_payload(job).is_admitted for job in harness.jobs] == [False, True]


async def test_an_album_in_a_moderated_group_is_stored_whole_in_one_lane(harness: IngestHarness) -> None:
    """Independent of the order of its parts: the job that takes the album answers the part for the bot."""
    harness.moderator.groups = {-100}
    await harness.take(part(11, chat=GROUP), part(12, "@understudy_bot look", chat=GROUP))
    assert sorted(harness.parts.stored) == [11, 12]
    assert {job.lane for job in harness.jobs} == {GROUP_LANE}


async def test_a_storage_error_of_the_moderation_scope_is_raised(harness: IngestHarness) -> None:
    async def fails(_: Update) -> bool:
        raise StorageError("the database failed: it is locked")

    harness.moderator.concerns = fails
    with pytest.raises(StorageError):
        await harness.take({"message": text_message("hello Bob", chat=GROUP)})
    assert not harness.jobs
