"""A fake Bot API server, a bot that uses it, and a delivery."""

from collections.abc import AsyncIterator

import pytest

from bot.telegram.delivery.delivery import Delivery
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic


@pytest.fixture
async def server(clock: ManualClock) -> AsyncIterator[TelegramServer]:
    """A fake Bot API server on the manual clock."""
    async with TelegramServer(clock=clock) as running:
        yield running


@pytest.fixture
async def traffic(server: TelegramServer, clock: ManualClock) -> AsyncIterator[Traffic]:
    """A bot of that server, with control over the end of its calls."""
    traffic = Traffic(server, clock)
    yield traffic
    await traffic.close()


@pytest.fixture
def delivery(traffic: Traffic, clock: ManualClock) -> Delivery:
    """The delivery of that bot."""
    return Delivery(traffic.bot, clock)
