"""Who runs a group: asked once in a while, never guessed."""

import asyncio
import math

import pytest

from bot.telegram.api.group_admins import FAILED_S, FRESH_S, GroupAdmins
from services.moderation.domain.ports import Administrators
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic

GROUP = -100


@pytest.fixture
def staff(server: TelegramServer, traffic: Traffic, clock: ManualClock) -> GroupAdmins:
    server.chat(GROUP).admin_ids = {1, 2}
    server.chat(GROUP).linked_channel = -900
    return GroupAdmins(traffic.bot, clock)


def asked(server: TelegramServer) -> int:
    return len(server.calls_of("getChatAdministrators"))


async def test_it_is_asked_once_for_all_who_wait(staff: GroupAdmins, server: TelegramServer) -> None:
    found = await asyncio.gather(*(staff.get_admins(GROUP) for _ in range(5)))
    assert found == [Administrators(frozenset({1, 2}), -900)] * 5
    assert asked(server) == 1


async def test_it_holds_for_five_minutes(staff: GroupAdmins, server: TelegramServer, clock: ManualClock) -> None:
    await staff.get_admins(GROUP)
    server.chat(GROUP).admin_ids.add(3)
    clock.shift(FRESH_S - 1)
    assert 3 not in (await staff.get_admins(GROUP) or Administrators(frozenset())).user_ids
    clock.shift(1)
    assert 3 in (await staff.get_admins(GROUP) or Administrators(frozenset())).user_ids
    assert asked(server) == 2


async def test_a_new_admin_need_not_wait_for_that(
    staff: GroupAdmins, server: TelegramServer, clock: ManualClock
) -> None:
    """Who acts as one and is not on the list has it looked up, though not by every press."""
    await staff.get_admins(GROUP)
    server.chat(GROUP).admin_ids.add(3)
    assert not await staff.is_admin(GROUP, 3)
    clock.shift(15)
    assert await staff.is_admin(GROUP, 3)
    assert not await staff.is_admin(GROUP, 9)
    assert asked(server) == 2


@pytest.mark.parametrize("method", ["getChatAdministrators", "getChat"])
async def test_nothing_is_guessed(staff: GroupAdmins, server: TelegramServer, clock: ManualClock, method: str) -> None:
    """And Telegram is not asked all the time while it does not tell."""
    fault = server.fail(method, math.inf, status=403, description="Forbidden: bot was kicked", chat_id=GROUP)
    assert await staff.get_admins(GROUP) is None
    assert not await staff.is_admin(GROUP, 1)
    assert len(server.calls_of(method)) == 1
    fault.mend()
    clock.shift(FAILED_S)
    assert await staff.get_admins(GROUP) is not None


async def test_a_server_whose_admins_the_library_cannot_read(
    staff: GroupAdmins, server: TelegramServer, clock: ManualClock
) -> None:
    """What is sure of them is enough."""
    body = '{"ok": true, "result": [{"user": {"id": 1, "is_bot": false, "first_name": "A"}, "status": "czar"}]}'
    server.garble("getChatAdministrators", body=body)
    assert await staff.get_admins(GROUP) == Administrators(frozenset({1}), -900)
