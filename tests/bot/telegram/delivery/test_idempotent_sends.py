"""Idempotent sends within a job of the inbox."""

import pytest

from bot.telegram.delivery.delivery import Delivery
from core.db.database import Database
from services.inbox.sent_messages import SentMessages
from tests.support.clock import ManualClock
from tests.support.delivery_messages import GROUP, PERSON
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.markdown import render

pytestmark = pytest.mark.integration


@pytest.fixture
async def sent_messages(file: Database, clock: ManualClock) -> SentMessages:
    return SentMessages(file, clock)


async def test_send_is_idempotent_within_a_job(
    traffic: Traffic, clock: ManualClock, server: TelegramServer, sent_messages: SentMessages
) -> None:
    """In a later process too; messages that are not yet recorded are sent."""
    runs = ["one"], ["one", "two"]
    for lines in runs:
        delivery = Delivery(traffic.bot, clock, sent_messages)
        with sent_messages.sent_by("job"):
            for line in lines:
                message = await delivery.send(PERSON, render(line))
                assert message is not None
    assert server.chat(PERSON).texts() == ["one", "two"]
    delivery = Delivery(traffic.bot, clock, sent_messages)
    assert await delivery.send(PERSON, render("one")) is not None
    assert server.chat(PERSON).texts() == ["one", "two", "one"]


async def test_failed_send_is_repeated_by_a_retried_job(
    traffic: Traffic, clock: ManualClock, server: TelegramServer, sent_messages: SentMessages
) -> None:
    delivery = Delivery(traffic.bot, clock, sent_messages)
    server.fail("sendMessage", status=400, description="Bad Request: message is too long")
    with sent_messages.sent_by("job"):
        assert await delivery.send(PERSON, render("one")) is None
    with sent_messages.sent_by("job"):
        assert await delivery.send(PERSON, render("one")) is not None
    assert server.chat(PERSON).texts() == ["one"]


async def test_send_is_idempotent_after_a_migration(
    traffic: Traffic, clock: ManualClock, server: TelegramServer, sent_messages: SentMessages
) -> None:
    """The record has the old id; the process that retries the job does not know the new one."""
    server.fail(
        "sendMessage", 10, status=400, description="Bad Request: group chat was upgraded to a supergroup chat",
        chat_id=GROUP, migrate_to=-200,
    )  # fmt: skip
    places = []
    for _ in range(2):
        delivery = Delivery(traffic.bot, clock, sent_messages)
        with sent_messages.sent_by("job"):
            places.append(await delivery.send(GROUP, render("one")))
    assert server.chat(-200).texts() == ["one"]
    assert places[0] is not None
    assert places[0].chat_id == -200
    assert places[1] is not None
    assert places[1].message_id == places[0].message_id
