"""UpdateIngest: access, queue lanes, full lanes, albums and moderated groups."""

import json
from typing import Any

import pytest
from aiogram.types import Update
from structlog.testing import capture_logs

from bot.telegram.jobs import UpdateArrived
from bot.telegram.worker import parse_payload
from core.errors import StorageError
from core.messages import ConversationKey, Surface
from services.inbox.job import LARGEST_PRIORITY
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


async def test_jobs_are_ordered_by_update_id(harness: IngestHarness) -> None:
    """The update id makes the job id and its priority within the lane."""
    await harness.take(
        *({"message": text_message(text)} for text in ("one", "two")), {"message": text_message("/stop")}
    )
    assert [(job.id, job.priority) for job in harness.jobs] == [
        (f"tg-{BOT['id']}-{number:012d}", number + 1) for number in (1, 2, 3)
    ]


async def test_a_huge_update_id_stays_within_the_priority_range(harness: IngestHarness) -> None:
    await harness.ingest.take([{"update_id": 2**40, "message": text_message("one")}])
    assert 1 <= harness.jobs[0].priority <= LARGEST_PRIORITY


async def test_a_repeated_update_is_the_same_job(harness: IngestHarness) -> None:
    for _ in range(2):
        await harness.take({"message": text_message("hello")})
    assert len(harness.jobs) == 1


async def test_a_lone_surrogate_is_preserved(harness: IngestHarness) -> None:
    """Telegram may cut a text within a surrogate pair."""
    await harness.take({"message": text_message("half \ud83d")})
    assert parse_payload(harness.jobs[0]) == UpdateArrived(
        update={"update_id": 1, "message": text_message("half \ud83d")}, is_moderated=False, is_prompt=True
    )


async def test_a_storage_error_is_raised_so_that_nothing_is_confirmed(harness: IngestHarness) -> None:
    harness.job_store.broken = True
    with pytest.raises(StorageError):
        await harness.take({"message": text_message("hello")})


async def test_an_unreadable_update_is_logged_and_skipped(harness: IngestHarness) -> None:
    """The log quotes none of it; the rest of the batch is stored."""
    with capture_logs() as logs:
        await harness.take(
            {"message": {"message_id": "x", "text": "a secret"}},
            {"callback_query": {"id": 5}},
            {"message": text_message("one")},
        )
        await harness.ingest.take([{"message": text_message("a secret")}])
    assert [(entry["event"], entry["kinds"]) for entry in logs] == [
        ("update.unreadable", ["message"]),
        ("update.unreadable", ["callback_query"]),
        ("update.unreadable", ["message"]),
    ]
    assert "secret" not in str(logs)
    assert [job.priority for job in harness.jobs] == [4]


async def test_an_update_over_which_a_bug_is_raised_is_quarantined(harness: IngestHarness) -> None:
    """The rest of the batch is stored."""
    harness.job_store.buggy = {f"tg-{BOT['id']}-000000000002"}
    await harness.take(*({"message": text_message(text)} for text in ("one", "two", "three")))
    assert [job.priority for job in harness.jobs] == [2, 4]
    assert harness.job_store.quarantined == [(f"tg-{BOT['id']}-000000000002", "taking it in failed: KeyError")]


@pytest.mark.parametrize("update_id", [None, True, -1, 2**63, 1.5, "7"])
async def test_an_update_with_an_impossible_id_is_quarantined_once(harness: IngestHarness, update_id: object) -> None:
    """No offset confirms it, so that it comes again with each poll."""
    for _ in range(2):
        await harness.ingest.take([{"update_id": update_id, "message": text_message("hello")}])
    assert harness.jobs == []
    (job_id, reason), again = harness.job_store.quarantined
    assert (job_id, reason) == again
    assert reason == "unreadable: no valid update_id"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"message": None, "poll": 5}, "unreadable: message, poll"),
        ({"message": {"message_id": "one"}}, "unreadable: message"),
        ({"callback_query": {"id": None, "data": 5}}, "unreadable: callback_query"),
    ],
)
async def test_an_unreadable_update_is_quarantined(
    harness: IngestHarness, content: dict[str, object], reason: str
) -> None:
    await harness.take({"message": text_message("one")}, content, {"message": text_message("three")})
    assert [job.priority for job in harness.jobs] == [2, 4]
    assert harness.job_store.quarantined == [(f"tg-{BOT['id']}-000000000002", reason)]


