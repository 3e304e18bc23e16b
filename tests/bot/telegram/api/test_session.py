"""Calls to Telegram wait while the lease has lapsed; reading their answers builds no type twice."""

import asyncio
import gc
import weakref
from typing import Any

from aiogram import Bot
from aiogram.client.telegram import TelegramAPIServer
from aiogram.methods import GetMe, Response

from bot.telegram.api.session import ApiSession, LeaseGate
from services.inbox.lease import ReplicaLease
from tests.support.clock import ManualClock, settle


async def test_calls_wait_until_the_lease_is_held_again(clock: ManualClock) -> None:
    lease = ReplicaLease(clock.monotonic)
    made: list[object] = []

    async def make(_bot: Bot, method: Any) -> Response[Any]:
        made.append(method)
        return Response(ok=True)

    gate, bot = LeaseGate(lease), Bot("42:AAF-for-no-server-at-all-0123456789abcde")
    await gate(make, bot, GetMe())
    assert len(made) == 1, "held for ever without replicas"
    lease.renew(clock.monotonic() + 5)
    clock.shift(6)
    waiting = asyncio.create_task(gate(make, bot, GetMe()))
    await settle()
    assert len(made) == 1
    lease.renew(clock.monotonic() + 5)
    assert (await waiting).ok
    assert len(made) == 2
    await bot.session.close()


async def test_response_types_outlive_a_collection_of_garbage() -> None:
    session = ApiSession(TelegramAPIServer.from_base("http://127.0.0.1:1"))
    bot = Bot("42:AAF-for-no-server-at-all-0123456789abcde", session)
    me = '{"ok": true, "result": {"id": 42, "is_bot": true, "first_name": "Understudy"}}'
    built = weakref.ref(type(session.check_response(bot, GetMe(), 200, me)))
    gc.collect()
    assert built() is not None
    assert type(session.check_response(bot, GetMe(), 200, me)) is built()
    await session.close()
