"""One running bot for the scenarios of a module: each has a group of its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiogram.client.session.aiohttp import AiohttpSession

from bot.composition import moderation as composition
from services.moderation.maintenance import MaintenanceTiming
from tests.support.bot_harness import BotHarness, close_at_once, staged
from tests.support.moderated_group import ModeratedGroup, verdict


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BotHarness]:
    """The bot, with a local score that has been trained once."""
    with pytest.MonkeyPatch.context() as patch:
        # Scenarios run in real time and wait for maintenance rounds.
        patch.setattr(composition, "MaintenanceTiming", lambda: MaintenanceTiming(round_s=0.2))
        patch.setattr(AiohttpSession, "close", close_at_once)
        async for stage in staged(tmp_path_factory.mktemp("moderation")):
            await stage.start()
            yield stage


@pytest_asyncio.fixture(loop_scope="session")
async def calm(running: BotHarness) -> BotHarness:
    """The same, with judges that say that all is well unless a scenario has them say something else."""
    for provider in ("a", "b"):
        await running.services.operators.providers.run(f"reset {provider}", 1)
    for server in (running.first, running.second):
        server._script.clear()
        server.default = verdict("ok", 99)
        server.requests.clear()
    return running


@pytest_asyncio.fixture(loop_scope="session")
async def group(calm: BotHarness) -> ModeratedGroup:
    """A group in which moderation acts."""
    return await ModeratedGroup(calm).open()
