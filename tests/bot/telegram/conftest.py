"""A Bot API server, a real bot that talks to it, and the delivery between them."""

from collections.abc import AsyncIterator

import pytest

from bot.telegram.delivery.delivery import Delivery
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic


@pytest.fixture
async def server(clock: ManualClock) -> AsyncIterator[TelegramServer]:
    """A Bot API server whose times are the clock's."""
    async with TelegramServer(clock=clock) as running:
        yield running


@pytest.fixture
async def traffic(server: TelegramServer, clock: ManualClock) -> AsyncIterator[Traffic]:
    """A bot of that server, and the way to let its calls come to an end."""
    traffic = Traffic(server, clock)
    yield traffic
    await traffic.close()


@pytest.fixture
def delivery(traffic: Traffic, clock: ManualClock) -> Delivery:
    """The way out of that bot."""
    return Delivery(traffic.bot, clock)
