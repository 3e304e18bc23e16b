"""A raid over the Bot API that allows 20 messages a minute; at full size: `python -m benchmarks.moderation_raid`."""

from collections import Counter

import pytest

from core.db.database import Database
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.moderation_harness import GROUP
from tests.support.raid import CAMPAIGNS, open_raid

pytestmark = pytest.mark.integration

JOINS, RAIDERS, ADVERTS = 60, 12, 40


async def test_raid_is_deleted_within_five_seconds_and_told_on_one_card_a_campaign(
    file: Database, traffic: Traffic, server: TelegramServer, clock: ManualClock
) -> None:
    async with open_raid(file, traffic, server, clock) as raid:
        await raid.play(JOINS, RAIDERS, ADVERTS)
        assert len(raid.stood) == ADVERTS
        assert max(raid.stood) <= 5
        await raid.wait_told()
    chat = server.chat(GROUP)
    kinds = Counter(text.split(":")[0].split(".")[0] for text in chat.texts())
    assert (kinds["Done"], kinds["Raid mode is on"]) == (len(CAMPAIGNS), 1)
    assert sum(kinds.values()) <= len(CAMPAIGNS) + 2
    assert sum(raid.told()) == ADVERTS
    assert [call.method for call in server.calls if call.status == 429] == []
    assert len(chat.muted) >= JOINS - RAIDERS
