"""Messages at the join gate in the chats of a fake Telegram."""

from dataclasses import replace
from typing import Any, cast

import pytest

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.moderation.cards import IncidentCards
from bot.telegram.moderation.gate_messages import GateMessages
from core.i18n import Texts
from services.moderation.domain.ports import CardLocation
from services.moderation.domain.settings import GroupSettings, Mode
from services.moderation.newcomers.gate import Question
from services.moderation.newcomers.store import Entry, Gate
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic

pytestmark = pytest.mark.integration

GROUP, ADMIN, PERSON = -100, 5001, 7
SETTINGS = GroupSettings(GROUP, mode=Mode.ENFORCE)
RAID = Entry(GROUP, raid_joins=40)


@pytest.fixture
def gate(delivery: Delivery, traffic: Traffic, clock: ManualClock, server: TelegramServer) -> GateMessages:
    server.chat(GROUP).admin_ids = {ADMIN}
    texts = Texts(strict=True)
    cards = IncidentCards(delivery, GroupAdmins(traffic.bot, clock), texts)
    return GateMessages(cast("Any", traffic.bot), delivery, cards, texts)


async def test_notice_has_the_button_of_its_gate(gate: GateMessages, server: TelegramServer, traffic: Traffic) -> None:
    posted = [await gate.post_notice(SETTINGS, kind) for kind in (Gate.BUTTON, Gate.QUESTION)]
    pressed, asked = server.chat(GROUP).answers()
    assert [pressed.id, asked.id] == posted
    assert pressed.buttons[0]["callback_data"] == "gate:pass:100:0"
    me = await traffic.bot.me()
    assert asked.buttons[0]["url"] == f"https://t.me/{me.username}?start=gate_-100"
    await gate.delete_notice(GROUP, pressed.id)
    assert pressed.deleted
    server.block(GROUP)
    assert await gate.post_notice(SETTINGS, Gate.BUTTON) is None


async def test_person_is_asked_in_private(gate: GateMessages, server: TelegramServer) -> None:
    assert await gate.ask_in_private(SETTINGS, PERSON, Question("2 + 3", (5, 4, 9, 7)))
    assert await gate.ask_in_private(SETTINGS, PERSON, None)
    asked, pressed = server.chat(PERSON).answers()
    assert "how much is 2 + 3?" in asked.text
    assert [(each["text"], each["callback_data"]) for each in asked.buttons] == [
        (str(number), f"gate:answer:100:{number}") for number in (5, 4, 9, 7)
    ]
    assert pressed.buttons[0]["callback_data"] == "gate:pass:100:0"
    server.block(PERSON)
    assert not await gate.ask_in_private(SETTINGS, PERSON, None)


@pytest.mark.parametrize(
    ("settings", "is_blocked", "chat_id"),
    [
        (SETTINGS, False, GROUP),
        (replace(SETTINGS, cards_to=ADMIN), False, ADMIN),
        (replace(SETTINGS, cards_to=ADMIN), True, GROUP),
    ],
)
async def test_raid_is_one_card_where_the_cards_go(
    gate: GateMessages, server: TelegramServer, settings: GroupSettings, chat_id: int, *, is_blocked: bool
) -> None:
    if is_blocked:
        server.block(ADMIN)
    location = await gate.show_raid(settings, RAID)
    [card] = server.chat(chat_id).answers()
    assert location == CardLocation(chat_id, card.id)
    assert card.text.startswith("Raid mode is on")
    assert card.buttons[0]["callback_data"] == "gate:end:100:0"
    await gate.end_raid(settings, replace(RAID, card=(chat_id, card.id)), 3)
    assert (card.text, card.labels) == ("The raid is over. Joined: 40, passed the gate: 3.", [])


async def test_raid_of_a_dry_run_holds_no_one(gate: GateMessages, server: TelegramServer) -> None:
    await gate.show_raid(replace(SETTINGS, mode=Mode.DRY), RAID)
    [card] = server.chat(GROUP).answers()
    assert "dry run" in card.text.lower()
    # Without a card there is nothing to edit.
    await gate.end_raid(SETTINGS, RAID, 0)
    server.block(GROUP)
    assert await gate.show_raid(SETTINGS, RAID) is None


async def test_request_to_join_is_approved_if_telegram_allows_it(gate: GateMessages, server: TelegramServer) -> None:
    server.chat(GROUP).join_requests.add(PERSON)
    assert await gate.approve(GROUP, PERSON)
    assert server.chat(GROUP).join_requests == set()
    server.fail("approveChatJoinRequest", status=400, description="Bad Request: CHAT_ADMIN_REQUIRED")
    assert not await gate.approve(GROUP, PERSON)
