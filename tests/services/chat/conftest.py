"""A database file and two LLM servers, for turns."""

import asyncio
import io
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import structlog

from core.db.database import Database
from core.observability.log import configure_logging
from tests.support.fake_llm.server import LLMServer


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty file, to be copied: migrating one takes a while."""
    path = tmp_path_factory.mktemp("migrated") / "understudy.db"

    async def migrate() -> None:
        database = Database(f"sqlite:///{path}")
        await database.start()
        await database.close()

    asyncio.run(migrate())
    return path


@pytest.fixture
async def file(tmp_path: Path, migrated: Path) -> AsyncIterator[Database]:
    """A SQLite file that gives up soon when it is locked."""
    path = tmp_path / "data" / "understudy.db"
    path.parent.mkdir()
    shutil.copy(migrated, path)
    database = Database(f"sqlite:///{path}", busy_timeout_s=0.2)
    await database.start()
    yield database
    await database.close()


@pytest.fixture
async def first() -> AsyncIterator[LLMServer]:
    """The provider that stands first."""
    async with LLMServer() as server:
        yield server


@pytest.fixture
async def second() -> AsyncIterator[LLMServer]:
    """The one after it."""
    async with LLMServer() as server:
        yield server


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """The log as it would be written at the most talkative level."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logging("debug", "json", stream=stream)
    yield stream.getvalue
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
