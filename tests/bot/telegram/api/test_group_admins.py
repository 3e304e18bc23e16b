"""Look-up of group admins: cached for exemptions, uncached for everything else."""

import asyncio
import math
from typing import Any

import pytest

from bot.telegram.api.group_admins import AdminCacheTiming, GroupAdmins
from services.moderation.domain.ports import Administrators, Standing
from tests.support.clock import ManualClock
from tests.support.fake_telegram.messages import ANN, BOB, message
from tests.support.fake_telegram.messages import GROUP as IN_GROUP
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic

pytestmark = pytest.mark.integration

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
    assert found == [Administrators(frozenset({1, 2}), -900, "Group 100")] * 5
    assert lookups(server) == 1


async def test_close_ends_a_lookup_whose_caller_was_cancelled(admins: GroupAdmins, server: TelegramServer) -> None:
    """It would go on after the end of the session."""
    held = server.hold("getChatAdministrators")
    caller = asyncio.create_task(admins.get_admins(GROUP))
    await server.wait_for(lambda: server.calls_of("getChat"))
    caller.cancel()
    await asyncio.wait([caller])
    [lookup] = [task for task in asyncio.all_tasks() if task.get_name() == "group admins"]
    await admins.close()
    assert lookup.cancelled()
    held.end()


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


@pytest.mark.parametrize("method", ["getChatAdministrators", "getChat"])
async def test_failed_lookup_means_no_admin_and_is_cached(
    admins: GroupAdmins, server: TelegramServer, clock: ManualClock, method: str
) -> None:
    fault = server.fail(method, math.inf, status=403, description="Forbidden: bot was kicked", chat_id=GROUP)
    assert await admins.get_admins(GROUP) is None
    assert len(server.calls_of(method)) == 1
    fault.end()
    clock.shift(TIMING.failure_s)
    assert await admins.get_admins(GROUP) is not None


async def test_get_admins_reads_ids_from_a_response_that_aiogram_rejects(
    admins: GroupAdmins, server: TelegramServer, clock: ManualClock
) -> None:
    body = '{"ok": true, "result": [{"user": {"id": 1, "is_bot": false, "first_name": "A"}, "status": "czar"}]}'
    server.garble("getChatAdministrators", body=body)
    body = '{"ok": true, "result": {"id": -100, "type": "guild", "title": "Cats", "linked_chat_id": -901}}'
    server.garble("getChat", body=body)
    assert await admins.get_admins(GROUP) == Administrators(frozenset({1}), -901, "Cats")


async def test_fetch_standing_is_asked_for_anew(admins: GroupAdmins, server: TelegramServer) -> None:
    """However fresh the cached list is."""
    await admins.get_admins(GROUP)
    assert await admins.fetch_standing(GROUP, 3) is Standing.MEMBER
    server.chat(GROUP).admin_ids.add(3)
    assert await admins.fetch_standing(GROUP, 3) is Standing.ADMIN
    server.chat(GROUP).admin_ids.remove(3)
    assert await admins.fetch_standing(GROUP, 3) is Standing.MEMBER
    assert len(server.calls_of("getChatMember")) == 3


@pytest.mark.parametrize(
    ("description", "standing"),
    [
        ("Forbidden: bot was kicked", Standing.UNKNOWN),
        ("Internal Server Error", Standing.UNKNOWN),
        ("Bad Request: CHAT_ADMIN_REQUIRED", Standing.UNKNOWN),
        # Telegram knows no such member: no admin, without a doubt.
        ("Bad Request: user not found", Standing.MEMBER),
        ("Bad Request: member not found", Standing.MEMBER),
        ("Bad Request: PARTICIPANT_ID_INVALID", Standing.MEMBER),
    ],
)
async def test_fetch_standing_is_unknown_when_the_lookup_fails(
    admins: GroupAdmins, server: TelegramServer, description: str, standing: Standing
) -> None:
    status = {"F": 403, "I": 500, "B": 400}[description[0]]
    server.fail("getChatMember", status=status, description=description, chat_id=GROUP)
    assert await admins.fetch_standing(GROUP, 1) is standing


@pytest.mark.parametrize(
    ("status", "standing"),
    [
        ("administrator", Standing.ADMIN),
        ("creator", Standing.ADMIN),
        ("member", Standing.MEMBER),
        ("czar", Standing.MEMBER),
    ],
)
async def test_fetch_standing_reads_the_status_from_a_response_that_aiogram_rejects(
    admins: GroupAdmins, server: TelegramServer, status: str, standing: Standing
) -> None:
    server.garble("getChatMember", body=f'{{"ok": true, "result": {{"status": "{status}"}}}}')
    assert await admins.fetch_standing(GROUP, 1) is standing


@pytest.mark.parametrize(
    ("fields", "standing"),
    [
        ({}, Standing.ADMIN),
        ({"from": BOB}, Standing.MEMBER),
        # In the group's own name: an anonymous admin. In another chat's name: a channel.
        ({"sender_chat": IN_GROUP}, Standing.ADMIN),
        ({"sender_chat": {"id": -900, "type": "channel", "title": "C"}}, Standing.MEMBER),
        ({"from": None}, Standing.MEMBER),
    ],
)
async def test_fetch_author_standing(
    admins: GroupAdmins, server: TelegramServer, fields: dict[str, Any], standing: Standing
) -> None:
    server.chat(IN_GROUP["id"]).admin_ids = {ANN["id"]}
    assert await admins.fetch_author_standing(message("/spam", chat=IN_GROUP, **fields)) is standing
