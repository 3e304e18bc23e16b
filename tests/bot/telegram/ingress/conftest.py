"""An ingest for each test."""

import pytest

from tests.bot.telegram.ingress.ingest_harness import IngestHarness
from tests.support.clock import ManualClock
from tests.support.fake_telegram.traffic import Traffic


@pytest.fixture
def harness(traffic: Traffic, clock: ManualClock) -> IngestHarness:
    """An ingest that admits everyone."""
    return IngestHarness(traffic, clock)
