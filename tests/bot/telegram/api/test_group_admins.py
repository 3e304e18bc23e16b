"""Look-up of group admins: cached for moderation, uncached for changes of a chat."""

import asyncio
import math

import pytest

from bot.telegram.api.group_admins import AdminCacheTiming, GroupAdmins
from services.moderation.domain.ports import Administrators
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic

GROUP = -100
TIMING = AdminCacheTiming()


@pytest.fixture
def admins(server: TelegramServer, traffic: Traffic, clock: ManualClock) -> GroupAdmins:
    server.chat(GROUP).admin_ids = {1, 2}
    server.chat(GROUP).linked_channel = -900
    return GroupAdmins(traffic.bot, clock)


def lookups(server: TelegramServer) -> int:
    return len(server.calls_of("getChatAdministrators"))


async def test_get_admins_shares_one_request_between_concurrent_callers(
    admins: GroupAdmins, server: TelegramServer
) -> None:
    found = await asyncio.gather(*(admins.get_admins(GROUP) for _ in range(5)))
    assert found == [Administrators(frozenset({1, 2}), -900)] * 5
    assert lookups(server) == 1


async def test_get_admins_caches_for_five_minutes(
    admins: GroupAdmins, server: TelegramServer, clock: ManualClock
) -> None:
    await admins.get_admins(GROUP)
    server.chat(GROUP).admin_ids.add(3)
    clock.shift(TIMING.fresh_s - 1)
    assert 3 not in (await admins.get_admins(GROUP) or Administrators(frozenset())).user_ids
    clock.shift(1)
    assert 3 in (await admins.get_admins(GROUP) or Administrators(frozenset())).user_ids
    assert lookups(server) == 2


async def test_is_admin_refetches_for_an_unknown_user_after_fifteen_seconds(
    admins: GroupAdmins, server: TelegramServer, clock: ManualClock
) -> None:
    """The recheck interval limits how often presses of non-admins cause a request."""
    await admins.get_admins(GROUP)
    server.chat(GROUP).admin_ids.add(3)
    assert not await admins.is_admin(GROUP, 3)
    clock.shift(15)
    assert await admins.is_admin(GROUP, 3)
    assert not await admins.is_admin(GROUP, 9)
    assert lookups(server) == 2


@pytest.mark.parametrize("method", ["getChatAdministrators", "getChat"])
async def test_failed_lookup_means_no_admin_and_is_cached(
    admins: GroupAdmins, server: TelegramServer, clock: ManualClock, method: str
) -> None:
    fault = server.fail(method, math.inf, status=403, description="Forbidden: bot was kicked", chat_id=GROUP)
    assert await admins.get_admins(GROUP) is None
    assert not await admins.is_admin(GROUP, 1)
    assert len(server.calls_of(method)) == 1
    fault.end()
    clock.shift(TIMING.failure_s)
    assert await admins.get_admins(GROUP) is not None


async def test_get_admins_reads_ids_from_a_response_that_aiogram_rejects(
    admins: GroupAdmins, server: TelegramServer, clock: ManualClock
) -> None:
    body = '{"ok": true, "result": [{"user": {"id": 1, "is_bot": false, "first_name": "A"}, "status": "czar"}]}'
    server.garble("getChatAdministrators", body=body)
    assert await admins.get_admins(GROUP) == Administrators(frozenset({1}), -900)


async def test_fetch_is_admin_sees_a_new_admin_at_once(admins: GroupAdmins, server: TelegramServer) -> None:
    assert not await admins.fetch_is_admin(GROUP, 3)
    server.chat(GROUP).admin_ids.add(3)
    assert await admins.fetch_is_admin(GROUP, 3)
    assert len(server.calls_of("getChatMember")) == 2


async def test_fetch_is_admin_is_false_when_the_lookup_fails(admins: GroupAdmins, server: TelegramServer) -> None:
    server.fail("getChatMember", status=403, description="Forbidden: bot was kicked", chat_id=GROUP)
    assert not await admins.fetch_is_admin(GROUP, 1)


@pytest.mark.parametrize(("status", "is_admin"), [("administrator", True), ("creator", True), ("member", False)])
async def test_fetch_is_admin_reads_the_status_from_a_response_that_aiogram_rejects(
    admins: GroupAdmins, server: TelegramServer, status: str, *, is_admin: bool
) -> None:
    server.garble("getChatMember", body=f'{{"ok": true, "result": {{"status": "{status}"}}}}')
    assert await admins.fetch_is_admin(GROUP, 1) is is_admin
