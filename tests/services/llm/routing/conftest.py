"""Fixture of the fallback service with three providers."""

from collections.abc import AsyncIterator

import pytest

from tests.support.fallback_harness import FallbackHarness, open_fallback_harness


@pytest.fixture
async def harness() -> AsyncIterator[FallbackHarness]:
    async with open_fallback_harness() as harness:
        yield harness
