"""A bot over real HTTP under a manual clock: time passes only while no call is in flight."""

import asyncio
import time
from collections.abc import Coroutine
from typing import TypeVar

from aiogram import Bot
from aiogram.client.session.middlewares.base import BaseRequestMiddleware
from aiogram.client.telegram import TelegramAPIServer

from bot.telegram.api.session import ApiSession
from tests.support.clock import ManualClock, settle
from tests.support.fake_telegram.server import TelegramServer

CALL_DEADLINE_S = 5.0
T = TypeVar("T")


class Traffic(BaseRequestMiddleware):
    """A bot of the fake server, and the number of its calls in flight."""

    def __init__(self, server: TelegramServer, clock: ManualClock) -> None:
        self._clock = clock
        self._in_flight = 0
        self._session = ApiSession(TelegramAPIServer.from_base(server.url))
        self._session.middleware(self)
        self.bot = Bot(server.token, session=self._session)

    async def __call__(self, make_request, bot, method):  # noqa: ANN001, ANN204 - aiogram's types of these are long
        self._in_flight += 1
        try:
            return await make_request(bot, method)
        finally:
            self._in_flight -= 1

    async def settle(self) -> None:
        """Runs everything until it waits for the clock or for the test."""
        deadline = time.monotonic() + CALL_DEADLINE_S
        await settle()
        while self._in_flight:
            if time.monotonic() > deadline:
                raise AssertionError("a call hangs")
            await asyncio.sleep(0.0005)
            if not self._in_flight:
                await settle()

    async def pass_time(self, seconds: float, step: float = 0.25) -> None:
        """Moves the clock in small steps; the calls of each step end before the next."""
        await self.settle()
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 1e-9:
            await self._clock.advance(min(step, left))
            await self.settle()

    async def run(self, work: Coroutine[object, object, T], within_s: float = 90) -> T:
        """Runs a coroutine to its end, moving the clock a second at a time.

        It may also wait for a thread, such as the database's, which the clock knows nothing of: it fails only after
        `within_s` of the clock and `CALL_DEADLINE_S` of real time.
        """
        task = asyncio.create_task(work)
        await self.settle()
        end, deadline = self._clock.monotonic() + within_s, time.monotonic() + CALL_DEADLINE_S
        while not task.done():
            if self._clock.monotonic() >= end and time.monotonic() >= deadline:
                task.cancel()
                raise AssertionError("it still waits")
            await self.pass_time(1, step=1)
            await asyncio.wait({task}, timeout=0.001)
        return task.result()

    async def close(self) -> None:
        """Closes the connections, without aiogram's pause of 0.25 s for TLS."""
        if self._session._session is not None:
            await self._session._session.close()
