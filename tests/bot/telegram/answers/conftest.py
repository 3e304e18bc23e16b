"""A streamed answer into the fake Bot API server."""

from collections.abc import AsyncIterator

import pytest

from bot.telegram.delivery.delivery import Delivery
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.stream_harness import StreamHarness


@pytest.fixture
async def streaming(
    delivery: Delivery, clock: ManualClock, server: TelegramServer, traffic: Traffic
) -> AsyncIterator[StreamHarness]:
    """An answer that has not begun."""
    harness = StreamHarness(delivery, clock, server, traffic)
    yield harness
    await harness.close()
