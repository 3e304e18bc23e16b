"""What is counted of Telegram, with a real bot and a Bot API server on loopback."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from bot.telegram.delivery.delivery import Delivery
from bot.telegram.markdown.render import render
from bot.telegram.observability.api_calls import RECENT_S, ApiCallMiddleware
from bot.telegram.observability.metrics import TelegramMetrics
from core.errors import StorageError
from core.observability.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.web_client import Page

PERSON = 7


class Counted:
    """A bot whose calls are counted."""

    def __init__(self, traffic: Traffic, clock: ManualClock) -> None:
        self.metrics = Metrics()
        self.figures = TelegramMetrics(self.metrics)
        self.calls = ApiCallMiddleware(clock)
        self.calls.watch(self.figures)
        traffic.bot.session.middleware(self.calls)
        self.delivery = Delivery(traffic.bot, clock, meter=self.figures)

    def shown(self, name: str) -> float:
        text = self.metrics.exposition()[0].decode()
        return Page(200, {}, text).figures.get(f"understudy_{name}", 0)


@pytest.fixture
def counted(traffic: Traffic, clock: ManualClock) -> Counted:
    return Counted(traffic, clock)


async def said(counted: Counted, traffic: Traffic) -> None:
    """Say something, whatever it takes."""
    task = asyncio.create_task(counted.delivery.post(PERSON, render("hello")))
    await traffic.settle()
    while not task.done():
        await traffic.pass_time(1, step=1)


async def test_a_flood_is_a_refusal_and_what_follows_a_retry(
    counted: Counted, server: TelegramServer, traffic: Traffic
) -> None:
    server.fail("sendMessage", 2, status=429, description="Too Many Requests: retry after 3", retry_after=3)
    await said(counted, traffic)
    assert counted.shown("telegram_refusals_total{kind=flood,method=sendMessage}") == 2
    assert counted.shown("telegram_retries_total{kind=flood}") == 2
    assert counted.shown("telegram_call_seconds_count{method=sendMessage}") == 3
    assert counted.shown("telegram_lost_total{act=send}") == 0


async def test_a_fault_that_passes_and_one_that_does_not(
    counted: Counted, server: TelegramServer, traffic: Traffic
) -> None:
    server.fail("sendMessage", 2, status=502, description="Bad Gateway")
    await said(counted, traffic)
    assert counted.shown("telegram_retries_total{kind=passing}") == 2
    server.fail("sendMessage", 100, status=502, description="Bad Gateway")
    await said(counted, traffic)
    assert counted.shown("telegram_lost_total{act=send}") == 1
    assert counted.shown("telegram_retries_total{kind=flood}") == 0


async def test_updates_by_kind(counted: Counted, server: TelegramServer) -> None:
    """And each goes on to where it was meant to go; what was not stored is not counted, since it comes again."""
    taken: list[int] = []

    async def sink(batch: Sequence[dict[str, Any]]) -> None:
        taken.extend(update["update_id"] for update in batch)
        if len(taken) > 2:
            raise StorageError("the database failed: it is locked")

    take = counted.figures.counted(sink)
    server.user_says("hello", PERSON)
    await take([server.pending[0], {"update_id": 9999, "novelty": {}}])
    with pytest.raises(StorageError):
        await take([server.pending[0]])
    assert counted.shown("updates_total{kind=message}") == 1
    assert counted.shown("updates_total{kind=other}") == 1
    assert taken[1] == 9999


async def test_telegram_is_not_asked_for_what_it_just_showed(
    counted: Counted, server: TelegramServer, traffic: Traffic, clock: ManualClock
) -> None:
    """A probe every second must not become a call every second; a refusal is an answer too."""
    assert await counted.calls.silence(traffic.bot) is None
    assert await counted.calls.silence(traffic.bot) is None
    assert len(server.calls_of("getMe")) == 1
    clock.shift(RECENT_S)
    server.fail("getMe", 1, status=429, description="Too Many Requests: retry after 3", retry_after=3)
    assert await counted.calls.silence(traffic.bot) is None
    assert len(server.calls_of("getMe")) == 2
    clock.shift(RECENT_S)
    server.fail("getMe", 1, status=401, description="Unauthorized")
    assert "Unauthorized" in (await counted.calls.silence(traffic.bot) or "")
    server.fail("getMe", 1, status=502, description="Bad Gateway")
    assert await counted.calls.silence(traffic.bot) is not None
    await server.stop()
    silent = await counted.calls.silence(traffic.bot)
    assert silent is not None
    assert silent.startswith("TelegramNetworkError")
