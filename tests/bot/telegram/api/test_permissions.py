"""Filters for who may use a command or press a button."""

from typing import Any

import pytest
from aiogram.types import CallbackQuery

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.permissions import FromOperator, MayChangeChat
from tests.support.clock import ManualClock
from tests.support.fake_telegram.messages import ANN, BOB, GROUP, message, raw
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic


def press(user: dict[str, Any], shown: dict[str, Any] | None) -> CallbackQuery:
    """Returns a button press under a message."""
    fields = {"id": "1", "chat_instance": "1", "from": user, "data": "x", "message": shown}
    return CallbackQuery.model_validate(fields)


async def test_from_operator_passes_only_admin_ids() -> None:
    from_operator = FromOperator(frozenset({ANN["id"]}))
    assert await from_operator(message("/provider"))
    assert await from_operator(press(ANN, raw("table")))
    assert not await from_operator(message("/provider", **{"from": BOB}))
    assert not await from_operator(press(BOB, raw("table")))
    # A message in the name of a chat has no user.
    assert not await from_operator(message("/provider", chat=GROUP, **{"from": None}))


@pytest.mark.parametrize(
    ("shown", "passes_ann", "passes_bob"),
    [
        (raw("card"), True, True),
        (raw("card", chat=GROUP), True, False),
        # A message that Telegram no longer shows: the handlers ignore the press.
        ({"message_id": 5, "date": 0, "chat": GROUP}, True, True),
        (None, True, True),
    ],
)
async def test_may_change_chat_passes_private_chats_and_group_admins(
    server: TelegramServer,
    traffic: Traffic,
    clock: ManualClock,
    shown: dict[str, Any] | None,
    *,
    passes_ann: bool,
    passes_bob: bool,
) -> None:
    server.chat(GROUP["id"]).admin_ids = {ANN["id"]}
    may_change = MayChangeChat(GroupAdmins(traffic.bot, clock))
    assert await may_change(press(ANN, shown)) is passes_ann
    assert await may_change(press(BOB, shown)) is passes_bob