async def test_an_update_of_an_unknown_kind_is_confirmed(harness: IngestHarness) -> None:
    await harness.take({"unknown_kind": {"deep": [[]]}}, {})
    assert harness.jobs == []
    assert harness.job_store.quarantined == []


async def test_a_partly_unreadable_message_is_classified_by_its_essential_fields(harness: IngestHarness) -> None:
    """The whole update is stored: a later version may read more of it."""
    await harness.take({"message": text_message("one", poll={"question": 5})})
    assert [job.lane for job in harness.jobs] == [PRIVATE_LANE]
    assert json.loads(harness.jobs[0].payload)["update"]["message"]["poll"] == {"question": 5}


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


# Full lanes.


async def test_an_update_for_a_full_lane_is_rejected(harness: IngestHarness) -> None:
    """Only that one, and once: its repetition causes no second rejection."""
    harness.job_store.full = {PRIVATE_LANE}
    for _ in range(2):
        await harness.take(
            {"message": text_message("hello")}, {"message": text_message("@understudy_bot hello", chat=GROUP)}
        )
    assert sorted(zip(harness.kinds, (job.lane for job in harness.jobs), strict=True)) == [
        ("queue-full", OWN_LANE), ("update", GROUP_LANE),
    ]  # fmt: skip


async def test_a_rejected_update_that_is_repeated_stays_rejected(harness: IngestHarness) -> None:
    """Its sender was asked to send it again."""
    harness.job_store.full = {PRIVATE_LANE}
    await harness.take({"message": text_message("hello")})
    harness.job_store.full = set()
    await harness.take({"message": text_message("hello")})
    assert harness.kinds == ["queue-full"]


# Albums.


async def test_each_part_of_an_album_is_stored_and_has_a_job(harness: IngestHarness) -> None:
    """The first job to run answers all of them."""
    await harness.take(part(11), part(12))
    assert sorted(harness.parts.stored) == [11, 12]
    assert [job.lane for job in harness.jobs] == [PRIVATE_LANE, PRIVATE_LANE]


async def test_in_a_group_only_the_part_for_the_bot_has_a_job(harness: IngestHarness) -> None:
    """The other parts are stored with it, earlier ones too; an album that is not for the bot is not stored."""
    await harness.take(part(11, chat=GROUP), part(12, "@understudy_bot look", chat=GROUP), part(13, chat=GROUP))
    await harness.take({"message": part(21, chat=GROUP)["message"] | {"media_group_id": "y"}})
    assert sorted(harness.parts.stored) == [11, 12, 13]
    assert [job.priority for job in harness.jobs] == [3]


async def test_a_repeated_batch_does_not_fill_the_album(harness: IngestHarness) -> None:
    """After failed stores all ten parts still fit."""
    harness.job_store.broken = True
    for _ in range(4):
        with pytest.raises(StorageError):
            await harness.take(part(11), part(12), part(13))
    harness.job_store.broken = False
    await harness.take(*(part(number) for number in range(11, 21)))
    assert sorted(harness.parts.stored) == list(range(11, 21))


async def test_an_album_for_a_full_lane_is_rejected_once(harness: IngestHarness) -> None:
    harness.job_store.full = {PRIVATE_LANE}
    await harness.take(part(11), part(12), part(13))
    assert harness.kinds == ["queue-full"]


async def test_an_album_with_an_accepted_part_is_not_rejected(harness: IngestHarness) -> None:
    """The lane is full after that part: the others are answered with it, and cause no rejection."""
    await harness.take(part(11))
    harness.job_store.full = {PRIVATE_LANE}
    await harness.ingest.take([{"update_id": 2, **part(12)}])
    assert harness.kinds == ["update"]
    assert sorted(harness.parts.stored) == [11, 12]


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
