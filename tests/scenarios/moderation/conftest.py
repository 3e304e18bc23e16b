"""One running bot per module; each scenario has a group of its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiogram.client.session.aiohttp import AiohttpSession

from bot.composition import moderation as composition
from services.moderation.maintenance import MaintenanceTiming
from services.moderation.reporting import ReportTiming
from tests.support.bot_harness import BotHarness, close_at_once, staged
from tests.support.moderated_group import ModeratedGroup, verdict


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_harness(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BotHarness]:
    """A running bot; its base score is trained once per module."""
    with pytest.MonkeyPatch.context() as patch:
        # Scenarios run in real time and wait for maintenance rounds.
        patch.setattr(composition, "MaintenanceTiming", lambda: MaintenanceTiming(round_s=0.2))
        patch.setattr(composition, "ReportTiming", lambda: ReportTiming(burst=1000))
        patch.setattr(AiohttpSession, "close", close_at_once)
        async for harness in staged(tmp_path_factory.mktemp("moderation")):
            # One bot for a module, whose admin sends more than 20 commands a minute; its second model sees pictures.
            await harness.start(LIMIT_MESSAGES_PER_MINUTE="0", B_FAMILIES='{"n": "gpt-4o"}')
            yield harness


@pytest_asyncio.fixture(loop_scope="session")
async def harness(shared_harness: BotHarness) -> BotHarness:
    """The running bot with reset providers; unless a scenario scripts them, they judge every message as ok."""
    for provider in ("a", "b"):
        await shared_harness.services.operators.providers.run(f"reset {provider}", 1)
    for server in (shared_harness.first, shared_harness.second):
        server._script.clear()
        server.default = verdict("ok", 99)
        server.requests.clear()
    return shared_harness


@pytest_asyncio.fixture(loop_scope="session")
async def group(harness: BotHarness) -> ModeratedGroup:
    """A group in enforce mode."""
    return await ModeratedGroup(harness).open()
