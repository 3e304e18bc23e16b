"""Flood control: a 429 holds a chat."""

import pytest

from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.failures import CallKind, DeliveryTiming
from bot.telegram.delivery.outgoing import SendResult
from tests.support.clock import ManualClock
from tests.support.delivery_messages import GROUP, PERSON, send_with_button
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.markdown import render

pytestmark = pytest.mark.integration

TIMING = DeliveryTiming()


async def test_final_edit_waits_for_retry_after(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, clock: ManualClock
) -> None:
    """The text arrives when `retry_after` is over, not before, in the message that was edited."""
    first = await send_with_button(delivery)
    server.flood(PERSON, 17)
    started = clock.monotonic()

    outcome = await traffic.run(delivery.edit(PERSON, first.message_id, render("the end"), final=True))

    assert (outcome.result, server.chat(PERSON).texts()) == (SendResult.SHOWN, ["the end"])
    assert 17 <= clock.monotonic() - started <= 19
    assert len(server.calls_of("editMessageText")) == 2
    assert len(server.calls_of("sendMessage")) == 1


async def test_final_send_survives_any_number_of_429s(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """Floods do not count as tries."""
    server.fail(
        "sendMessage", 2 * TIMING.tries, status=429, description="Too Many Requests: retry after 3", retry_after=3
    )

    assert await traffic.run(delivery.send(PERSON, render("at last"))) is not None
    assert server.chat(PERSON).texts() == ["at last"]


@pytest.mark.parametrize(
    ("status", "description"),
    [
        (400, "Bad Request: FLOOD_WAIT_17"),
        (429, "Too Many Requests: retry after 17"),
        (400, "Bad Request: SLOWMODE_WAIT_17"),
    ],
)
async def test_pause_is_read_from_the_words(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, clock: ManualClock, status: int, description: str
) -> None:
    """Some answers of flood control have another status, or the seconds in their text only."""
    server.fail("sendMessage", 1, status=status, description=description)
    started = clock.monotonic()

    assert await traffic.run(delivery.send(PERSON, render("at last"))) is not None
    assert 17 <= clock.monotonic() - started <= 19
    assert len(server.calls_of("sendMessage")) == 2


async def test_progress_is_dropped_while_the_chat_is_held(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """After a 429 no edit, send, draft or typing call of that chat is made, and none is queued."""
    first = await send_with_button(delivery)
    server.flood(PERSON, 10)

    outcome = await delivery.edit(PERSON, first.message_id, render("hello a"), final=False)
    assert outcome.result is SendResult.SKIPPED
    calls = len(server.calls)
    assert (await delivery.edit(PERSON, first.message_id, render("hello b"), final=False)).result is SendResult.SKIPPED
    assert (await delivery.post(PERSON, render("new"), final=False)).result is SendResult.SKIPPED
    assert await delivery.drafts.show(PERSON, 1, render("new")) is SendResult.SKIPPED
    await delivery.typing(PERSON)
    assert len(server.calls) == calls
    assert delivery.held_s(PERSON) == 10

    await traffic.pass_time(30)
    assert server.chat(PERSON).texts() == ["hello"]
    assert delivery.held_s(PERSON) == 0
    assert (await delivery.edit(PERSON, first.message_id, render("hello c"), final=False)).result is SendResult.SHOWN


async def test_flood_holds_no_other_chat(delivery: Delivery, server: TelegramServer, clock: ManualClock) -> None:
    """Each chat has its own budget."""
    server.flood(PERSON, 10)
    await delivery.typing(PERSON)
    started = clock.monotonic()

    assert await delivery.send(GROUP, render("here")) is not None
    assert clock.monotonic() == started
    assert delivery.held_s(PERSON) == 10


async def test_429_without_retry_after_holds_for_a_second(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """Some servers send no `retry_after`, for which aiogram has no class."""
    server.fail("sendMessage", status=429, description="Too Many Requests")

    assert await traffic.run(delivery.send(PERSON, render("x"))) is not None


async def test_expired_holds_are_evicted(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, clock: ManualClock
) -> None:
    """Memory does not grow with every chat that was ever held."""
    held_until = delivery._held_until
    for chat_id in range(1000, 2024):
        held_until[chat_id] = clock.monotonic() + 1
    assert len(held_until) == 1024
    await traffic.pass_time(1)
    server.flood(PERSON, 5)

    await delivery.typing(PERSON)

    assert list(held_until) == [(PERSON, CallKind.MESSAGE)]
    assert len(held_until) == 1
    await traffic.pass_time(6)
    assert delivery.held_s(PERSON) == 0
    assert list(held_until) == []
