"""TelegramMetrics and ApiCallMiddleware, with a real bot and a Bot API server on loopback."""

import asyncio

import pytest

from bot.telegram.api.session import RECENT_S, ApiCallMiddleware, TelegramMetrics
from bot.telegram.delivery.delivery import Delivery
from core.errors import StorageError
from core.observability.metrics import Metrics
from tests.bot.telegram.ingress.ingest_harness import IngestHarness
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.markdown import render
from tests.support.web_client import Page

pytestmark = pytest.mark.integration

PERSON = 7


class CountedBot:
    """A bot with counted calls."""

    def __init__(self, traffic: Traffic, clock: ManualClock) -> None:
        self.metrics = Metrics()
        self.telegram_metrics = TelegramMetrics(self.metrics)
        self.calls = ApiCallMiddleware(clock)
        self.calls.watch(self.telegram_metrics)
        traffic.bot.session.middleware(self.calls)
        self.delivery = Delivery(traffic.bot, clock, metrics=self.telegram_metrics)

    def value(self, name: str) -> float:
        text = self.metrics.exposition()[0].decode()
        return Page(200, {}, text).samples.get(f"understudy_{name}", 0)


@pytest.fixture
def counted(traffic: Traffic, clock: ManualClock) -> CountedBot:
    return CountedBot(traffic, clock)


async def send(counted: CountedBot, traffic: Traffic) -> None:
    """Sends a message and lets time pass until the delivery is done with it."""
    task = asyncio.create_task(counted.delivery.post(PERSON, render("hello")))
    await traffic.settle()
    while not task.done():
        await traffic.pass_time(1, step=1)


async def test_a_rate_limit_counts_as_refusal_and_retry(
    counted: CountedBot, server: TelegramServer, traffic: Traffic
) -> None:
    server.fail("sendMessage", 2, status=429, description="Too Many Requests: retry after 3", retry_after=3)
    await send(counted, traffic)
    assert counted.value("telegram_refusals_total{kind=flood,method=sendMessage}") == 2
    assert counted.value("telegram_retries_total{kind=flood}") == 2
    assert counted.value("telegram_call_seconds_count{method=sendMessage}") == 3
    assert counted.value("telegram_lost_total{act=send}") == 0


async def test_a_server_error_counts_retries_and_the_lost_message(
    counted: CountedBot, server: TelegramServer, traffic: Traffic
) -> None:
    server.fail("sendMessage", 2, status=502, description="Bad Gateway")
    await send(counted, traffic)
    assert counted.value("telegram_retries_total{kind=passing}") == 2
    server.fail("sendMessage", 100, status=502, description="Bad Gateway")
    await send(counted, traffic)
    assert counted.value("telegram_lost_total{act=send}") == 1
    assert counted.value("telegram_retries_total{kind=flood}") == 0


async def test_updates_are_counted_by_kind_once_stored(
    counted: CountedBot, server: TelegramServer, traffic: Traffic, clock: ManualClock
) -> None:
    """A batch that the inbox rejects is not counted, since it comes again."""
    harness = IngestHarness(traffic, clock, metrics=counted.telegram_metrics)
    server.user_says("hello", PERSON)
    await harness.ingest.take([server.pending[0], {"update_id": 9999, "novelty": {}}])
    harness.job_store.broken = True
    with pytest.raises(StorageError):
        await harness.ingest.take([server.pending[0]])
    assert counted.value("updates_total{kind=message}") == 1
    assert counted.value("updates_total{kind=other}") == 1
    assert len(harness.jobs) == 1


async def test_check_makes_no_call_after_a_recent_answer(
    counted: CountedBot, server: TelegramServer, traffic: Traffic, clock: ManualClock
) -> None:
    """A probe every second must not become a call every second; a rate limit counts as an answer."""
    assert await counted.calls.check(traffic.bot) is None
    assert await counted.calls.check(traffic.bot) is None
    assert len(server.calls_of("getMe")) == 1
    clock.shift(RECENT_S)
    server.fail("getMe", 1, status=429, description="Too Many Requests: retry after 3", retry_after=3)
    assert await counted.calls.check(traffic.bot) is None
    assert len(server.calls_of("getMe")) == 2
    clock.shift(RECENT_S)
    server.fail("getMe", 1, status=401, description="Unauthorized")
    assert "Unauthorized" in (await counted.calls.check(traffic.bot) or "")
    server.fail("getMe", 1, status=502, description="Bad Gateway")
    assert await counted.calls.check(traffic.bot) is not None
    await server.stop()
    assert await counted.calls.check(traffic.bot) in {"connection reset", "connection refused"}
