"""Waiting for real HTTP under a clock that tests move: time passes only when no call is under way."""

import asyncio
import time

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.session.middlewares.base import BaseRequestMiddleware
from aiogram.client.telegram import TelegramAPIServer

from tests.support.clock import ManualClock, settle
from tests.support.fake_telegram.server import TelegramServer

PATIENCE_S = 5.0


class Traffic(BaseRequestMiddleware):
    """A bot of a loopback server whose calls are counted while they are under way."""

    def __init__(self, server: TelegramServer, clock: ManualClock) -> None:
        self._clock = clock
        self._under_way = 0
        self._session = AiohttpSession(api=TelegramAPIServer.from_base(server.url))
        self._session.middleware(self)
        self.bot = Bot(server.token, session=self._session)

    async def __call__(self, make_request, bot, method):  # noqa: ANN001, ANN204 - aiogram's types of these fill a page
        self._under_way += 1
        try:
            return await make_request(bot, method)
        finally:
            self._under_way -= 1

    async def settle(self) -> None:
        """Let everything run until it waits for the clock, or for a test."""
        deadline = time.monotonic() + PATIENCE_S
        await settle()
        while self._under_way:
            if time.monotonic() > deadline:
                raise AssertionError("a call hangs")
            await asyncio.sleep(0.0005)
            if not self._under_way:
                await settle()

    async def pass_time(self, seconds: float, step: float = 0.25) -> None:
        """Move the clock in small steps, letting each step's calls come to their end."""
        await self.settle()
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 1e-9:
            await self._clock.advance(min(step, left))
            await self.settle()

    async def close(self) -> None:
        """Close the connections, without the quarter of a second that aiogram allows TLS for that."""
        if self._session._session is not None:
            await self._session._session.close()
