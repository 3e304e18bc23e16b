"""Retries after transient failures and unknown results."""

import asyncio

import pytest
from structlog.testing import capture_logs

from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.failures import DeliveryTiming
from bot.telegram.delivery.outgoing import SendResult, Sent
from tests.support.clock import ManualClock
from tests.support.delivery_messages import GROUP, PERSON, send_with_button
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.markdown import render

pytestmark = pytest.mark.integration

TIMING = DeliveryTiming()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_send_retries_a_server_error(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, status: int
) -> None:
    """A 5xx was not carried out: the message is sent once, a little later."""
    server.fail("sendMessage", 2, status=status, description="Bad Gateway")

    assert await traffic.run(delivery.send(PERSON, render("still here"))) is not None
    assert server.chat(PERSON).texts() == ["still here"]


async def test_send_retries_after_the_error_page_of_a_proxy(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """A proxy in front of a Bot API server answers with HTML while the server restarts."""
    server.garble("sendMessage", 4, executed=False, body="<html><title>502 Bad Gateway</title></html>")

    assert await traffic.run(delivery.send(PERSON, render("x"))) is not None
    assert server.chat(PERSON).texts() == ["x"]


async def test_send_gives_up_with_an_error_event(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, clock: ManualClock
) -> None:
    """After about a minute; the event has the reason and not the text."""
    server.fail("sendMessage", 100, status=502, description="Bad Gateway")
    started = clock.monotonic()

    with capture_logs() as logs:
        assert await traffic.run(delivery.send(PERSON, render("my secret"))) is None

    assert len(server.calls_of("sendMessage")) == TIMING.tries
    assert 20 <= clock.monotonic() - started <= 70
    [lost] = [entry for entry in logs if entry["log_level"] == "error"]
    assert (lost["event"], lost["fault"], lost["chat_id"]) == ("delivery.lost", "passing", PERSON)
    assert "Bad Gateway" in lost["reason"]
    assert "secret" not in repr(logs)


async def test_progress_edit_is_not_retried(delivery: Delivery, server: TelegramServer, clock: ManualClock) -> None:
    """The next edit has more text anyway."""
    first = await send_with_button(delivery)
    server.fail("editMessageText", status=500)

    outcome = await delivery.edit(PERSON, first.message_id, render("hello you"), final=False)

    assert outcome.result is SendResult.SKIPPED
    assert len(server.calls_of("editMessageText")) == 1


async def test_send_retries_a_refused_connection(delivery: Delivery, server: TelegramServer, traffic: Traffic) -> None:
    """Nothing was sent, so nothing can be doubled: all tries may be used."""
    await server.stop()
    task = asyncio.create_task(delivery.send(PERSON, render("back again")))
    await traffic.pass_time(8)
    assert not task.done()
    await server.start()
    await traffic.pass_time(40)

    assert task.done()
    assert server.chat(PERSON).texts() == ["back again"]


@pytest.mark.parametrize(
    ("executed", "texts"),
    [
        pytest.param(False, ["x"], id="cut-before"),
        # The one case that cannot be known: a second one is allowed, a third is not.
        pytest.param(True, ["x", "x"], id="cut-after"),
    ],
)
async def test_send_with_unknown_result_is_repeated_once(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, *, executed: bool, texts: list[str]
) -> None:
    """The answer is not lost, and not tripled."""
    server.drop("sendMessage", executed=executed)

    assert await traffic.run(delivery.send(PERSON, render("x"))) is not None
    assert server.chat(PERSON).texts() == texts


async def test_send_gives_up_after_two_unknown_results(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """An error event reports it."""
    server.drop("sendMessage", 100)

    with capture_logs() as logs:
        assert await traffic.run(delivery.send(PERSON, render("x"))) is None

    assert server.chat(PERSON).texts() == ["x", "x"]
    assert [entry["fault"] for entry in logs if entry["event"] == "delivery.lost"] == ["unknown"]


@pytest.mark.parametrize("executed", [True, False])
async def test_edit_with_unknown_result_is_repeated_freely(
    delivery: Delivery, server: TelegramServer, traffic: Traffic, *, executed: bool
) -> None:
    """An edit is idempotent; "message is not modified" then means that the first call succeeded."""
    first = await send_with_button(delivery)
    server.drop("editMessageText", 4, executed=executed)

    outcome = await traffic.run(delivery.edit(PERSON, first.message_id, render("the end"), final=True))

    assert (outcome.result, server.chat(PERSON).texts()) == (SendResult.SHOWN, ["the end"])


async def test_progress_send_reports_an_unknown_result(delivery: Delivery, server: TelegramServer) -> None:
    """The caller must not send another first message then."""
    server.drop("sendMessage")

    assert (await delivery.post(PERSON, render("x"), final=False)).result is SendResult.UNKNOWN
    assert server.chat(PERSON).texts() == ["x"]


async def test_undecodable_answer_is_an_unknown_result(
    delivery: Delivery, server: TelegramServer, traffic: Traffic
) -> None:
    """No log has the payload, which aiogram's error prints."""
    server.garble("sendMessage", 2, body='{"weird": "my secret"')

    with capture_logs() as logs:
        assert await traffic.run(delivery.send(PERSON, render("my secret"))) is None

    assert len(server.calls_of("sendMessage")) == 2
    assert "secret" not in repr(logs)
    assert [entry["reason"] for entry in logs if entry["event"] == "delivery.lost"] == ["not an answer of the Bot API"]


async def test_answer_of_another_shape_is_a_success(delivery: Delivery, server: TelegramServer) -> None:
    """Emulators return messages that aiogram cannot parse; `ok` and the id are enough."""
    server.garble("sendMessage", body='{"ok": true, "result": {"message_id": 1, "chat": "seven"}}')
    server.garble("editMessageText", body='{"ok": true, "result": {"message_id": 1, "chat": "seven"}}')

    assert await delivery.send(PERSON, render("x")) == Sent(PERSON, 1)
    assert (await delivery.edit(PERSON, 1, render("y"), final=True)).result is SendResult.SHOWN
    assert len(server.calls) == 2


async def test_cancellation_is_not_swallowed(delivery: Delivery, server: TelegramServer, traffic: Traffic) -> None:
    """Neither by a call in flight nor by the wait for the end of a hold."""
    gate = server.hold("sendMessage")
    calling = asyncio.create_task(delivery.send(PERSON, render("x")))
    await server.wait_for(lambda: gate.times == 0)
    calling.cancel()
    server.flood(GROUP, 60)
    waiting = asyncio.create_task(delivery.send(GROUP, render("x")))
    await traffic.settle()
    waiting.cancel()

    results = await asyncio.gather(calling, waiting, return_exceptions=True)
    gate.end()

    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
