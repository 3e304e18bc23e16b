"""A console in this process, and the server of its provider."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.settings import settings_for
from tests.support.sqlite_file import place_database
from tests.support.terminal import Console, Opener, console


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Opens a console on providers named by their base URLs."""
    monkeypatch.setenv("LC_ALL", "en_GB.UTF-8")

    def opening(providers: dict[str, str], **variables: str) -> AbstractAsyncContextManager[Console]:
        place_database(tmp_path / "data")
        return console(settings_for(tmp_path / "data", providers, **variables), monkeypatch)

    return opening


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    """The server of a provider."""
    async with LLMServer() as started:
        started.naming = llm.answer("A name for it")
        yield started
