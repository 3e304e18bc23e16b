"""Every call of the Bot API passes here: whether Telegram answers, how long that takes, what it refuses."""

import asyncio
import time
from typing import Protocol

from aiogram import Bot
from aiogram.client.session.middlewares.base import NextRequestMiddlewareType
from aiogram.exceptions import ClientDecodeError, TelegramAPIError
from aiogram.methods import Response, TelegramMethod
from aiogram.methods.base import TelegramType

from bot.telegram.api.errors import ApiFailure, classify_api_error, describe_api_error
from core.clock import Clock

RECENT_S = 15.0
"""Whoever answered so short a time ago need not be asked whether they are there."""
ASK_TIMEOUT_S = 2
ANSWERS = frozenset({ApiFailure.DONE, ApiFailure.UNCHANGED, ApiFailure.FLOOD})
"""A call that ends so is an answer of Telegram all the same."""


class ApiCallObserver(Protocol):
    """Who is told of each call."""

    def called(self, method: str, began_ns: int, seconds: float, fault: ApiFailure | None) -> None:
        """A call is over; `fault` is None where all went well."""
        ...


class ApiCallMiddleware:
    """Watches the calls of a bot: a middleware of its session.

    Args:
        clock: tells how long ago Telegram answered.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watchers: list[ApiCallObserver] = []
        self._answered_at: float | None = None

    def watch(self, watcher: ApiCallObserver) -> None:
        """Tell `watcher` of each call but `getUpdates`, which lasts as long as there are no updates."""
        self._watchers.append(watcher)

    async def __call__(
        self, make_request: NextRequestMiddlewareType[TelegramType], bot: Bot, method: TelegramMethod[TelegramType]
    ) -> Response[TelegramType]:
        """Make one call."""
        began_ns, began = time.time_ns(), time.perf_counter()
        fault: ApiFailure | None = None
        try:
            response = await make_request(bot, method)
            self._answered_at = self._clock.monotonic()
        except (TelegramAPIError, ClientDecodeError) as error:
            fault = classify_api_error(error)
            if fault in ANSWERS:
                self._answered_at = self._clock.monotonic()
            raise
        else:
            return response
        finally:
            name = method.__api_method__
            if name != "getUpdates":
                for watcher in self._watchers:
                    watcher.called(name, began_ns, time.perf_counter() - began, fault)

    async def silence(self, bot: Bot) -> str | None:
        """Why Telegram cannot be used right now; None where it answered a moment ago, or answers when it is asked."""
        if self._answered_at is not None and self._clock.monotonic() - self._answered_at < RECENT_S:
            return None
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await bot.get_me(request_timeout=ASK_TIMEOUT_S)
        except TimeoutError:
            return f"no answer within {ASK_TIMEOUT_S} s"
        except (TelegramAPIError, ClientDecodeError) as error:
            return None if classify_api_error(error) in ANSWERS else describe_api_error(error)
        return None
