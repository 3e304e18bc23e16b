"""A loopback LLM server and a model builder, closed after each test."""

from collections.abc import AsyncIterator

import pytest

from services.llm.providers.builder import ModelBuilder
from tests.support.fake_llm.server import LLMServer


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    """A server that answers well until it is told otherwise."""
    async with LLMServer() as running:
        yield running


@pytest.fixture
async def builder() -> AsyncIterator[ModelBuilder]:
    """A builder without connections left at the end."""
    built = ModelBuilder()
    yield built
    await built.aclose()
