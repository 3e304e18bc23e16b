"""Consent to remote judging: no byte is sent to a remote provider before a group consents."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiogram.client.session.aiohttp import AiohttpSession

from bot.composition import moderation as composition
from services.moderation.maintenance import MaintenanceTiming
from tests.support.bot_harness import BotHarness, close_at_once, staged
from tests.support.fake_llm.server import status
from tests.support.moderated_group import JOB_SCAM, ModeratedGroup, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUESTION = "Hello everybody, how do I set up the heating?"
PLAIN = (
    "Ищем людей на удалённую работу! Доход от 300$ в день, без опыта, ежедневные выплаты. Пишите + в личку @easy_job"
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def asking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BotHarness]:
    """A bot with two remote providers that asks groups for consent; a new group starts in enforce mode."""
    settings = {"A_REMOTE": "true", "B_REMOTE": "true", "REMOTE_CONSENT": "ask", "MODERATION_DRY_RUN": "false"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AiohttpSession, "close", close_at_once)
        patch.setattr(composition, "MaintenanceTiming", lambda: MaintenanceTiming(round_s=0.2))
        async for harness in staged(tmp_path_factory.mktemp("consent")):
            harness.first.default = status(500)
            harness.second.default = status(500)
            await harness.start(**settings)
            yield harness


async def test_no_remote_request_before_an_admin_consents(asking: BotHarness) -> None:
    group = ModeratedGroup(asking)
    assert "acts on what it finds" in (await group.command("/moderation on")).text
    await asking.quiet(1.1)
    # At startup the bot requests the model lists.
    await asking.until(lambda: asking.first.other_requests and asking.second.other_requests)
    connections = (asking.first.connections, asking.second.connections)
    message = await group.moderate(QUESTION)
    plain = await group.moderate(PLAIN, 6004)
    assert (asking.first.connections, asking.second.connections) == connections
    assert not message.deleted
    # No provider could judge it: a very high score posts a card and takes no action.
    assert not plain.deleted
    assert "Please review" in (await group.card()).text

    settings = await group.command("/moderation")
    assert "External providers may judge: no" in settings.text
    await group.press(settings, "External providers")
    await group.wait_card_text(settings, "External providers may judge: yes")
    await asking.quiet(1.1)
    asking.first.script(verdict("job_scam", 97, "Earn from $500 a day"))
    spam = await group.moderate(JOB_SCAM, 6005)
    assert spam.deleted
    assert not asking.second.requests


async def test_group_can_withdraw_its_consent(asking: BotHarness) -> None:
    """The group's switch wins over the consent of the chat."""
    group = await ModeratedGroup(asking).open()
    settings = await group.command("/moderation")
    await group.press(settings, "External providers")
    await group.wait_card_text(settings, "may judge: yes")
    await group.press(settings, "✓ External providers")
    await group.wait_card_text(settings, "may judge: no")
    await asking.quiet(1.1)
    asked = len(asking.first.requests) + len(asking.second.requests)
    await group.moderate(JOB_SCAM)
    assert len(asking.first.requests) + len(asking.second.requests) == asked
