"""UpdateIngest: the messages and presses of a person and of a group are limited, and the surplus is told once."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from bot.telegram.jobs import UpdateRejected
from bot.telegram.worker import parse_payload
from tests.bot.telegram.ingress.ingest_harness import ADMIN, PRIVATE_LANE, IngestHarness, part, text_message
from tests.support.clock import ManualClock
from tests.support.fake_telegram.messages import ANN, BOB, GROUP, PRIVATE
from tests.support.fake_telegram.traffic import Traffic

pytestmark = pytest.mark.integration


@pytest.fixture
def limited(traffic: Traffic, clock: ManualClock) -> IngestHarness:
    """An ingest that takes five messages a minute of each person."""
    return IngestHarness(traffic, clock, messages=5)


def sent(clock: ManualClock, text: str = "hello", **fields: object) -> dict[str, Any]:
    return {"message": text_message(text, **{"date": int(clock.time()), **fields})}


async def test_surplus_messages_lead_to_one_warning_a_minute(limited: IngestHarness, clock: ManualClock) -> None:
    """Over all topics and batches; commands count like messages; a repeated batch changes nothing."""
    topics = [sent(clock, message_thread_id=number, is_topic_message=True) for number in range(1, 5)]
    flood = [*topics, *[sent(clock, "/usage")] * 100]
    for _ in range(2):
        await limited.take(*flood)
    assert limited.kinds == ["update"] * 5 + ["rate-limited"]
    rejected = parse_payload(limited.jobs[-1])
    assert isinstance(rejected, UpdateRejected)
    assert rejected.renewal_s == 60
    await clock.advance(61)
    await limited.ingest.take([{"update_id": number, **sent(clock)} for number in range(500, 550)])
    assert limited.kinds == ["update"] * 5 + ["rate-limited"] + ["update"] * 5 + ["rate-limited"]


async def test_a_flood_is_dropped_without_parsing(limited: IngestHarness, clock: ManualClock) -> None:
    """Once its sender has been told; a repeated batch still finds the messages that were admitted."""
    flood = [{"update_id": number, **sent(clock)} for number in range(1, 101)]
    await limited.ingest.take(flood)
    kinds = limited.kinds
    with capture_logs() as logs:
        await limited.ingest.take(flood)
        await limited.ingest.take([{"update_id": number, "message": {**sent(clock)["message"], "text": 5}}
                                   for number in range(200, 300)])  # fmt: skip
    assert limited.kinds == kinds
    # The one that was told is judged again.
    assert [(entry["event"], entry["updates"]) for entry in logs] == [
        ("update.surplus_dropped", 94), ("update.rate_limited", 1), ("update.surplus_dropped", 100)
    ]  # fmt: skip
    await clock.advance(61)
    await limited.ingest.take([{"update_id": 400, **sent(clock)}])
    assert limited.kinds == [*kinds, "update"]


async def test_a_flood_leaves_others_and_admins_alone(limited: IngestHarness, clock: ManualClock) -> None:
    admin = {**ANN, "id": ADMIN}
    await limited.take(
        *[sent(clock)] * 50,
        sent(clock, chat={**PRIVATE, "id": 8}, **{"from": BOB}),
        *[sent(clock, chat={**PRIVATE, "id": ADMIN}, **{"from": admin})] * 10,
    )
    assert limited.kinds == ["update"] * 5 + ["rate-limited"] + ["update"] * 11


async def test_a_group_is_limited_as_a_whole(limited: IngestHarness, clock: ManualClock) -> None:
    """A hundred members who ask at once get one warning; each may still ask in private."""
    text = "@understudy_bot hello"
    members = [{**ANN, "id": 100 + number} for number in range(100)]
    await limited.take(*(sent(clock, text, chat=GROUP, **{"from": member}) for member in members))
    assert limited.kinds == ["update"] * 25 + ["rate-limited"]
    await limited.ingest.take([{"update_id": 900, **sent(clock, chat={**PRIVATE, "id": 199}, **{"from": members[99]})}])
    assert limited.kinds[-1] == "update"


async def test_the_surplus_in_a_moderated_group_is_still_judged(limited: IngestHarness, clock: ManualClock) -> None:
    limited.moderator.groups.add(-100)
    await limited.take(*[sent(clock, "@understudy_bot hello", chat=GROUP)] * 8)
    judged = [job for job in limited.jobs if job.lane == "group:-100:7"]
    assert [job.priority for job in judged] == [7, 8, 9]
    assert limited.kinds.count("rate-limited") == 1


async def test_presses_are_limited(limited: IngestHarness) -> None:
    """Three times as many as messages; one of the surplus is answered."""
    pressed = {"id": "1", "from": ANN, "chat_instance": "1", "data": "stop:1"}
    await limited.take(*[{"callback_query": pressed}] * 100)
    assert limited.kinds == ["update"] * 15 + ["rate-limited"]


async def test_an_album_counts_once(limited: IngestHarness, clock: ManualClock) -> None:
    await limited.take(*[part(number, "Look", date=int(clock.time())) for number in range(11, 21)], sent(clock))
    assert limited.kinds == ["update"] * 11


async def test_refusals_of_other_kinds_are_told_once_a_minute(
    traffic: Traffic, clock: ManualClock, harness: IngestHarness
) -> None:
    """A full lane, and a sender that the bot does not serve."""
    harness.job_store.full = {PRIVATE_LANE}
    await harness.take(*[sent(clock)] * 50)
    assert harness.kinds == ["queue-full"]
    closed = IngestHarness(traffic, clock, frozenset({1}))
    await closed.take(*[sent(clock)] * 50)
    assert closed.kinds == ["not-allowed"]
