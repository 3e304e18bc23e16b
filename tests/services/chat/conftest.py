"""Fixtures of the chat service."""

import io
import logging
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import structlog

from core.db.database import Database
from core.observability.log import configure_logging
from tests.support.chat_harness import ChatHarness, chat_harness
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import provider


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """Return a function that reads the JSON log at level debug."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logging("debug", "json", stream=stream)
    yield stream.getvalue
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
async def harness(file: Database, first: LLMServer) -> AsyncIterator[ChatHarness]:
    """The chat service with one provider, on a SQLite file."""
    async with chat_harness(file, provider("first", first.url)) as harness:
        yield harness


@pytest.fixture
async def duo(file: Database, first: LLMServer, second: LLMServer) -> AsyncIterator[ChatHarness]:
    """The chat service with two providers."""
    async with chat_harness(file, provider("first", first.url), provider("second", second.url)) as harness:
        yield harness
