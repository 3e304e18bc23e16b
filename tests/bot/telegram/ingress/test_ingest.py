"""UpdateIngest: order, repetitions, unreadable updates, full lanes and albums."""

import json

import pytest
from structlog.testing import capture_logs

from bot.telegram.jobs import UpdateArrived
from bot.telegram.worker import parse_payload
from core.errors import StorageError
from services.inbox.job import LARGEST_PRIORITY
from tests.bot.telegram.ingress.ingest_harness import (
    GROUP_LANE,
    OWN_LANE,
    PRIVATE_LANE,
    IngestHarness,
    part,
    text_message,
)
from tests.support.fake_telegram.messages import BOT, GROUP

pytestmark = pytest.mark.integration


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
