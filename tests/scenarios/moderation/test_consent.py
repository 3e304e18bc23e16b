"""Remote providers judge only where a group agreed to that: not one byte leaves before."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiogram.client.session.aiohttp import AiohttpSession

from bot.composition import moderation as composition
from services.moderation.maintenance import MaintenanceTiming
from tests.support.bot_harness import BotHarness, close_at_once, staged
from tests.support.fake_llm.server import status
from tests.support.moderated_group import JOB, ModeratedGroup, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUESTION = "Hello everybody, how do I set up the heating?"
PLAIN = (
    "Ищем людей на удалённую работу! Доход от 300$ в день, без опыта, ежедневные выплаты. Пишите + в личку @easy_job"
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def asking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BotHarness]:
    """Both providers are remote, groups are asked, and a new group starts in earnest."""
    settings = {"A_REMOTE": "true", "B_REMOTE": "true", "REMOTE_CONSENT": "ask", "MODERATION_DRY_RUN": "false"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AiohttpSession, "close", close_at_once)
        patch.setattr(composition, "MaintenanceTiming", lambda: MaintenanceTiming(round_s=0.2))
        async for stage in staged(tmp_path_factory.mktemp("consent")):
            stage.first.default = status(500)
            stage.second.default = status(500)
            await stage.start(**settings)
            yield stage


async def test_nothing_leaves_before_an_admin_agrees(asking: BotHarness) -> None:
    group = ModeratedGroup(asking)
    assert "acts on what it finds" in (await group.commands("/moderation on")).text
    await asking.quiet(1.1)
    # What is asked for at the start is a model list, and no message.
    await asking.until(lambda: asking.first.other_requests and asking.second.other_requests)
    connections = (asking.first.connections, asking.second.connections)
    message = await group.look(QUESTION)
    plain = await group.look(PLAIN, 6004)
    assert (asking.first.connections, asking.second.connections) == connections
    assert not message.deleted
    # Nobody could judge it, so the plainest is shown to the admins, and nothing is done.
    assert not plain.deleted
    assert "Please review" in (await group.card()).text

    settings = await group.commands("/moderation")
    assert "External providers may judge: no" in settings.text
    await group.presses(settings, "External providers")
    await group.shows(settings, "External providers may judge: yes")
    await asking.quiet(1.1)
    asking.first.script(verdict("job_scam", 97, "Earn from $500 a day"))
    spam = await group.look(JOB, 6005)
    assert spam.deleted
    assert not asking.second.requests


async def test_a_group_that_takes_it_back(asking: BotHarness) -> None:
    """Its own switch holds, whatever the chat agreed to."""
    group = await ModeratedGroup(asking).open()
    settings = await group.commands("/moderation")
    await group.presses(settings, "External providers")
    await group.shows(settings, "may judge: yes")
    await group.presses(settings, "✓ External providers")
    await group.shows(settings, "may judge: no")
    await asking.quiet(1.1)
    asked = len(asking.first.requests) + len(asking.second.requests)
    await group.look(JOB)
    assert len(asking.first.requests) + len(asking.second.requests) == asked
