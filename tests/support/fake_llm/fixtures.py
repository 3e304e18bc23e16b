"""Fixtures: two LLM servers."""

from collections.abc import AsyncIterator

import pytest

from tests.support.fake_llm.server import LLMServer


@pytest.fixture
async def first() -> AsyncIterator[LLMServer]:
    """The preferred provider."""
    async with LLMServer() as server:
        yield server


@pytest.fixture
async def second() -> AsyncIterator[LLMServer]:
    """The fallback provider."""
    async with LLMServer() as server:
        yield server
