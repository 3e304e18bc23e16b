"""Observes every Bot API call: its duration, its failure, and whether Telegram answers at all."""

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
"""Time for which an answer counts as proof that Telegram is reachable, so that probes cause no calls."""
PROBE_TIMEOUT_S = 2
ANSWERS = frozenset({ApiFailure.DONE, ApiFailure.UNCHANGED, ApiFailure.FLOOD})
"""Failures that prove that Telegram answers."""


class ApiCallObserver(Protocol):
    """Receives each finished call."""

    def record_call(self, method: str, began_ns: int, seconds: float, failure: ApiFailure | None) -> None:
        """Records a call; `failure` is None if it succeeded."""
        ...


class ApiCallMiddleware:
    """Session middleware that passes each call to its observers and remembers when Telegram last answered."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._observers: list[ApiCallObserver] = []
        self._answered_at: float | None = None

    def watch(self, observer: ApiCallObserver) -> None:
        """Adds an observer of every call except `getUpdates`, which lasts as long as there are no updates."""
        self._observers.append(observer)

    async def __call__(
        self, make_request: NextRequestMiddlewareType[TelegramType], bot: Bot, method: TelegramMethod[TelegramType]
    ) -> Response[TelegramType]:
        """Makes a call."""
        began_ns, began = time.time_ns(), time.perf_counter()
        failure: ApiFailure | None = None
        try:
            response = await make_request(bot, method)
            self._answered_at = self._clock.monotonic()
        except (TelegramAPIError, ClientDecodeError) as error:
            failure = classify_api_error(error)
            if failure in ANSWERS:
                self._answered_at = self._clock.monotonic()
            raise
        else:
            return response
        finally:
            name = method.__api_method__
            if name != "getUpdates":
                for observer in self._observers:
                    observer.record_call(name, began_ns, time.perf_counter() - began, failure)

    async def check(self, bot: Bot) -> str | None:
        """Returns why Telegram is unreachable, or None. Calls `getMe` only if no call succeeded recently."""
        if self._answered_at is not None and self._clock.monotonic() - self._answered_at < RECENT_S:
            return None
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await bot.get_me(request_timeout=PROBE_TIMEOUT_S)
        except TimeoutError:
            return f"no answer within {PROBE_TIMEOUT_S} s"
        except (TelegramAPIError, ClientDecodeError) as error:
            return None if classify_api_error(error) in ANSWERS else describe_api_error(error)
        return None
