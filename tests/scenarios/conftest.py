"""Fixtures of the whole bot against loopback servers."""

import gc
import shutil
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from aiogram.client.session.aiohttp import AiohttpSession

from bot.composition import telegram
from bot.process import tune_garbage_collection
from services.inbox import inbox
from services.inbox.inbox import InboxTiming
from tests.support.bot_harness import BotHarness, close_at_once, staged


@pytest.fixture(scope="package", autouse=True)
def _collector() -> Iterator[None]:
    """Tune the garbage collector as the daemon does, but once: it takes longer than most scenarios."""
    thresholds = gc.get_threshold()
    tune_garbage_collection()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(telegram, "tune_garbage_collection", lambda: None)
        yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.fixture
def short_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed jobs are retried twice, within milliseconds. Request it before the bot starts."""
    monkeypatch.setattr(inbox, "InboxTiming", partial(InboxTiming, retry_pauses_s=(0.01, 0.01)))


@pytest.fixture
async def empty_stage(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BotHarness]:
    """Telegram and the providers run; the test starts the bot with `stage.start(...)`."""
    monkeypatch.setattr(AiohttpSession, "close", close_at_once)
    directory = tmp_path / "bot"
    directory.mkdir()
    shutil.copy(migrated, directory / "understudy.db")
    async for stage in staged(directory):
        yield stage


@pytest.fixture
async def stage(empty_stage: BotHarness) -> BotHarness:
    """The bot runs and polls."""
    await empty_stage.start()
    return empty_stage
